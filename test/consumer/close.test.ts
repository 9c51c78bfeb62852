// Closing: stop taking, finish what runs, hand the rest back; at any moment, with anything missing, within its time.

import { expect } from 'chai'
import { v7 } from 'uuid'
import type { Connection } from '../../lib/connection/connection.ts'
import { Consumer } from '../../lib/consumer/consumer.ts'
import { onEvent } from '../../lib/index.ts'
import type { RawDelivery } from '../../lib/message.ts'
import { Events } from '../../lib/observability/events.ts'
import { retryPolicy } from '../../lib/retry/policy.ts'
import type { Declarer } from '../../lib/topology/declarer.ts'
import { EMPTY } from '../../lib/topology/topology.ts'
import { eventually, latch } from '../support/eventually.ts'
import { startRedis } from '../support/services.ts'
import { startProxy } from '../support/tcp-proxy.ts'
import { uniqueQueue } from '../support/unique.ts'
import { FakeChannel, FakeProducer, rawDelivery } from './fakes.ts'
import { amqpUrl, closeAll, connected, counts, event, inbox, nothingLeft, Tally, toClose } from './setup.ts'

async function tookMs(doing: Promise<unknown>): Promise<number> {
  const began = performance.now()
  await doing
  return performance.now() - began
}

describe('consumer: closing', function () {
  this.timeout(60_000)
  afterEach(closeAll)

  it('a consumer still being opened while close() waits for another one ends with it', async () => {
    const [queue, late] = [uniqueQueue(), uniqueQueue()]
    const surehop = await connected()
    const [started, finish] = [latch(), latch()]
    await surehop.consume(queue, {}, async () => {
      started.resolve()
      await finish.promise
    })
    await surehop.producer().send(queue, { body: {} })
    await started.promise
    const opening = surehop.consume(late, { idempotency: inbox() }, () => {}).catch((error: Error) => error)
    const closing = surehop.close()
    expect(await opening).to.include({ code: 'CLOSED' })
    finish.resolve()
    await closing
    expect(surehop.health().reasons.join()).not.to.contain(late)
  })

  it('finishes what runs, starts nothing more, and hands the rest to another consumer', async () => {
    const [queue, store] = [uniqueQueue(), inbox()]
    const [started, finish] = [new Tally<number>(), latch()]
    const surehop = await connected()
    const consumer = await surehop.consume<number>(
      queue,
      { idempotency: store, concurrency: 2, prefetch: 10 },
      async ({ body }) => {
        started.add(body)
        await finish.promise
      },
    )
    const producer = (await connected()).producer()
    for (let body = 0; body < 12; body++) await producer.send(queue, { body })
    await started.reaches(2)
    const others = new Tally<number>()
    const other = await connected()
    const closing = consumer.close()
    await other.consume<number>(queue, { idempotency: store }, ({ body }) => void others.add(body))
    await others.reaches(10)
    finish.resolve()
    await closing
    expect(started.seen).to.deep.equal([0, 1])
    expect([...others.seen].sort((a, b) => a - b)).to.deep.equal([2, 3, 4, 5, 6, 7, 8, 9, 10, 11])
    await nothingLeft(queue)
    expect(await consumer.close()).to.equal(undefined)
  })

  it('fires the signal at the drain deadline, and hands back what has not ended', async () => {
    const queue = uniqueQueue()
    const surehop = await connected()
    const [started, reasons] = [latch(), new Tally<string>()]
    const consumer = await surehop.consume(queue, { idempotency: inbox(), drainMs: 300 }, async (_, { signal }) => {
      signal.addEventListener('abort', () => reasons.add((signal.reason as Error).name))
      started.resolve()
      await new Promise(() => {})
    })
    await surehop.producer().send(queue, { body: {} })
    await started.promise
    expect(await tookMs(consumer.close())).to.be.within(290, 15_000)
    expect(reasons.seen).to.deep.equal(['Closed'])
    expect((await counts(queue)).messages).to.equal(1)
  })

  it('lets a handler publish while it drains', async () => {
    const [queue, next] = [uniqueQueue(), uniqueQueue('next')]
    const surehop = await connected()
    const [started, finish] = [latch(), latch()]
    await surehop.consume(next, {}, () => {})
    const arrived = event('message.completed', (data) => data.queue === next)
    const consumer = await surehop.consume(queue, { idempotency: inbox() }, async (_, { send }) => {
      started.resolve()
      await finish.promise
      await send(next, { body: {} })
    })
    await surehop.producer().send(queue, { body: {} })
    await started.promise
    const closing = consumer.close()
    finish.resolve()
    await closing
    await arrived
    await nothingLeft(queue)
  })

  it('closes while it recovers from a lost connection that does not come back', async () => {
    const queue = uniqueQueue()
    const link = toClose(await startProxy(amqpUrl()))
    const surehop = await connected({ amqp: link.url })
    const consumer = await surehop.consume(queue, { idempotency: inbox() }, () => {})
    const lost = event('consumer.state', (data) => data.queue === queue && data.to === 'recovering')
    await link.refuse()
    link.cut()
    await lost
    expect(surehop.health().healthy).to.equal(false)
    expect(await tookMs(consumer.close())).to.be.below(5_000)
    expect(await tookMs(surehop.close())).to.be.below(10_000)
  })

  it('closes within its time although the broker does not answer', async () => {
    const queue = uniqueQueue()
    const link = toClose(await startProxy(amqpUrl()))
    const surehop = await connected({ amqp: link.url, rpcTimeoutMs: 500, drainMs: 500 })
    await surehop.consume(queue, { idempotency: inbox() }, () => {})
    link.stall()
    expect(await tookMs(surehop.close())).to.be.below(12_000)
  })

  it('may be closed while it starts, and says so to whoever started it', async () => {
    const queue = uniqueQueue()
    const surehop = await connected()
    const starting = surehop.consume(queue, { idempotency: inbox() }, () => {}).catch((error: Error) => error.name)
    await surehop.close()
    expect(await starting).to.be.oneOf(['Closed', 'NotConnected'])
  })

  it('hands back what waits for the store, at once, when it closes while the store is down', async () => {
    const queue = uniqueQueue()
    const redis = toClose(await startRedis())
    const surehop = await connected()
    const finish = latch()
    const started = latch()
    let runs = 0
    const consumer = await surehop.consume(
      queue,
      { idempotency: inbox('surehop', redis.url), concurrency: 5 },
      async () => {
        runs++
        started.resolve()
        await finish.promise
      },
    )
    await surehop.producer().send(queue, { body: {} })
    await started.promise
    const gone = event('store.unavailable', (data) => data.queue === queue)
    await redis.stop()
    await surehop.producer().send(queue, { body: {} })
    await gone
    expect(surehop.health().reasons.join()).to.match(/store is unreachable, nothing is run/)
    const closing = tookMs(consumer.close())
    await eventually(async () => expect((await counts(queue)).messages).to.equal(1), { withinMs: 4_500 })
    // The handler that runs cannot be recorded: its message is handed back at the end.
    expect(await closing).to.be.within(4_900, 14_000)
    expect((await counts(queue)).messages).to.equal(2)
    expect(runs).to.equal(1)
    finish.resolve()
  })
})

