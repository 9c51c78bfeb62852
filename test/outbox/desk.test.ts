import { expect } from 'chai'
import fc from 'fast-check'
import { Client, Pool } from 'pg'
import {
  type DeskOutcome,
  type DeskResult,
  InvalidOption,
  OutboxDesk,
  type OutboxDeskOptions,
  type OutboxState,
  SchemaMismatch,
} from '../../lib/index.ts'
import { eventOf, eventually } from '../support/eventually.ts'
import { type Direction, startProxy } from '../support/tcp-proxy.ts'
import { unique } from '../support/unique.ts'
import { type Row, Writing } from './writing.ts'

/** How a row is to stand: `ready`, `parked`, `sent`, `due` or `later` (held, first of its key), `behind` (held). */
type As = 'ready' | 'parked' | 'sent' | 'due' | 'later' | 'behind'

const SET: Readonly<Record<As, string>> = {
  ready: "state = 'ready'",
  parked: "state = 'parked', attempts = 8, last_error = 'no exchange', ended_at = now()",
  sent: "state = 'sent', ended_at = now()",
  due: "state = 'held', attempts = 2, last_error = 'no exchange', not_before = now()",
  later: "state = 'held', attempts = 2, last_error = 'no exchange', not_before = now() + interval '1 hour'",
  behind: "state = 'held', not_before = 'infinity'",
}

