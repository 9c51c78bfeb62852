// Channels, connections and queues lost under a consumer: it comes back by itself, once, and settles nothing that is not its own.

import { expect } from 'chai'
import { v7 } from 'uuid'
import { HEADER, onEvent } from '../../lib/index.ts'
import { eventually, latch } from '../support/eventually.ts'
import { type RabbitMq, startRabbitMq } from '../support/services.ts'
import { startProxy, type TcpProxy } from '../support/tcp-proxy.ts'
import { uniqueQueue } from '../support/unique.ts'
import {
  amqpUrl,
  closeAll,
  connected,
  counts,
  event,
  inbox,
  nothingLeft,
  raw,
  sendRaw,
  Tally,
  taken,
  toClose,
} from './setup.ts'

async function proxy(): Promise<TcpProxy> {
  return toClose(await startProxy(amqpUrl()))
}

const consuming = (queue: string) => event('consumer.state', (data) => data.queue === queue && data.to === 'consuming')

describe('consumer: losses', function () {
  this.timeout(90_000)
  afterEach(closeAll)

  // P1: the ack of a delivery whose connection is gone must not go to the new channel, where its tag is another message.
  it('drops late acks after a reconnect: nothing is settled that was not handled, and nothing is run twice', async () => {
    const [queue, link] = [uniqueQueue(), await proxy()]
    const surehop = await connected({ amqp: link.url })
    const gate = latch()
    const runs = new Tally<number>()
    const stale = new Tally<string>()
    const stop = onEvent('message.stale', (data) => data.queue === queue && stale.add(data.messageId))
    const ids = Array.from({ length: 12 }, () => v7())
    await surehop.consume<number>(queue, { idempotency: inbox(), concurrency: 4, prefetch: 4 }, async ({ body }) => {
      runs.add(body)
      await gate.promise
    })
    const producer = (await connected()).producer()
    for (const [body, messageId] of ids.entries()) await producer.send(queue, { messageId, body })
    await runs.reaches(4)
    const back = consuming(queue)
    link.cut()
    await back
    gate.resolve()
    await runs.reaches(ids.length)
    await nothingLeft(queue)
    stop()
    expect([...runs.seen].sort((a, b) => a - b)).to.deep.equal([...ids.keys()])
    expect(stale.seen).to.have.length(4)
    expect((await counts(queue)).consumers).to.equal(1)
  })

  it('fires the signal of running handlers with ChannelLost, and counts no attempt for those that stop', async () => {
    const [queue, link] = [uniqueQueue(), await proxy()]
    const surehop = await connected({ amqp: link.url })
    const started = latch()
    const ends = new Tally<string>()
    await surehop.consume(queue, { idempotency: inbox() }, async (_, { signal, attempt }) => {
      if (ends.seen.length > 0) return void ends.add(`ran again as attempt ${attempt}`)
      started.resolve()
      await new Promise((_, reject) =>
        signal.addEventListener('abort', () => {
          ends.add((signal.reason as Error).name)
          reject(signal.reason)
        }),
      )
    })
    await surehop.producer().send(queue, { body: {} })
    await started.promise
    link.cut()
    expect(await ends.reaches(2)).to.deep.equal(['ChannelLost', 'ran again as attempt 1'])
  })

  // P13: a consumer registered by an attempt that failed, and again by the next one, would be two.
  it('is one consumer after any number of lost connections', async () => {
    const [queue, link] = [uniqueQueue(), await proxy()]
    const surehop = await connected({ amqp: link.url })
    await surehop.consume(queue, { idempotency: inbox() }, () => {})
    for (let i = 0; i < 5; i++) {
      const back = consuming(queue)
      link.cut(i % 2 ? 'rst' : 'fin')
      await back
    }
    await eventually(async () => expect((await counts(queue)).consumers).to.equal(1))
  })

  // P14: a queue that was deleted cancels the consumer without an error; it is declared anew, with a word about it.
  it('declares its queue anew when it is deleted under it, and is unhealthy meanwhile, with the reason', async () => {
    const queue = uniqueQueue()
    const surehop = await connected()
    const got = new Tally<unknown>()
    await surehop.consume(queue, { idempotency: inbox() }, ({ body }) => void got.add(body))
    const reasons = new Tally<string>()
    const lost = event('consumer.state', (data) => data.queue === queue && data.to === 'recovering').then((data) => {
      reasons.add(surehop.health().reasons.join())
      return data
    })
    const back = consuming(queue)
    await (await (await raw()).createChannel()).deleteQueue(queue)
    expect((await lost).error?.message).to.match(/cancelled the consumer: its queue was deleted/)
    await back
    expect(reasons.seen.join()).to.include(queue)
    await eventually(() => expect(surehop.health()).to.deep.equal({ healthy: true, reasons: [] }))
    await surehop.producer().send(queue, { body: 'after' })
    expect(await got.reaches(1)).to.deep.equal(['after'])
    expect((await counts(queue)).consumers).to.equal(1)
  })

  it('declares the dead-letter queue anew when it was deleted before a burial, and buries', async () => {
    const queue = uniqueQueue()
    const surehop = await connected()
    await surehop.consume(queue, { idempotency: inbox(), retry: { attempts: 1 } }, () => {
      throw new Error('boom')
    })
    await (await (await raw()).createChannel()).deleteQueue(`${queue}.dead`)
    const buried = event('message.dead-lettered', (data) => data.queue === queue)
    await surehop.producer().send(queue, { body: {} })
    await buried
    const [letter] = await taken(`${queue}.dead`)
    expect(letter!.properties.headers![HEADER.reason]).to.equal('failed 1 times')
  })

  it('says in health() that it cannot bury, holds the message, and buries it once it can', async () => {
    const queue = uniqueQueue()
    const surehop = await connected()
    const channel = await (await raw()).createConfirmChannel()
    const full = { 'x-queue-type': 'quorum', 'x-delivery-limit': 2_147_483_647 }
    await channel.assertQueue(`${queue}.dead`, { durable: true, arguments: full })
    await surehop.consume(queue, { idempotency: inbox(), retry: { attempts: 1 } }, () => {
      throw new Error('boom')
    })
    const failed = event('publish.failed', (data) => data.routingKey === `${queue}.dead`)
    await channel.deleteQueue(`${queue}.dead`)
    // Of another kind: ours cannot be declared, and nothing is routed.
    const blocker = await (await raw()).createChannel()
    await blocker.assertQueue(`${queue}.dead`, {
      durable: true,
      arguments: { 'x-queue-type': 'classic', 'x-max-length': 0, 'x-overflow': 'reject-publish' },
    })
    void failed.catch(() => {})
    await sendRaw(queue, '{"kept":1}', { messageId: v7() })
    await eventually(
      () => expect(surehop.health().reasons.join()).to.match(/1 messages cannot be moved on and are held/),
      { withinMs: 45_000 },
    )
    await blocker.deleteQueue(`${queue}.dead`)
    const [letter] = await eventually(() => taken(`${queue}.dead`, 1, 5_000), { withinMs: 45_000 })
    expect(letter!.content.toString()).to.equal('{"kept":1}')
    await eventually(() => expect(surehop.health().healthy).to.equal(true))
  })

  it('handles every message once while its connection is cut fifty times', async () => {
    const [queue, link] = [uniqueQueue(), await proxy()]
    const surehop = await connected({ amqp: link.url, reconnectCapMs: 200 })
    const [total, cuts] = [3_000, 50]
    const runs = new Map<string, number>()
    const done = latch()
    const backoff = { delayMs: () => 0, maxDelayMs: () => 0 }
    await surehop.consume(
      queue,
      { idempotency: inbox(), retry: { attempts: 3, backoff } },
      async ({ messageId }, { attempt }) => {
        await new Promise((resolve) => setImmediate(resolve))
        if (attempt === 1 && messageId.endsWith('7')) throw new Error('boom')
        runs.set(messageId, (runs.get(messageId) ?? 0) + 1)
        if (runs.size % (total / cuts) === 0) link.cut('rst')
        if (runs.size === total) done.resolve()
      },
    )
    const ids = Array.from({ length: total }, () => v7())
    const lost = new Tally<string>()
    const stop = onEvent(
      'consumer.state',
      (data) => data.queue === queue && data.to === 'recovering' && lost.add(data.to),
    )
    const messages = ids.map((messageId) => ({ routingKey: queue, messageId, body: {} }))
    const results = await (await connected()).producer().publishMany('', messages)
    expect(results.every(({ outcome }) => outcome === 'confirmed')).to.equal(true)
    await done.promise
    await nothingLeft(queue)
    stop()
    expect(lost.seen.length).to.be.within(30, cuts)
    expect(runs.size).to.equal(total)
    expect([...runs.values()].filter((count) => count > 1)).to.deep.equal([])
  })
})

