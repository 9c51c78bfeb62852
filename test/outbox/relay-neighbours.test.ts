// What others do in the same database, or to it, while a relay works.

import { expect } from 'chai'
import { Pool } from 'pg'
import { fixed } from '../../lib/backoff.ts'
import { DatabaseUnavailable } from '../../lib/errors.ts'
import { OutboxDesk } from '../../lib/outbox/desk.ts'
import { Listener } from '../../lib/outbox/relay-listener.ts'
import { askOf, RelayTable } from '../../lib/outbox/relay-table.ts'
import { failure } from '../connection/wiring.ts'
import { freshSchema } from '../support/database.ts'
import { eventually, within } from '../support/eventually.ts'
import { startProxy } from '../support/tcp-proxy.ts'
import { type Arrivals, Relaying } from './relaying.ts'

describe('a relay, whatever its database goes through', function () {
  this.timeout(60_000)
  let r: Relaying
  let queue: string
  let arrivals: Arrivals
  beforeEach(async () => {
    r = await Relaying.open()
    queue = await r.queue()
    arrivals = await r.arrivals(queue)
  })
  afterEach(() => r.close())

  const allGone = () => eventually(async () => expect(await r.states()).empty)

  /** A relay that has sent something; between it and the broker a proxy. */
  async function behindProxy(options: object = {}) {
    const proxy = await startProxy(r.amqp)
    r.later(() => proxy.close())
    await r.relay({ pollMs: 20, leaseMs: 30_000, ...options }, await r.surehop({ amqp: proxy.url }))
    await r.add({ queue, body: 0 })
    await arrivals.count(1)
    await allGone()
    return proxy
  }

  it('takes out only what it sent, where Postgres lost its last commits and gives a position again', async () => {
    const proxy = await behindProxy()
    proxy.stall('to-client')
    const [lost] = await r.add({ queue, key: 'a', body: 1 })
    await arrivals.one(({ id }) => id === lost)
    const [row] = await r.sql<{ position: string }>('DELETE FROM {schema}.outbox RETURNING position')
    // With a key: one number is taken at INSERT, and the next is the place.
    await r.sql(`SELECT setval('{schema}.outbox_position', ${Number(row!.position) - 2})`)
    const [other] = await r.add({ queue, key: 'a', body: 2 })
    expect(await r.sql('SELECT position, message_id FROM {schema}.outbox')).deep.equal([
      { position: row!.position, message_id: other },
    ])
    proxy.resume()
    await arrivals.one(({ id }) => id === other)
  })

  it('takes few connections where somebody keeps its rows locked, and goes on afterwards', async () => {
    await using own = await freshSchema({ max: 10 })
    const relay = await r.relay({ pool: own.pool, pollMs: 20, leaseMs: 2_500 })
    const exchange = await r.exchange()
    await r.add({ exchange, type: 'x', key: 'z', body: 1 })
    await eventually(async () => expect(await r.states()).deep.equal(['held']))
    const locker = await r.pool.connect()
    await locker.query('BEGIN')
    await locker.query(`SELECT 1 FROM ${r.schema.name}.outbox FOR UPDATE`)
    await r.bind(queue, exchange, '#')
    const waiting = async () =>
      (
        await r.sql<{ n: number }>(
          `SELECT CAST(count(*) AS integer) AS n FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%${r.schema.name}%'`,
        )
      )[0]!.n
    await eventually(async () => expect(await waiting()).greaterThan(0), { withinMs: 20_000 })
    for (let look = 0; look < 60; look++) {
      expect(await waiting()).lessThan(3)
      await new Promise((resolve) => setTimeout(resolve, 200))
    }
    expect(own.pool.totalCount).lessThan(6)
    await locker.query('ROLLBACK')
    locker.release()
    await arrivals.count(1)
    await allGone()
    await relay.close()
  })

  it('leaves few statements behind at Postgres while the whole table is locked, and goes on afterwards', async () => {
    await using own = await freshSchema({ max: 10, application_name: r.name })
    await own.pool.query('SELECT 1')
    const relay = await r.relay({ pool: own.pool, pollMs: 20, leaseMs: 600 })
    const paused = r.event('relay.state', ({ to }) => to === 'paused')
    const locker = await r.pool.connect()
    await locker.query('BEGIN')
    await locker.query(`LOCK TABLE ${r.schema.name}.outbox`)
    await paused
    const waiting = async () =>
      (
        await r.sql<{ n: number }>(
          `SELECT CAST(count(*) AS integer) AS n FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = '${r.name}'`,
        )
      )[0]!.n
    await eventually(async () => expect(await waiting()).greaterThan(0))
    for (let look = 0; look < 40; look++) {
      expect(await waiting()).lessThan(4)
      await new Promise((resolve) => setTimeout(resolve, 200))
    }
    await locker.query('ROLLBACK')
    locker.release()
    await r.add({ queue, body: 1 })
    await arrivals.count(1)
    await allGone()
    await relay.close()
  })

  it('is not paused by neighbours where transactions are serializable by default, and neither is the desk', async () => {
    const url = new URL(r.schema.url)
    url.searchParams.set('options', '-c default_transaction_isolation=serializable')
    const pool = new Pool({ connectionString: url.href, application_name: r.name }).on('error', () => {})
    r.later(() => pool.end())
    const paused = r.record('relay.state')
    const desk = new OutboxDesk({ pool, schema: r.schema.name })
    /** Somebody touches the row, and commits when the other waits for it. */
    const touched = async (work: () => Promise<unknown>) => {
      await r
        .committed(async (client) => {
          await client.query(`UPDATE ${r.schema.name}.outbox SET last_error = 'touched'`)
          const working = work()
          const waiting = `SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = '${r.name}'`
          await eventually(async () => expect(await r.sql(waiting)).not.empty)
          return { working }
        })
        .then(({ working }) => working)
    }
    await r.add({ queue, key: 'a', body: 1 })
    await touched(async () => expect((await desk.park({ state: 'ready' })).done).equal(1))
    await desk.retry({ state: 'parked' })
    await touched(() => r.relay({ pool, pollMs: 20 }))
    await arrivals.count(1)
    await allGone()
    expect(paused.filter(({ to }) => to === 'paused')).empty
  })

  it('sends although somebody has emptied the tables of shards and relays', async () => {
    await r.relay({ pollMs: 20, leaseMs: 1_500 })
    await r.relay({ pollMs: 20, leaseMs: 1_500 })
    await r.add({ queue, body: 1 })
    await arrivals.count(1)
    await allGone()
    await r.sql('TRUNCATE {schema}.outbox_shards, {schema}.outbox_relays')
    await r.add(...Array.from({ length: 100 }, (_, body) => ({ queue, key: `k${body}`, body })))
    await arrivals.count(101)
    await allGone()
  })

  it('closes within two leases and its drain, although Postgres answers nothing any more', async () => {
    const [line, proxy] = [await startProxy(r.schema.url), await startProxy(r.amqp)]
    r.later(() => line.close())
    r.later(() => proxy.close())
    const pool = new Pool({ connectionString: line.url }).on('error', () => {})
    r.later(() => pool.end())
    const relay = await r.relay({ pool, pollMs: 20, leaseMs: 1_500 }, await r.surehop({ amqp: proxy.url }))
    await r.add({ queue, body: 0 })
    await arrivals.count(1)
    await allGone()
    proxy.stall('to-client')
    await r.add(...Array.from({ length: 50 }, (_, body) => ({ queue, body })))
    await arrivals.count(51)
    line.stall('to-client')
    proxy.resume()
    await within(relay.close(), { what: 'the end of close()', withinMs: 8_000 })
    line.resume()
  })

  it('that starts while Postgres answers nothing gives up after a lease, and says so', async () => {
    const line = await startProxy(r.schema.url)
    r.later(() => line.close())
    const pool = new Pool({ connectionString: line.url }).on('error', () => {})
    await pool.query('SELECT 1')
    line.stall()
    const starting = failure(r.relay({ pool, leaseMs: 500 }))
    expect(await within(starting, { what: 'the end of the start', withinMs: 8_000 }))
      .instanceOf(DatabaseUnavailable)
      .property('message')
      .contain('did not answer within 500 ms')
    expect(pool.totalCount).equal(0)
    await pool.end()
  })

  it('sends a backlog over a line that cannot carry the largest page within a lease', async () => {
    const line = await startProxy(r.schema.url)
    r.later(() => line.close())
    const pool = new Pool({ connectionString: line.url }).on('error', () => {})
    r.later(() => pool.end())
    await r.relay({ pool, pollMs: 100, leaseMs: 2_000 })
    line.throttle(1_000_000)
    const body = Buffer.alloc(100_000)
    await r.add(...Array.from({ length: 40 }, () => ({ queue, body, contentType: 'application/octet-stream' })))
    await arrivals.count(40, 50_000)
  })

  it('closes, although its pool has no connection left for it to listen on', async () => {
    await using own = await freshSchema({ max: 3, application_name: r.name })
    const relay = await r.relay({ pool: own.pool, leaseMs: 1_000, pollMs: 60_000 })
    const listens = () =>
      r.sql<{ pid: number }>(
        `SELECT pid FROM pg_stat_activity WHERE query LIKE 'LISTEN surehop%' AND application_name = '${r.name}'`,
      )
    const [listener] = await eventually(async () => {
      const found = await listens()
      expect(found).length(1)
      return found
    })
    const mine = [await own.pool.connect(), await own.pool.connect()]
    await r.sql('SELECT pg_terminate_backend($1)', [listener!.pid])
    mine.push(await own.pool.connect())
    await eventually(() => expect(own.pool.waitingCount).greaterThan(1))
    try {
      await within(relay.close(), { what: 'the close of the relay', withinMs: 20_000 })
    } finally {
      for (const client of mine) client.release()
    }
    await eventually(() => expect(own.pool.waitingCount).equal(0))
  })

  it('does not walk over held rows that are not due, nor over sent rows that are kept, of others or its own', async () => {
    const fill = (name: string, state: string, column: string) =>
      r.sql(
        `INSERT INTO {schema}.outbox (name, shard, placed, state, message_id, transaction_id, key, exchange, routing_key, properties, body, ${column})
         SELECT $1, i % 64, true, $2, 'm' || i, 't', 'k' || i % 500, '', 'q', '{}', '', clock_timestamp() + interval '1 hour' FROM generate_series(1, 5000) i`,
        [name, state],
      )
    await fill(r.name, 'held', 'not_before')
    await fill(r.name, 'sent', 'ended_at')
    await fill('another', 'sent', 'ended_at')
    await r.sql(`UPDATE {schema}.outbox SET ended_at = now() - interval '1 hour' WHERE name = 'another'`)
    await r.sql('VACUUM ANALYZE {schema}.outbox')
    const read = async () =>
      Object.fromEntries(
        (
          await r.sql<{ name: string; scans: string; read: string }>(
            `SELECT indexrelname AS name, idx_scan AS scans, idx_tup_read AS read FROM pg_stat_user_indexes WHERE schemaname = $1`,
            [r.schema.name],
          )
        ).map(({ name, scans, read }) => [name, { scans: Number(scans), read: Number(read) }]),
      )
    const before = await read()
    await r.relay({ pollMs: 20, keepSentMs: 4_000 })
    const grown = (name: string, after: Awaited<ReturnType<typeof read>>) => ({
      scans: after[name]!.scans - before[name]!.scans,
      read: after[name]!.read - before[name]!.read,
    })
    await eventually(
      async () => {
        const after = await read()
        expect(grown('outbox_due', after).scans).greaterThan(40)
        expect(grown('outbox_sent', after).scans).greaterThan(2)
      },
      { withinMs: 30_000 },
    )
    const after = await read()
    // The repair of keys goes over all held rows, once a minute.
    expect(grown('outbox_due', after).read).lessThan(50_000)
    expect(grown('outbox_sent', after).read).lessThan(1_000)
  })

  it('the desk says of a row behind one that is just being sent that it may be sent, too', async () => {
    const exchange = await r.exchange()
    const proxy = await behindProxy({ backoff: fixed({ delayMs: 1_500 }) })
    const held = r.event('outbox.held')
    const ids = await r.add({ exchange, type: 't', key: 'a', body: 1 }, { exchange, type: 't', key: 'a', body: 2 })
    await held
    await r.bind(queue, exchange, '#')
    proxy.stall('to-client')
    await arrivals.one(({ id }) => id === ids[0])
    const desk = new OutboxDesk({ pool: r.pool, schema: r.schema.name, name: r.name })
    expect(await desk.park({ rows: [ids[1]!] })).include({ done: 1, mayBeSent: 1 })
    proxy.resume()
    await arrivals.one(({ id }) => id === ids[1])
  })

  it('records a failure whatever its text: one that it cannot write would come again for ever', async () => {
    await r.add({ queue, body: 1 })
    await r.sql(`INSERT INTO {schema}.outbox_shards (name, shard, owner) SELECT $1, generate_series(0, 63), 'me'`, [
      r.name,
    ])
    const of = { schema: r.schema.name, name: r.name, owner: 'me', keepSent: false }
    const table = new RelayTable(askOf(r.pool, r.schema.name, { ms: 10_000, late: () => new Error('late') }), of)
    const page = { hand: [], crowded: [], messages: 1, bytes: 1_000, after: 0n }
    const [row] = await table.ready({ ...page, shards: Array.from({ length: 64 }, (_, n) => n) })
    const chain = { key: undefined, waiting: [], flying: undefined, verdict: undefined, queued: false }
    const entry = { row: row!, epoch: 0, chain, phase: 'failed' as const, stale: false }
    const error = new Error(`${'x'.repeat(998)}\0\u{1f600}`)
    await table.failed([{ entry, verdict: { state: 'parked', attempts: 1, delayMs: 0, error }, followers: [] }])
    const [parked] = await r.sql<{ last_error: string }>('SELECT last_error FROM {schema}.outbox')
    expect(parked?.last_error).equal(`${'x'.repeat(998)}??`)
  })

  it('keeps nothing of the connections it listened on and lost', async () => {
    await using own = await freshSchema({ max: 3, application_name: r.name })
    const warnings: Error[] = []
    const warned = (warning: Error) => warnings.push(warning)
    process.on('warning', warned)
    r.later(() => process.off('warning', warned))
    const listener = new Listener(own.pool, 'x', new Map([['surehop_outbox', () => heard()]]))
    let heard = () => {}
    for (let connection = 0; connection < 12; connection++) {
      const listens = new Promise<void>((resolve) => {
        heard = resolve
      })
      if (connection === 0) listener.start()
      await within(listens, { what: `connection ${connection}` })
      await r.sql(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1`, [r.name])
    }
    await listener.close()
    expect(warnings.map(({ message }) => message).filter((text) => text.includes('memory leak'))).empty
  })
})