describe('the desk of the outbox', function () {
  this.timeout(60_000)
  let w: Writing
  let desk: OutboxDesk
  before(async () => {
    w = await Writing.open()
    desk = deskOf()
  })
  after(() => w.close())
  afterEach(() => w.clear())

  function deskOf(options: Partial<OutboxDeskOptions> = {}): OutboxDesk {
    return new OutboxDesk({ pool: w.pool, schema: w.schema.name, name: 'orders', ...options })
  }

  /** Writes rows that stand so; their message ids tell the key and the place: `k1`, `k2`. */
  async function put(key: string | undefined, ...stands: As[]): Promise<void> {
    const start = (await w.rows()).filter((row) => row.key === (key ?? null)).length
    for (const [i, as] of stands.entries()) {
      const messageId = `${key ?? 'plain'}${start + i + 1}`
      const message = { queue: 'q', type: 'order.placed', body: { n: i }, messageId, ...(key ? { key } : {}) }
      await w.committed((client) => w.outbox.add(message, client))
      await w.pool.query(`UPDATE ${w.schema.name}.outbox SET ${SET[as]} WHERE message_id = $1`, [messageId])
    }
  }

  function standOf({ state, not_before }: Row): As {
    if (state !== 'held') return state as As
    if (not_before === Number.POSITIVE_INFINITY) return 'behind'
    return (not_before as Date).getTime() <= Date.now() ? 'due' : 'later'
  }

  async function stands(): Promise<Record<string, As>> {
    return Object.fromEntries((await w.rows()).map((row) => [row.message_id, standOf(row)]))
  }

  async function idsOf(rows: AsyncIterable<{ readonly messageId: string }>): Promise<string[]> {
    const ids: string[] = []
    for await (const { messageId } of rows) ids.push(messageId)
    return ids
  }

  const counts = ({ done, skipped, mayBeSent, outOfOrder }: DeskResult) => ({ done, skipped, mayBeSent, outOfOrder })

  it('lists by state and position, the parked by default, page by page', async () => {
    await put('k', 'parked', 'later', 'behind', 'ready')
    await put(undefined, 'parked', 'sent')
    expect(await idsOf(desk.list())).to.deep.equal(['k1', 'plain1'])
    expect(await idsOf(desk.list({ state: 'held' }))).to.deep.equal(['k2', 'k3'])
    expect(await idsOf(desk.list({ state: 'ready' }))).to.deep.equal(['k4'])
    expect(await idsOf(desk.list({ state: 'sent' }))).to.deep.equal(['plain2'])
    await w.committed((client) =>
      w.outbox.add(
        Array.from({ length: 1_000 }, (_, i) => ({ queue: 'q', body: i, messageId: `m${i}` })),
        client,
      ),
    )
    const all = await idsOf(desk.list({ state: 'ready' }))
    expect(all).to.have.length(1_001)
    const [third] = (await w.rows()).filter((row) => row.message_id === 'm2')
    expect(await idsOf(desk.list({ state: 'ready', after: third!.position, limit: 2 }))).to.deep.equal(['m3', 'm4'])
    expect(await idsOf(desk.list({ state: 'ready', after: String(third!.position), limit: 1 }))).to.deep.equal(['m3'])
  })

  it('tells of a row what is known of it', async () => {
    await put('k', 'later', 'behind', 'parked')
    const rows = []
    for await (const row of desk.list({ state: 'held' })) rows.push(row)
    const [head, behind] = rows
    expect(head).to.include({ outbox: 'orders', state: 'held', key: 'k', type: 'order.placed', exchange: '' })
    expect(head).to.include({ routingKey: 'q', attempts: 2, lastError: 'no exchange', waits: false, bodyBytes: 7 })
    expect(head!.nextAttemptAt!.getTime()).to.be.greaterThan(Date.now())
    expect(behind).to.include({ attempts: 0, lastError: undefined, waits: true, nextAttemptAt: undefined })
    const [parked] = await desk.show('k3')
    expect(parked).to.include({
      state: 'parked',
      nextAttemptAt: undefined,
      contentType: 'application/json',
      appId: 'orders',
    })
    expect(parked!.endedAt).to.be.instanceOf(Date)
    expect(parked!.headers).to.deep.equal({ transaction_id: 'k3', 'surehop-key': 'k' })
    expect(String(parked!.body)).to.equal('{"n":2}')
  })

  it('shows by message id or position, all rows of an id, and of its own outbox only', async () => {
    await put('k', 'ready')
    const [{ position }] = (await w.rows()) as [Row]
    await w.committed(async (client) => {
      await w.outbox.add({ queue: 'q', body: 2, messageId: 'k1' }, client)
      await w.open({ name: 'others' }).add({ queue: 'q', body: 3, messageId: 'k1' }, client)
      await w.outbox.add({ queue: 'q', body: 4, messageId: String(position) }, client)
    })
    expect(await desk.show('k1')).to.have.length(2)
    expect(await deskOf({ name: undefined as never }).show('k1')).to.have.length(3)
    for (const ref of [position, BigInt(position)])
      expect((await desk.show(ref)).map(({ messageId }) => messageId)).to.deep.equal(['k1'])
    expect((await desk.show(String(position))).map(({ body }) => String(body))).to.deep.equal(['4'])
    expect(await desk.show('nobody')).to.deep.equal([])
  })

  it('retries parked rows at once, counted anew, those of one key one after another', async () => {
    await put('k', 'parked', 'parked', 'ready')
    await put(undefined, 'parked', 'parked')
    const result = await desk.retry({ state: 'parked' })
    expect(counts(result)).to.deep.equal({ done: 4, skipped: 0, mayBeSent: 0, outOfOrder: 2 })
    expect(await stands()).to.deep.equal({ k1: 'due', k2: 'behind', k3: 'ready', plain1: 'due', plain2: 'due' })
    const [first] = await w.rows()
    expect(first).to.include({ attempts: 0, last_error: 'no exchange' })
    expect((await desk.show('k1'))[0]!.endedAt).to.equal(undefined)
  })

  it('retries held rows at once, but none that waits behind another', async () => {
    await put('k', 'later', 'behind', 'parked')
    const whys: (string | undefined)[] = []
    const onOutcome = ({ why }: DeskOutcome) => whys.push(why)
    const result = await desk.retry({ rows: ['k1', 'k2'] }, { onOutcome })
    expect(counts(result)).to.deep.equal({ done: 1, skipped: 1, mayBeSent: 0, outOfOrder: 0 })
    expect(whys[1]).to.contain('waits behind another message of its key')
    expect(await stands()).to.deep.equal({ k1: 'due', k2: 'behind', k3: 'parked' })
    await desk.retry({ rows: ['k3'] })
    expect(await stands()).to.deep.equal({ k1: 'due', k2: 'behind', k3: 'behind' })
  })

  it('puts a retried row before those of its key that wait, where it was written before them', async () => {
    await put('k', 'parked', 'later', 'behind')
    await desk.retry({ rows: ['k1'] })
    expect(await stands()).to.deep.equal({ k1: 'due', k2: 'later', k3: 'behind' })
  })

  it('parks rows that are to be sent, says that they may have been, and lets their key go on', async () => {
    await put('k', 'later', 'behind', 'behind')
    await put('j', 'later', 'behind', 'behind')
    await put(undefined, 'ready', 'parked', 'sent')
    const result = await desk.park({ rows: ['k1', 'k2', 'j2', 'plain1', 'plain2', 'plain3'] })
    expect(counts(result)).to.deep.equal({ done: 4, skipped: 2, mayBeSent: 2, outOfOrder: 0 })
    expect(await stands()).to.deep.equal({
      ...{ k1: 'parked', k2: 'parked', k3: 'due' },
      ...{ j1: 'later', j2: 'parked', j3: 'behind' },
      ...{ plain1: 'parked', plain2: 'parked', plain3: 'sent' },
    })
    expect((await desk.show('plain1'))[0]!.lastError).to.equal('parked by an operator')
    expect((await desk.show('k1'))[0]!.lastError).to.equal('no exchange')
  })

  it('drops parked rows for good, and others only by force, their keys going on', async () => {
    await put('k', 'later', 'behind')
    await put(undefined, 'ready', 'parked', 'sent')
    const whys: (string | undefined)[] = []
    const rows = ['k1', 'plain1', 'plain2', 'plain3']
    const careful = await desk.drop({ rows }, { onOutcome: ({ why }) => whys.push(why) })
    expect(counts(careful)).to.deep.equal({ done: 1, skipped: 3, mayBeSent: 0, outOfOrder: 0 })
    expect(whys).to.include('it is ready: park it first, or use force')
    expect(await stands()).to.deep.equal({ k1: 'later', k2: 'behind', plain1: 'ready', plain3: 'sent' })
    const forced = await desk.drop({ rows: ['k1', 'plain1', 'plain3'] }, { force: true })
    expect(counts(forced)).to.deep.equal({ done: 3, skipped: 0, mayBeSent: 2, outOfOrder: 0 })
    expect(await stands()).to.deep.equal({ k2: 'due' })
  })

  it('says in advance what it would do, and does nothing then', async () => {
    await put('k', 'later', 'behind', 'parked')
    await put(undefined, 'ready', 'parked', 'sent')
    const before = await w.rows()
    const rows = before.map(({ position }) => position)
    for (const verb of ['retry', 'park', 'drop'] as const) {
      const told: [string, string | undefined][] = []
      const plan = await desk[verb](
        { rows },
        { dryRun: true, onOutcome: ({ row, why }) => told.push([row.messageId, why]) },
      )
      expect(await w.rows()).to.deep.equal(before)
      const done: [string, string | undefined][] = []
      const name = unique('rehearsal')
      await w.pool.query(
        `INSERT INTO ${w.schema.name}.outbox SELECT (jsonb_populate_record(o, jsonb_build_object(
        'position', o.position + 1000000, 'name', CAST($1 AS text)))).* FROM ${w.schema.name}.outbox o`,
        [name],
      )
      const real = await deskOf({ name })[verb](
        { rows: rows.map((position) => position + 1_000_000) },
        { onOutcome: ({ row, why }) => done.push([row.messageId, why]) },
      )
      await w.pool.query(`DELETE FROM ${w.schema.name}.outbox WHERE name = $1`, [name])
      expect([counts(real), done]).to.deep.equal([counts(plan), told])
    }
  })

  it('tells which of the rows asked for are not there', async () => {
    await put('k', 'parked')
    const result = await desk.retry({ rows: ['k1', 'nobody', 987_654_321, 2n ** 63n - 1n] })
    expect(result).to.deep.include({ done: 1, missing: ['nobody', 987_654_321, 2n ** 63n - 1n] })
  })

  it('works through many rows in batches, up to a limit, and can be interrupted between two', async () => {
    await w.committed((client) =>
      w.outbox.add(
        Array.from({ length: 1_000 }, (_, i) => ({ queue: 'q', key: `k${i % 7}`, body: i })),
        client,
      ),
    )
    const limited = await desk.park({ state: 'ready', limit: 250 })
    expect(counts(limited)).to.deep.equal({ done: 250, skipped: 0, mayBeSent: 250, outOfOrder: 0 })
    const stop = new AbortController()
    let seen = 0
    const onOutcome = () => ++seen === 150 && stop.abort()
    const part = await desk.park({ state: 'ready' }, { signal: stop.signal, onOutcome })
    expect(part).to.deep.include({ stopped: 'interrupted', done: 200 })
    expect(await desk.drop({ state: 'parked' })).to.deep.include({ stopped: 'done', done: 450 })
    const rest = await desk.park({ state: 'ready' })
    expect(rest.done).to.equal(550)
    expect(await desk.retry({ state: 'parked' })).to.deep.include({ done: 550, outOfOrder: 550 })
    const now = Object.values(await stands())
    expect(now.filter((as) => as === 'due')).to.have.length(7)
    expect(now.filter((as) => as === 'behind')).to.have.length(543)
  })

  it('leaves no key stuck and loses no row, however many desks work on it at once', async () => {
    const keys = ['a', 'b', 'c']
    for (const key of keys) await put(key, 'later', 'behind', 'behind', 'behind', 'parked', 'behind', 'behind')
    const ids = (await w.rows()).map((row) => row.message_id)
    const step = fc.record({
      verb: fc.constantFrom('park', 'retry'),
      rows: fc.subarray(ids, { minLength: 1, maxLength: 6 }),
    })
    const plans = fc.sample(fc.array(step, { minLength: 30, maxLength: 30 }), { numRuns: 5, seed: 3 })
    await Promise.all(
      plans.map(async (plan) => {
        for (const { verb, rows } of plan) await desk[verb as 'park' | 'retry']({ rows })
      }),
    )
    const rows = await w.rows()
    expect(rows.map((row) => row.message_id)).to.have.members(ids)
    for (const key of keys) {
      const first = rows.find((row) => row.key === key && row.state === 'held')
      if (first) expect(standOf(first), `first held row of ${key}`).not.to.equal('behind')
    }
  })

  it('tells relays at once when there is something to do', async () => {
    await put('k', 'parked')
    const listener = new Client({ connectionString: w.schema.url })
    await listener.connect()
    await listener.query('LISTEN surehop_outbox')
    let told = 0
    listener.on('notification', ({ payload }) => payload === `${w.schema.name}.orders` && told++)
    await desk.retry({ rows: ['k1'] }, { dryRun: true })
    await desk.retry({ rows: ['k1'] })
    await eventually(() => told > 0)
    expect(told).to.equal(1)
    await listener.end()
  })

  it('leaves no row locked when its line is lost before its COMMIT: relays would wait for hours', async () => {
    await put('k', 'parked')
    const line = await startProxy(w.schema.url)
    const pool = new Pool({ connectionString: line.url }).on('error', () => {})
    line.on('data', (way, bytes) => {
      if (way === 'to-server' && bytes.includes('COMMIT\0')) line.stall()
    })
    const stalled = eventOf<[Direction, Buffer]>(line, 'data', { where: (_, bytes) => bytes.includes('COMMIT\0') })
    const retrying = new OutboxDesk({ pool, schema: w.schema.name }).retry({ state: 'parked' }).catch(() => {})
    await stalled
    await w.pool.query(`SET lock_timeout = '8s'; DELETE FROM ${w.schema.name}.outbox`)
    await line.close()
    await retrying
    await pool.end()
  })

  it('says how each outbox stands, and who sends it', async () => {
    await put('k', 'later', 'behind', 'ready')
    await put(undefined, 'parked', 'sent')
    await w.pool.query(
      `UPDATE ${w.schema.name}.outbox SET created_at = now() - interval '1 minute' WHERE message_id = 'k1'`,
    )
    await w.committed((client) => w.open({ name: 'others' }).add({ queue: 'q', body: 1 }, client))
    const [orders, others, ...more] = await deskOf({ name: undefined as never }).status()
    expect(more).to.deep.equal([])
    expect(orders).to.include({ outbox: 'orders', ready: 1, held: 2, parked: 1, relays: 0, unownedShards: 64 })
    expect(orders!.oldestMs).to.be.within(60_000, 70_000)
    expect(others).to.include({ outbox: 'others', ready: 1, held: 0, parked: 0 })
    await w.pool.query(
      `INSERT INTO ${w.schema.name}.outbox_relays VALUES ('orders', 'r1', now() + interval '1 minute'), ('orders', 'r2', now() - interval '1 minute')`,
    )
    await w.pool.query(`INSERT INTO ${w.schema.name}.outbox_shards (name, shard, owner, until)
      VALUES ('orders', 0, 'r1', now() + interval '1 minute'), ('orders', 1, 'r2', now() - interval '1 minute'), ('orders', 2, NULL, '-infinity')`)
    expect(await desk.status()).to.have.length(1)
    expect((await desk.status())[0]).to.include({ relays: 1, unownedShards: 63 })
    expect(await deskOf({ name: 'nobody' }).status()).to.deep.equal([
      {
        outbox: 'nobody',
        ready: 0,
        held: 0,
        parked: 0,
        oldestMs: undefined,
        relays: 0,
        unownedShards: 64,
        problem: undefined,
      },
    ])
  })

  it('refuses what it does not understand, and explains what the database refuses', async () => {
    const refused = async (run: () => Promise<unknown>) =>
      run().then(
        () => undefined,
        (error: Error) => error,
      )
    const wrong: (() => Promise<unknown>)[] = [
      () => desk.retry({}),
      () => desk.retry({ rows: ['a'], state: 'parked' }),
      () => desk.retry({ rows: [''] }),
      () => desk.retry({ rows: [1.5] }),
      () => desk.retry({ rows: [-(2n ** 63n) - 1n] }),
      () => desk.retry({ rows: [2n ** 63n] }),
      () => desk.list({ after: '#7' }).next(),
      () => desk.show('a\0'),
      () => desk.park({ state: 'gone' as OutboxState }),
      () => desk.drop({ state: 'parked' }, { dryrun: true } as never),
      () => desk.list({ stat: 'held' } as never).next(),
      () => desk.show(''),
      () => desk.show(undefined as never),
    ]
    for (const run of wrong) expect(await refused(run), String(run)).to.be.instanceOf(InvalidOption)
    expect(() => deskOf({ pool: undefined as never })).to.throw(InvalidOption, 'expected pool')
    const nowhere = deskOf({ schema: 'not_there' })
    for (const run of [() => nowhere.status(), () => nowhere.list().next(), () => nowhere.park({ state: 'ready' })])
      expect(await refused(run)).to.be.instanceOf(SchemaMismatch)
  })
})