// P24: a delivery not acked in time closes the channel (up to 4.2) or cancels the consumer (4.3); default 30 minutes, here 2 seconds.
describe("consumer: a handler that outlasts the broker's consumer timeout", function () {
  this.timeout(120_000)
  let broker: RabbitMq
  before(async () => {
    broker = await startRabbitMq()
    await broker.ctl(
      'eval',
      '[application:set_env(rabbit, K, V) || {K, V} <- [{consumer_timeout, 2000}, {channel_tick_interval, 500}]].',
    )
  })
  after(() => broker?.close())
  afterEach(closeAll)

  it('is told by its signal, is not run beside itself, and its end counts', async () => {
    const queue = uniqueQueue()
    const surehop = await connected({ amqp: broker.url })
    const log = new Tally<string>()
    const gate = latch()
    const dropped = event('message.duplicate', (data) => data.queue === queue, 60_000)
    await surehop.consume(queue, { idempotency: inbox() }, async (_, { signal }) => {
      signal.addEventListener('abort', () => {
        log.add((signal.reason as Error).name)
        gate.resolve()
      })
      log.add('runs')
      await gate.promise
      log.add('ends')
    })
    await surehop.producer().send(queue, { body: {} })
    expect((await dropped).why).to.equal('completed')
    expect(log.seen).to.deep.equal(['runs', 'ChannelLost', 'ends'])
  })
})