describe('consumer: the store away', function () {
  this.timeout(90_000)
  afterEach(closeAll)

  it('runs nothing while the store is down, says so, and goes on by itself when it is back', async () => {
    const queue = uniqueQueue()
    const redis = toClose(await startRedis())
    const surehop = await connected()
    const runs = new Tally<string>()
    await surehop.consume(
      queue,
      { idempotency: inbox('surehop', redis.url), leaseMs: 3_000 },
      ({ messageId }) => void runs.add(messageId),
    )
    const producer = surehop.producer()
    const ids = Array.from({ length: 30 }, () => v7())
    for (const messageId of ids.slice(0, 10)) await producer.send(queue, { messageId, body: {} })
    await runs.reaches(10)
    const away = event('store.unavailable', (data) => data.queue === queue)
    await redis.stop()
    for (const messageId of ids.slice(10, 20)) await producer.send(queue, { messageId, body: {} })
    await away
    expect(surehop.health().healthy).to.equal(false)
    const back = event('store.available', (data) => data.queue === queue)
    expect(runs.seen).to.have.length(10)
    await redis.start()
    await back
    for (const messageId of ids) await producer.send(queue, { messageId, body: {} })
    await runs.reaches(30, 30_000)
    await nothingLeft(queue)
    expect([...runs.seen].sort()).to.deep.equal([...ids].sort())
    expect(surehop.health()).to.deep.equal({ healthy: true, reasons: [] })
  })

  // The instance that finds the store first must not run again what the other has just done but could not record.
  it('repeats no effect when two instances meet a store that was away for longer than a lease', async () => {
    const queue = uniqueQueue()
    const redis = toClose(await startRedis())
    const [running, finish] = [new Tally<string>(), latch()]
    for (let i = 0; i < 2; i++) {
      const surehop = await connected()
      await surehop.consume(
        queue,
        { idempotency: inbox('surehop', redis.url), leaseMs: 2_000, concurrency: 10, prefetch: 10 },
        async ({ messageId }) => {
          running.add(messageId)
          await finish.promise
        },
      )
    }
    const producer = (await connected()).producer()
    const ids = Array.from({ length: 10 }, () => v7())
    for (const messageId of ids) await producer.send(queue, { messageId, body: {} })
    await running.reaches(10)
    const lapsed = new Tally<string>()
    const stop = onEvent('lease.lapsed', (data) => data.queue === queue && lapsed.add(data.instance))
    const away = event('store.unavailable', (data) => data.queue === queue)
    await redis.stop()
    await away
    for (const messageId of ids) await producer.send(queue, { messageId, body: {} })
    await lapsed.reaches(2, 20_000)
    finish.resolve()
    await redis.start()
    await nothingLeft(queue)
    stop()
    expect([...running.seen].sort()).to.deep.equal([...ids].sort())
  })

  it('records what it did in a store that has forgotten everything meanwhile', async () => {
    const queue = uniqueQueue()
    const redis = toClose(await startRedis())
    const surehop = await connected()
    const [started, finish, messageId] = [latch(), latch(), v7()]
    let runs = 0
    await surehop.consume(queue, { idempotency: inbox('surehop', redis.url) }, async () => {
      runs++
      started.resolve()
      await finish.promise
    })
    await surehop.producer().send(queue, { messageId, body: {} })
    await started.promise
    const { Redis } = await import('ioredis')
    const client = new Redis(redis.url)
    await client.flushall()
    client.disconnect()
    const dropped = event('message.duplicate', (data) => data.queue === queue)
    finish.resolve()
    await surehop.producer().send(queue, { messageId, body: {} })
    expect((await dropped).why).to.equal('completed')
    expect(runs).to.equal(1)
  })
})

