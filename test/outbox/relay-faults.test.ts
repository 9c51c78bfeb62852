import { expect } from 'chai'
import { Pool } from 'pg'
import { fixed } from '../../lib/backoff.ts'
import { eventually } from '../support/eventually.ts'
import { startPostgres } from '../support/services.ts'
import { startProxy, type TcpProxy } from '../support/tcp-proxy.ts'
import { Relaying } from './relaying.ts'

const numbers = (count: number, from = 0) => Array.from({ length: count }, (_, n) => n + from)

describe('a relay, when the broker or the database fails', function () {
  this.timeout(120_000)
  let r: Relaying
  let queue: string
  beforeEach(async () => {
    r = await Relaying.open()
    queue = await r.queue()
  })
  afterEach(() => r.close())

  async function behindProxy() {
    const proxy = await startProxy(r.amqp)
    r.later(() => proxy.close())
    return { proxy, surehop: await r.surehop({ amqp: proxy.url }) }
  }

  async function cutOff(proxy: TcpProxy) {
    await proxy.refuse()
    proxy.cut()
  }

  it('waits while the broker is away, says so, writes nothing to the rows, and goes on in order', async () => {
    const { proxy, surehop } = await behindProxy()
    const arrivals = await r.arrivals(queue)
    const held = r.record('outbox.held')
    await r.relay({ pollMs: 20, publishDeadlineMs: 1_500 }, surehop)
    await r.add(...numbers(200).map((body) => ({ queue, key: `k${body % 5}`, body })))
    await arrivals.count(20)
    const paused = r.event('relay.state', ({ to }) => to === 'paused')
    await cutOff(proxy)
    expect((await paused).error).instanceOf(Error)
    expect(surehop.health().reasons.join()).contain(`the relay of outbox "${r.name}" is paused`)
    await r.add(...numbers(100, 200).map((body) => ({ queue, key: `k${body % 5}`, body })))
    const untouched = async () => expect(new Set(await r.states())).deep.equal(new Set(['ready']))
    await untouched()
    await new Promise((resolve) => setTimeout(resolve, 1_700))
    await untouched()
    const running = r.event('relay.state', ({ to }) => to === 'running')
    await proxy.resume()
    await running
    await arrivals.count(300)
    for (const key of numbers(5)) {
      const expected = numbers(60).map((n) => n * 5 + key)
      expect(arrivals.bodies(`k${key}`)).deep.equal(expected)
    }
    await eventually(async () => expect(await r.states()).empty)
    expect(held).empty
    expect(surehop.health().healthy).equal(true)
  })

  it('warns at its start of a pool that would end the process when Postgres restarts', async () => {
    const pool = new Pool({ connectionString: r.schema.url })
    r.later(() => pool.end())
    const warnings = r.record('outbox.warning')
    await (await r.relay({ pool })).close()
    expect(warnings.map(({ warning }) => warning).join())
      .contain("no listener for 'error'")
      .contain('pool.on(')
    pool.on('error', () => {})
    await (await r.relay({ pool })).close()
    expect(warnings).length(1)
  })

  it('cut off from the broker again and again, loses nothing and keeps the order of keys', async () => {
    const { proxy, surehop } = await behindProxy()
    const arrivals = await r.arrivals(queue)
    await r.relay({ outbox: r.outbox, backoff: fixed({ delayMs: 50 }), pollMs: 20 }, surehop)
    for (const round of numbers(6)) {
      await r.add(...numbers(100).map((n) => ({ queue, key: `k${n % 10}`, body: round * 100 + n })))
      await arrivals.count(round * 100 + 30)
      proxy.cut(round % 2 ? 'rst' : 'fin')
    }
    await arrivals.count(600)
    for (const key of numbers(10)) {
      const bodies = arrivals.bodies(`k${key}`) as number[]
      expect(bodies).deep.equal([...bodies].sort((a, b) => a - b))
    }
    await eventually(async () => expect(await r.states()).empty)
  })

  it('without an answer from the broker sends again with the same id, and keeps the key waiting', async () => {
    const { proxy, surehop } = await behindProxy()
    const arrivals = await r.arrivals(queue)
    let first: string | undefined
    const held = r.event('outbox.held', ({ messageId }) => messageId === first)
    const warm = r.event('outbox.sent')
    await r.relay({ pollMs: 20, publishDeadlineMs: 700, backoff: fixed({ delayMs: 50 }), attempts: 1 }, surehop)
    await r.add({ queue, body: 'warm' })
    await warm
    proxy.stall('to-client')
    ;[first] = await r.add({ queue, key: 'a', body: 1 }, { queue, key: 'a', body: 2 })
    const { attempt, error } = await held
    expect(attempt).equal(0)
    expect(error.message).contain('without an answer')
    await arrivals.count(2)
    expect(new Set(arrivals.bodies('a'))).deep.equal(new Set([1]))
    await proxy.resume()
    await eventually(() => expect(arrivals.bodies('a')).include(2), { withinMs: 30_000 })
    expect([...new Set(arrivals.bodies('a'))]).deep.equal([1, 2])
    expect(arrivals.all.filter(({ body }) => body === 1).every(({ id }) => id === first)).equal(true)
    await eventually(async () => expect(await r.states()).empty)
  })

  it('gives its share to a relay that reaches the broker when it does not', async () => {
    const { proxy, surehop } = await behindProxy()
    const arrivals = await r.arrivals(queue)
    await r.relay({ pollMs: 20, leaseMs: 1_500 }, surehop)
    await cutOff(proxy)
    await r.relay({ pollMs: 20, leaseMs: 1_500 })
    await r.add(...numbers(200).map((body) => ({ queue, key: `k${body}`, body })))
    await arrivals.count(200)
    await proxy.resume()
    const shares = 'SELECT count(*) AS n FROM {schema}.outbox_shards WHERE until > now() GROUP BY owner ORDER BY n'
    const share = async () => (await r.sql(shares)).map(({ n }) => Number(n))
    await eventually(async () => expect(await share()).deep.equal([32, 32]))
  })

  it('has the connections of its pool back after Postgres answered nothing for many leases', async () => {
    const proxy = await startProxy(String(process.env['DATABASE_URL']))
    r.later(() => proxy.close())
    const { Pool } = await import('pg')
    const pool = new Pool({ connectionString: proxy.url, max: 2, connectionTimeoutMillis: 800 })
    pool.on('error', () => {})
    r.later(() => pool.end())
    const surehop = await r.surehop()
    const arrivals = await r.arrivals(queue)
    await eventually(() => pool.query('SELECT 1'))
    await r.relay({ pool, pollMs: 20, leaseMs: 800 }, surehop)
    await r.add(...numbers(20).map((body) => ({ queue, body })))
    await arrivals.count(20)
    const paused = r.event('relay.state', ({ to }) => to === 'paused')
    proxy.swallow()
    await paused
    // The outage's length: so many statements are given up on that an abandoned one each would use the pool up.
    await new Promise((resolve) => setTimeout(resolve, 4_000))
    await proxy.resume()
    await r.add({ queue, body: 20 })
    await eventually(() => expect(arrivals.bodies()).include(20), { withinMs: 30_000 })
  })

  it('waits while Postgres is away, says so, and settles what was confirmed before it sends more', async () => {
    const proxy = await startProxy(String(process.env['DATABASE_URL']))
    r.later(() => proxy.close())
    const { Pool } = await import('pg')
    const pool = new Pool({ connectionString: proxy.url })
    pool.on('error', () => {})
    r.later(() => pool.end())
    const surehop = await r.surehop()
    const arrivals = await r.arrivals(queue)
    await r.relay({ pool, pollMs: 20, windowMessages: 100, leaseMs: 5_000 }, surehop)
    await r.add({ queue, body: -1 })
    await arrivals.count(1)
    await eventually(async () => expect(await r.states()).empty)
    const sent = r.record('outbox.sent')
    proxy.stall('to-server')
    proxy.on('data', (way, bytes) => {
      if (way === 'to-server' && bytes.includes('DELETE FROM')) void cutOff(proxy)
    })
    await r.add(...numbers(300).map((body) => ({ queue, key: `k${body % 150}`, body })))
    const paused = r.event('relay.state', ({ to }) => to === 'paused')
    await proxy.resume()
    await paused
    expect(surehop.health().reasons.join()).contain('Postgres')
    await eventually(() => expect(sent.length).greaterThan(0))
    expect(sent.length).most(100)
    proxy.removeAllListeners('data')
    await proxy.resume()
    await arrivals.count(301)
    await eventually(async () => expect(await r.states()).empty)
    expect(new Set(arrivals.ids).size).equal(301)
    for (const key of numbers(150)) expect(arrivals.bodies(`k${key}`)).deep.equal([key, key + 150])
  })

  it('tries again, and holds nobody else up, where a backoff of one’s own throws or answers no number', async () => {
    const arrivals = await r.arrivals(queue)
    const delays = r.record('outbox.held')
    const backoff = {
      delayMs: (failures: number) => {
        if (failures === 1) throw new Error('no such step')
        return Number.NaN
      },
      maxDelayMs: () => 0,
    }
    await r.relay({ pollMs: 20, backoff, attempts: 3 })
    await r.add({ queue: `${queue}-nowhere`, key: 'a', body: 0 }, { queue, key: 'a', body: 1 }, { queue, body: 2 })
    await arrivals.count(2)
    expect(arrivals.bodies()).deep.equal([2, 1])
    expect(delays.map(({ attempt }) => attempt)).deep.equal([1, 2])
    for (const { delayMs } of delays) expect(delayMs).within(0, 2_000)
  })

  it('does not forget a failure whose record had no answer', async () => {
    const proxy = await startProxy(String(process.env['DATABASE_URL']))
    r.later(() => proxy.close())
    const { Pool } = await import('pg')
    const pool = new Pool({ connectionString: proxy.url })
    pool.on('error', () => {})
    r.later(() => pool.end())
    const arrivals = await r.arrivals(queue)
    await r.relay({ pool, pollMs: 20, attempts: 2, backoff: fixed({ delayMs: 300 }) })
    let cuts = 0
    proxy.on('data', (way, bytes) => {
      if (way === 'to-server' && bytes.includes('jsonb_to_recordset') && cuts++ === 0) {
        proxy.swallow('to-client')
        setTimeout(() => void proxy.resume().then(() => proxy.cut()), 200)
      }
    })
    const parked = r.event('outbox.parked')
    const [bad] = await r.add({ queue: `${queue}-nowhere`, key: 'a', body: 0 }, { queue, key: 'a', body: 1 })
    const { messageId, attempts } = await parked
    expect({ messageId, attempts }).deep.equal({ messageId: bad, attempts: 2 })
    expect((await arrivals.count(1)).bodies('a')).deep.equal([1])
    expect(cuts).least(2)
  })

  it('outlives restarts of Postgres while it sends', async () => {
    const postgres = await startPostgres()
    const own = await Relaying.open({ url: postgres.url })
    try {
      own.pool.on('error', () => {})
      const target = await own.queue()
      const arrivals = await own.arrivals(target)
      const relay = await own.relay({ pollMs: 20, leaseMs: 3_000 })
      const add = async (from: number) =>
        eventually(() =>
          own.add(
            ...numbers(250, from).map((n) => ({ queue: target, key: `k${n % 25}`, body: n, messageId: `m${n}` })),
          ),
        )
      await add(0)
      await arrivals.count(30)
      await postgres.restart()
      await add(250)
      await arrivals.count(300)
      await postgres.kill9()
      await postgres.start()
      await arrivals.count(500, 60_000)
      for (const key of numbers(25)) expect(arrivals.bodies(`k${key}`)).deep.equal(numbers(20).map((n) => n * 25 + key))
      await eventually(async () => expect(await own.states()).empty)
      expect(relay.problems).empty
    } finally {
      await own.close()
      await postgres.close()
    }
  })
})
