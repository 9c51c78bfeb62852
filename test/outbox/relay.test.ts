import { readFileSync } from 'node:fs'
import { expect } from 'chai'
import { Pool } from 'pg'
import { fixed } from '../../lib/backoff.ts'
import type { Surehop } from '../../lib/index.ts'
import { Outbox } from '../../lib/outbox/outbox.ts'
import { failure } from '../connection/wiring.ts'
import { eventually } from '../support/eventually.ts'
import { unique, uniqueExchange, uniqueQueue } from '../support/unique.ts'
import { Relaying } from './relaying.ts'

describe('a relay of the outbox', function () {
  this.timeout(60_000)
  let r: Relaying
  let surehop: Surehop
  let queue: string
  beforeEach(async () => {
    r = await Relaying.open()
    surehop = await r.surehop()
    queue = await r.queue()
  })
  afterEach(() => r.close())

  it('sends what is committed, with its ids, headers and body, and takes it out of the table', async () => {
    const arrivals = await r.arrivals(queue)
    await r.relay({}, surehop)
    const sent = r.event('outbox.sent')
    const message = { queue, type: 'order.placed', key: 'order-1', transactionId: 'tx-1', body: { total: 7 } }
    const [id] = await r.add({ ...message, headers: { tenant: 'north' }, correlationId: 'c-1' })
    const [came] = (await arrivals.count(1)).all
    expect(came).include({ id, key: 'order-1' })
    expect(came!.body).deep.equal({ total: 7 })
    const { headers, correlationId, type, deliveryMode } = came!.message.properties
    expect(headers).include({ tenant: 'north', transaction_id: 'tx-1' })
    expect({ correlationId, type, deliveryMode }).deep.equal({
      correlationId: 'c-1',
      type: 'order.placed',
      deliveryMode: 2,
    })
    const { outbox, messageId, transactionId, exchange, routingKey, ageMs } = await sent
    expect({ outbox, messageId, transactionId, exchange, routingKey }).deep.equal({
      outbox: r.name,
      messageId: id,
      transactionId: 'tx-1',
      exchange: '',
      routingKey: queue,
    })
    expect(ageMs).within(0, 30_000)
    await eventually(async () => expect(await r.states()).empty)
  })

  it('sends what was added with no more rights than those that the README grants', async () => {
    const role = unique('app').replaceAll('-', '_')
    const readme = readFileSync(new URL('../../README.md', import.meta.url), 'utf8')
    const grants = /```sql\n(.*?)```/s
      .exec(readme)![1]!
      .replaceAll('surehop', r.schema.name)
      .replaceAll(' app;', ` ${role};`)
    await r.sql(`CREATE ROLE ${role}; ${grants}`)
    r.later(() => r.sql(`DROP OWNED BY ${role}; DROP ROLE ${role}`))
    const url = new URL(r.schema.url)
    url.searchParams.set('options', `-c role=${role}`)
    const pool = new Pool({ connectionString: url.href }).on('error', () => {})
    r.later(() => pool.end())
    const outbox = r.anOutbox({ pool })
    const arrivals = await r.arrivals(queue)
    const relay = await r.relay({ outbox, pool })
    const messages = [1, 2].map((body) => ({ queue, key: 'a', body }))
    await outbox.transaction((client) => outbox.add(messages, client))
    expect((await arrivals.count(2)).all.map(({ body }) => body)).deep.equal([1, 2])
    await eventually(async () => expect(await r.states()).empty)
    expect(relay.problems).empty
  })

  it('never sends what was rolled back, and what commits later not before', async () => {
    const arrivals = await r.arrivals(queue)
    await r.relay({ outbox: r.outbox }, surehop)
    const client = await r.pool.connect()
    await client.query('BEGIN')
    await r.outbox.add({ queue, body: 'late' }, client)
    const other = await r.pool.connect()
    await other.query('BEGIN')
    await r.outbox.add({ queue, body: 'never' }, other)
    await other.query('ROLLBACK')
    other.release()
    await r.add({ queue, body: 'first' })
    await arrivals.count(1)
    await client.query('COMMIT')
    client.release()
    expect((await arrivals.count(2)).bodies()).deep.equal(['first', 'late'])
  })

  it('has no transaction open while it waits for the broker', async () => {
    const { startProxy } = await import('../support/tcp-proxy.ts')
    const proxy = await startProxy(r.amqp)
    r.later(() => proxy.close())
    const behind = await r.surehop({ amqp: proxy.url })
    const arrivals = await r.arrivals(queue)
    await r.relay({ pollMs: 20 }, behind)
    await r.add({ queue, body: 0 })
    await arrivals.count(1)
    await eventually(async () => expect(await r.states()).empty)
    proxy.stall('to-client')
    await r.add(...Array.from({ length: 50 }, (_, n) => ({ queue, body: n + 1 })))
    await arrivals.count(51)
    // A look at the table takes a moment, and may be seen; a transaction held open would be seen each time.
    await eventually(async () => {
      const open = await r.sql(
        `SELECT state, query FROM pg_stat_activity WHERE backend_xmin IS NOT NULL AND pid <> pg_backend_pid()
         OR state LIKE 'idle in transaction%' AND query LIKE '%${r.schema.name}%'`,
      )
      expect(open.filter(({ query }) => String(query).includes(r.schema.name))).deep.equal([])
    })
    expect(await r.states()).length(50)
    await proxy.resume()
    await eventually(async () => expect(await r.states()).empty)
    expect(new Set(arrivals.ids).size).equal(51)
  })

  it('sends the rows of a key one after another in the order of their commits, keys beside each other', async () => {
    const arrivals = await r.arrivals(queue)
    const messages = (n: number) => ({ queue, key: `k${n % 20}`, body: n })
    for (let n = 0; n < 1_000; n += 100) await r.add(...Array.from({ length: 100 }, (_, i) => messages(n + i)))
    await r.relay({}, surehop)
    await arrivals.count(1_000)
    for (let key = 0; key < 20; key++) {
      const bodies = arrivals.bodies(`k${key}`) as number[]
      expect(bodies).deep.equal(Array.from({ length: 50 }, (_, i) => key + 20 * i))
    }
    expect(arrivals.all).length(1_000)
  })

  it('holds back only the key of a row that no queue takes, parks it after its attempts, and goes on with the key', async () => {
    const arrivals = await r.arrivals(queue)
    const [held, parked] = [r.record('outbox.held'), r.event('outbox.parked')]
    const nowhere = uniqueQueue('nowhere')
    await r.relay({ attempts: 3, backoff: fixed({ delayMs: 100 }), pollMs: 20 }, surehop)
    const [bad] = await r.add({ queue: nowhere, key: 'a', body: 'bad' })
    await eventually(() => expect(held).not.empty)
    await r.add({ queue, key: 'a', body: 'a2' }, { queue, key: 'b', body: 'b1' }, { queue, key: 'a', body: 'a3' })
    await arrivals.one(({ body }) => body === 'b1')
    const { messageId, attempts, error } = await parked
    expect({ messageId, attempts }).deep.equal({ messageId: bad, attempts: 3 })
    expect(error.message).contain('NO_ROUTE')
    await arrivals.count(3)
    expect(arrivals.bodies('a')).deep.equal(['a2', 'a3'])
    expect(held.map(({ attempt, delayMs }) => [attempt, delayMs])).deep.equal([
      [1, 100],
      [2, 100],
    ])
    await eventually(async () => expect(await r.states()).deep.equal(['parked']))
    const [row] = await r.sql('SELECT attempts, last_error, ended_at FROM {schema}.outbox')
    expect(row).include({ attempts: 3 })
    expect(row!['last_error']).contain('NO_ROUTE').contain('Only a producer may').and.not.contain('bad')
    expect(row!['ended_at']).instanceOf(Date)
  })

  it('keeps all rows of a key back while its first cannot be sent, those in hand and those that come later', async () => {
    const arrivals = await r.arrivals(queue)
    const missing = uniqueQueue('later')
    await r.relay({ backoff: fixed({ delayMs: 150 }), pollMs: 20 }, surehop)
    const first = r.event('outbox.held')
    await r.add({ queue: missing, key: 'a', body: 0 }, ...[1, 2, 3].map((body) => ({ queue, key: 'a', body })))
    await first
    await r.add(...[4, 5].map((body) => ({ queue, key: 'a', body })), { queue, key: 'b', body: 'b' })
    await arrivals.one(({ key }) => key === 'b')
    await r.event('outbox.held')
    expect(arrivals.bodies('a')).empty
    const late = await r.arrivals(await r.queue({}, missing))
    await late.count(1)
    await arrivals.count(6)
    expect(arrivals.bodies('a')).deep.equal([1, 2, 3, 4, 5])
    await eventually(async () => expect(await r.states()).empty)
  })

  it('a key that was held is as quick as any other afterwards', async () => {
    const arrivals = await r.arrivals(queue)
    const missing = uniqueQueue('later')
    await r.relay({ backoff: fixed({ delayMs: 50 }), attempts: 1_000, pollMs: 20 }, surehop)
    const held = r.event('outbox.held')
    await r.add({ queue: missing, key: 'a', body: 0 })
    await held
    await r.add(...Array.from({ length: 300 }, (_, n) => ({ queue, key: 'a', body: n + 1 })))
    await eventually(async () => expect(new Set(await r.states())).deep.equal(new Set(['held'])))
    await r.queue({}, missing)
    await arrivals.count(300)
    await eventually(async () => expect(await r.states()).empty)
    await r.add({ queue, key: 'a', body: 'after' })
    await arrivals.count(301)
    expect(arrivals.bodies('a')).deep.equal([...Array.from({ length: 300 }, (_, n) => n + 1), 'after'])
  })

  it('sends when an exchange that was gone is back, and what goes elsewhere meanwhile', async () => {
    const arrivals = await r.arrivals(queue)
    const exchange = uniqueExchange()
    await r.relay({ backoff: fixed({ delayMs: 200 }), pollMs: 20, attempts: 1_000 }, surehop)
    const held = r.event('outbox.held')
    await r.add({ exchange, routingKey: 'x', key: 'a', body: 1 }, { exchange, routingKey: 'x', key: 'a', body: 2 })
    expect((await held).error.message).contain(exchange)
    await r.add({ queue, key: 'b', body: 'other' }, { queue, body: 'no key' })
    await arrivals.count(2)
    await r.exchange(exchange)
    await r.bind(queue, exchange, '#')
    await arrivals.count(4)
    expect(arrivals.bodies('a')).deep.equal([1, 2])
  })

  it('does not count the failures of a full queue, and sends when there is room', async () => {
    const full = await r.queue({ 'x-max-length': 1, 'x-overflow': 'reject-publish' })
    const arrivals = await r.arrivals(queue)
    const held = r.record('outbox.held')
    await r.relay({ backoff: fixed({ delayMs: 100 }), pollMs: 20, attempts: 1, publishDeadlineMs: 200 }, surehop)
    await r.add(...[1, 2, 3, 4, 5].map((body) => ({ queue: full, key: 'a', body })))
    await eventually(() => expect(held.length).greaterThan(2))
    await r.add({ queue, key: 'b', body: 'b' })
    await arrivals.count(1)
    expect(await r.states()).not.include('parked')
    const taken = await r.arrivals(full)
    await taken.count(5)
    expect(taken.bodies('a')).deep.equal([1, 2, 3, 4, 5])
  })

  it('sends other rows while hundreds go to a queue that is full', async () => {
    const full = await r.queue({ 'x-max-length': 1, 'x-overflow': 'reject-publish' })
    const arrivals = await r.arrivals(queue)
    await r.relay({ windowMessages: 50, pollMs: 20 }, surehop)
    const held = r.record('outbox.held')
    await r.add(...Array.from({ length: 400 }, (_, n) => ({ queue: full, key: `full${n}`, body: n })))
    await eventually(() => expect(held.length).greaterThan(100))
    await r.add(...Array.from({ length: 100 }, (_, n) => ({ queue, key: `k${n}`, body: n })))
    await arrivals.count(100, 10_000)
  })

  it('keeps rows that were sent for keepSentMs, and no longer', async () => {
    const arrivals = await r.arrivals(queue)
    const relay = await r.relay({ keepSentMs: 60_000 }, surehop)
    await r.add({ queue, body: 1 })
    await arrivals.count(1)
    await eventually(async () => expect(await r.states()).deep.equal(['sent']))
    await relay.close()
    await r.sql(`UPDATE {schema}.outbox SET ended_at = ended_at - interval '1 minute'`)
    await r.add({ queue, body: 2 })
    await r.relay({ keepSentMs: 1_000_000_000, pollMs: 20 }, surehop)
    await arrivals.count(2)
    expect(await r.states()).length(2)
    await r.relay({ keepSentMs: 50_000, pollMs: 20 }, surehop)
    await eventually(async () => expect(await r.states()).deep.equal(['sent']), { withinMs: 25_000 })
  })

  it('delivers a delayed message never early, the time it waited for the relay counted', async () => {
    const arrivals = await r.arrivals(queue)
    const addedAt = Date.now()
    await r.add({ queue, body: 'long', delayMs: 2_500 }, { queue, body: 'short', delayMs: 10 })
    const [{ due } = { due: 0 }] = await r.sql<{ due: number }>(
      `SELECT CAST(extract(epoch FROM max(deliver_at)) * 1000 AS float8) AS due FROM {schema}.outbox`,
    )
    await r.relay({}, surehop)
    const long = await arrivals.one(({ body }) => body === 'long')
    expect(long.at).least(Math.floor(due))
    expect(long.at - addedAt).lessThan(5_500)
    const short = arrivals.all.find(({ body }) => body === 'short')!
    expect(short.at).lessThan(long.at)
    expect(short.message.fields.redelivered).equal(false)
    expect(long.message.properties.headers).include({ 'surehop-routing-key': queue })
  })

  it('is not held up by a key with 5,000 rows before all others', async () => {
    const arrivals = await r.arrivals(queue)
    for (let n = 0; n < 5_000; n += 1_000)
      await r.add(...Array.from({ length: 1_000 }, (_, i) => ({ queue, key: 'hot', body: n + i })))
    await r.add(...Array.from({ length: 200 }, (_, n) => ({ queue, key: `cold${n}`, body: 'cold' })))
    await r.relay({}, surehop)
    const isCold = ({ body }: { body: unknown }) => body === 'cold'
    await arrivals.count(5_200, 150_000)
    const lastCold = arrivals.all.findLastIndex(isCold)
    expect(lastCold).lessThan(1_500)
    expect(arrivals.bodies('hot')).deep.equal(Array.from({ length: 5_000 }, (_, n) => n))
  }).timeout(200_000)

  it('has no more in hand than its window, in messages and in bytes', async () => {
    const { startProxy } = await import('../support/tcp-proxy.ts')
    const proxy = await startProxy(r.amqp)
    r.later(() => proxy.close())
    const behind = await r.surehop({ amqp: proxy.url })
    const arrivals = await r.arrivals(queue)
    const body = Buffer.alloc(10_000)
    await r.add(...Array.from({ length: 100 }, () => ({ queue, body })), { queue, body: Buffer.alloc(200_000) })
    await r.relay({ windowMessages: 50, windowBytes: 100_000, pollMs: 10 }, behind)
    await arrivals.count(101)
    await eventually(async () => expect(await r.states()).empty)
    proxy.stall('to-client')
    await r.add(...Array.from({ length: 100 }, () => ({ queue, body })))
    await arrivals.count(101 + 9)
    expect(new Set(arrivals.ids).size).within(101 + 9, 101 + 11)
    await proxy.resume()
    await arrivals.count(201)
  })

  it('sends its own outbox only, and warns of rows that no relay sends', async () => {
    const arrivals = await r.arrivals(queue)
    const stray = new Outbox({ name: unique('ordres'), schema: r.schema.name })
    await r.committed((client) => stray.add([{ queue, body: 'stray' }], client))
    await r.sql(`UPDATE {schema}.outbox SET created_at = created_at - interval '2 minutes'`)
    const warned = r.event('outbox.warning')
    const relay = await r.relay({}, surehop)
    await r.add({ queue, body: 'ours' })
    expect((await arrivals.count(1)).bodies()).deep.equal(['ours'])
    expect((await warned).warning)
      .contain(stray.name)
      .and.contain('1 row')
      .and.contain(`outbox: "${stray.name}"`)
    expect(surehop.health().reasons.join()).contain(stray.name)
    await relay.close()
    expect(surehop.health().healthy).equal(true)
    await surehop.relay({ outbox: stray, pool: r.pool })
    expect((await arrivals.count(2)).bodies()).deep.equal(['ours', 'stray'])
  })

  it('serves two outboxes of one table, each its own', async () => {
    const [other, there] = [new Outbox({ name: unique('bills'), schema: r.schema.name }), await r.queue()]
    const [here, elsewhere] = [await r.arrivals(queue), await r.arrivals(there)]
    const [sentHere, relay] = [r.record('outbox.sent'), await surehop.relay({ outbox: other, pool: r.pool })]
    await r.relay({ outbox: r.outbox }, surehop)
    await r.committed((client) => other.add([{ queue: there, body: 'bill' }], client))
    await r.add({ queue, body: 'order' })
    expect((await here.count(1)).bodies()).deep.equal(['order'])
    expect((await elsewhere.count(1)).bodies()).deep.equal(['bill'])
    await eventually(() => expect(sentHere).length(1))
    expect(relay.name).equal(other.name)
  })

  it('looks at once after an add of this process, and of another that has a pool', async () => {
    const arrivals = await r.arrivals(queue)
    await r.relay({ outbox: r.outbox, pollMs: 600_000 }, surehop)
    await r.add({ queue, body: 'own' })
    await arrivals.count(1, 5_000)
    const listening = async () => {
      const rows = await r.sql(
        `SELECT 1 FROM pg_stat_activity WHERE query = 'LISTEN surehop_relays' AND state = 'idle'`,
      )
      expect(rows).not.empty
    }
    await eventually(listening)
    const foreign = r.anOutbox({ pool: r.pool })
    await foreign.transaction((client) => foreign.add({ queue, body: 'foreign' }, client))
    await arrivals.count(2, 5_000)
  })

  it('tells how far behind it is', async () => {
    await r.add({ queue: uniqueQueue('nowhere'), key: 'a', body: 1 }, { queue, key: 'a', body: 2 })
    await r.add({ queue: uniqueQueue('nowhere'), body: 3 })
    const told = r.event('outbox.backlog', ({ held }) => held === 3)
    await r.relay({ backlogEveryMs: 100, backoff: fixed({ delayMs: 60_000 }) }, surehop)
    const { backlog, held, parked, oldestMs } = await told
    expect({ backlog, held, parked }).deep.equal({ backlog: 3, held: 3, parked: 0 })
    expect(oldestMs).within(1, 60_000)
    const [figures] = surehop.health().outboxes ?? []
    expect(figures).include({ outbox: r.outbox.name, backlog: 3, held: 3, parked: 0 })
  })

  it('parks what cannot be read, and goes on', async () => {
    const arrivals = await r.arrivals(queue)
    await r.add({ queue, key: 'a', body: 1 }, { queue, key: 'a', body: 2 })
    await r.sql(
      `UPDATE {schema}.outbox SET properties = '{' WHERE position = (SELECT min(position) FROM {schema}.outbox)`,
    )
    const parked = r.event('outbox.parked')
    await r.relay({ attempts: 2, backoff: fixed({ delayMs: 10 }), pollMs: 10 }, surehop)
    await parked
    expect((await arrivals.count(1)).bodies('a')).deep.equal([2])
  })

  it('goes on with a key whose held rows an operator removed by hand, at the latest when a relay takes over', async () => {
    const arrivals = await r.arrivals(queue)
    const relay = await r.relay({ backoff: fixed({ delayMs: 60_000 }), pollMs: 20 }, surehop)
    const held = r.event('outbox.held')
    await r.add(
      { queue: uniqueQueue('nowhere'), key: 'a', body: 0 },
      { queue, key: 'a', body: 1 },
      { queue, key: 'a', body: 2 },
    )
    await held
    await r.sql('DELETE FROM {schema}.outbox WHERE position = (SELECT min(position) FROM {schema}.outbox)')
    await relay.close()
    await r.relay({ pollMs: 20 }, surehop)
    expect((await arrivals.count(2)).bodies('a')).deep.equal([1, 2])
  })

  describe('opening and closing', () => {
    it('refuses what it does not understand', async () => {
      for (const [options, text] of [
        [{ outbox: '' }, 'outbox'],
        [{ outbox: 7 }, 'outbox'],
        [{ pool: {} }, "a pool such as pg's"],
        [{ windowMessages: 0 }, 'windowMessages'],
        [{ attempts: 0 }, 'attempts'],
        [{ leaseMS: 5 }, 'did you mean "leaseMs"'],
        [{ outbox: r.outbox, schema: 'elsewhere' }, 'elsewhere'],
      ] as const) {
        const error = await failure(r.relay(options as object, surehop))
        expect(error).include({ code: 'INVALID_OPTION' })
        expect(error.message).contain(text)
      }
      expect(surehop.health().healthy).equal(true)
    })

    it('says that the tables are not there, and leaves nothing open', async () => {
      const error = await failure(r.relay({ schema: 'surehop_nowhere' }, surehop))
      expect(error).include({ code: 'SCHEMA_MISMATCH' })
      expect(surehop.health()).deep.equal({ healthy: true, reasons: [] })
    })

    it('finishes what flies, lets go of its share, and can be closed again', async () => {
      const arrivals = await r.arrivals(queue)
      const states = r.record('relay.state')
      const relay = await r.relay({}, surehop)
      await r.add(...Array.from({ length: 500 }, (_, n) => ({ queue, body: n })))
      await arrivals.count(1)
      await Promise.all([relay.close(), relay.close()])
      await relay.close()
      const left = await r.states()
      await eventually(() => expect(new Set(arrivals.ids).size).equal(500 - left.length))
      expect(arrivals.all).length(500 - left.length)
      expect(await r.sql('SELECT 1 FROM {schema}.outbox_shards WHERE owner IS NOT NULL')).empty
      expect(await r.sql('SELECT 1 FROM {schema}.outbox_relays')).empty
      expect(states.map(({ to }) => to).filter((to) => to !== 'paused')).deep.equal(['running', 'closing', 'closed'])
    })

    it('is closed with its Surehop, and gives all connections back to the pool', async () => {
      await r.relay({}, surehop)
      await surehop.close()
      await eventually(() => expect(r.pool.totalCount).equal(r.pool.idleCount))
      expect((await failure(r.relay({}, surehop))).message).contain('closed')
    })
  })
})