/** A channel whose consumer is accepted when told. */
class SlowChannel extends FakeChannel {
  readonly asked = latch()
  readonly accepted = latch()
  deliver: (raw: RawDelivery) => void = () => {}

  async prefetch(): Promise<void> {}

  async consume(_: string, deliver: (raw: RawDelivery) => void): Promise<{ consumerTag: string }> {
    this.deliver = deliver
    this.asked.resolve()
    await this.accepted.promise
    return { consumerTag: 'c' }
  }

  async cancel(): Promise<void> {
    this.told.push('cancel')
  }

  async close(): Promise<void> {
    this.die()
  }
}

describe('consumer: closing while it recovers', () => {
  it('hands what comes then back at once, though a handler of the lost channel still runs', async () => {
    const [first, second] = [new SlowChannel(), new SlowChannel()]
    const [started, finish] = [latch(), latch()]
    const channels = [first, second]
    const events = new Events('closing')
    const connection = {
      options: { events, rpcTimeoutMs: 1_000 },
      ready: async () => {},
      openChannel: async () => channels.shift(),
      rpc: (_: string, operation: () => Promise<unknown>) => operation(),
    } as unknown as Connection
    const consumer = new Consumer({
      connection,
      declarer: { declare: async () => {}, forget: () => {} } as unknown as Declarer,
      topology: EMPTY,
      queue: 'work',
      decode: { queue: 'work', identity: 'reject', body: 'json', digests: false },
      concurrency: 1,
      prefetch: 2,
      drainMs: 30_000,
      singleActive: false,
      orderBy: undefined,
      guard: undefined,
      processor: {
        handler: async () => {
          started.resolve()
          await finish.promise
        },
        handlerTimeoutMs: 60_000,
        inPlace: false,
        policy: retryPolicy(),
        outlet: { retry: async () => {}, bury: async () => {} },
        producer: new FakeProducer().asProducer,
        events,
      },
    })
    first.accepted.resolve()
    await consumer.start()
    first.deliver(rawDelivery())
    await started.promise
    first.die()
    await second.asked.promise
    const closing = consumer.close()
    await new Promise(setImmediate)
    second.accepted.resolve()
    second.deliver(rawDelivery({ properties: { messageId: 'm-2' } }))
    await eventually(() => expect(second.told).to.deep.equal(['cancel', 'nack 1 requeue']))
    finish.resolve()
    await closing
  })
})
