import { expect } from 'chai'
import { MAX_DELAY_MS } from '../../lib/backoff.ts'
import type { PublishFailed } from '../../lib/errors.ts'
import { roundedDelayMs, TOP_LEVEL, UNDELIVERABLE } from '../../lib/topology/delay.ts'
import { failure, wiring } from '../connection/wiring.ts'
import { eventually, latch, within } from '../support/eventually.ts'
import { unique } from '../support/unique.ts'

/** Slow machines are late; the promise is "never early". */
const LATEST_MS = 8_000

interface Arrival {
  readonly id: string
  readonly atMs: number
  readonly routingKey: string
  readonly exchange: string
}

describe('a delayed message', () => {
  const wired = wiring()

  /** Collects arrivals of a queue. */
  async function arrivals(queue: string): Promise<{ of: (count: number) => Promise<Arrival[]> }> {
    const seen: Arrival[] = []
    let wake = latch()
    const open = latch<void>()
    const running = wired.raw(async (channel) => {
      await channel.consume(
        queue,
        (message) => {
          if (!message) return
          const { properties, fields } = message
          const atMs = performance.now()
          seen.push({ id: properties.messageId, atMs, routingKey: fields.routingKey, exchange: fields.exchange })
          wake.resolve()
        },
        { noAck: true },
      )
      await open.promise
    })
    wired.later(async () => {
      open.resolve()
      await running
    })
    const all = async (count: number): Promise<Arrival[]> => {
      while (seen.length < count) {
        await wake.promise
        wake = latch()
      }
      return seen
    }
    return { of: (count) => within(all(count), { what: `${count} arrivals` }) }
  }

  it('arrives at its queue, never early, whatever others wait at the same time', async () => {
    const queue = await wired.queue()
    const producer = (await wired.surehop()).producer()
    const delays = [700, 100, 1_300, 250, 100, 990, 400, 1_900, 50, 1_600]
    await producer.send(queue, { body: 1, delayMs: 100, messageId: 'warm' })
    const arrived = await arrivals(queue)
    const started = performance.now()
    const sent = await Promise.all(
      delays.map((delayMs, i) => producer.send(queue, { body: 1, delayMs, messageId: `${i}` }).then(() => delayMs)),
    )
    const confirmed = performance.now()
    expect(sent).deep.equal(delays)
    const seen = (await arrived.of(delays.length + 1)).filter(({ id }) => id !== 'warm')
    for (const { id, atMs } of seen) {
      const delayMs = delays[Number(id)]!
      expect(atMs - started, `delay ${delayMs}`).least(delayMs)
      expect(atMs - confirmed, `delay ${delayMs}`).below(roundedDelayMs(delayMs) + LATEST_MS)
    }
    expect(seen.map(({ id }) => id).toSorted()).deep.equal(delays.map((_, i) => `${i}`).toSorted())
  })

  it('arrives at a topic exchange with its own routing key, for the bindings of others', async () => {
    const [all, some] = [await wired.queue(), await wired.queue()]
    const exchange = await wired.exchange([all])
    await wired.raw((channel) => channel.bindQueue(some, exchange, 'order.*'))
    const producer = (await wired.surehop()).producer()
    const arrived = [await arrivals(all), await arrivals(some)]
    const started = performance.now()
    await producer.publish(exchange, { type: 'order.placed', body: 1, delayMs: 300 })
    for (const { of } of arrived) {
      const [first] = await of(1)
      expect(first).include({ routingKey: 'order.placed' })
      expect(first!.atMs - started).least(300)
    }
    await producer.publish(exchange, { type: 'invoice.sent', body: 1, delayMs: 100 })
    await arrived[0]!.of(2)
    expect(await wired.depth(some)).equal(0)
  })

  it('to a queue or exchange that does not exist is refused at once', async () => {
    const producer = (await wired.surehop()).producer()
    const started = performance.now()
    const toQueue = await failure<PublishFailed>(producer.send(unique('nobody'), { body: 1, delayMs: 1_000 }))
    const toExchange = await failure<PublishFailed>(producer.publish(unique('missing'), { body: 1, delayMs: 1_000 }))
    for (const error of [toQueue, toExchange]) {
      expect(error).include({ outcome: 'not-sent', retryable: false })
      expect(error.message).contain('does not exist')
    }
    expect(performance.now() - started, 'far from a deadline').below(10_000)
  })

  it('whose queue was deleted meanwhile is kept apart, and stops no other', async () => {
    const [gone, queue] = [await wired.queue(), await wired.queue()]
    const producer = (await wired.surehop()).producer()
    const id = unique('orphan')
    const orphans = Array.from({ length: 40 }, (_, i) => ({
      body: 1,
      delayMs: 200,
      routingKey: gone,
      messageId: `${id}-${i}`,
    }))
    await producer.send(gone, { body: 1, delayMs: 100 })
    await wired.raw((channel) => channel.deleteQueue(gone))
    expect((await producer.publishMany('', orphans)).every(({ outcome }) => outcome === 'confirmed')).equal(true)
    const kept: string[] = []
    await eventually(async () => {
      kept.push(...(await wired.take(UNDELIVERABLE)).map((m) => m.id))
      expect(kept.filter((name) => name.startsWith(id))).length(40)
    })
    const arrived = await arrivals(queue)
    await producer.send(queue, { body: 1, delayMs: 200, messageId: 'fine' })
    expect((await arrived.of(1))[0]).include({ id: 'fine' })
  })

  it('arrives again at an exchange that was deleted and made anew, half a minute later, though nobody reconnects', async () => {
    const queue = await wired.queue()
    const exchange = await wired.exchange([queue])
    const producer = (await wired.surehop()).producer()
    const soon = { type: 'x', body: 1, delayMs: 100 }
    const arrived = await arrivals(queue)
    await producer.publish(exchange, soon)
    await arrived.of(1)
    await wired.raw(async (channel) => {
      await channel.deleteExchange(exchange)
      await channel.assertExchange(exchange, 'topic')
      await channel.bindQueue(queue, exchange, '#')
    })
    const { now } = performance
    performance.now = () => now.call(performance) + 30_000
    wired.later(() => {
      performance.now = now
    })
    await producer.publish(exchange, soon)
    expect(await arrived.of(2)).length(2)
  })

  it('goes on for everybody although strangers put messages into a level, which are kept apart', async () => {
    const queue = await wired.queue()
    const producer = (await wired.surehop()).producer()
    await producer.send(queue, { body: 1, delayMs: 300 })
    const id = unique('stray')
    const strays = Array.from({ length: 40 }, (_, i) => ({
      body: 1,
      routingKey: `surehop.delay.0${i % 2}`,
      messageId: `${id}-${i}`,
    }))
    expect((await producer.publishMany('', strays)).every(({ outcome }) => outcome === 'confirmed')).equal(true)
    const kept: string[] = []
    await eventually(async () => {
      kept.push(...(await wired.take(UNDELIVERABLE)).map((m) => m.id))
      expect(kept.filter((name) => name.startsWith(id))).length(40)
    })
    const arrived = await arrivals(queue)
    await producer.send(queue, { body: 1, delayMs: 300 })
    expect(await arrived.of(2)).length(2)
  })

  it('finds its level again soon after that was deleted, though nobody reconnects', async () => {
    const queue = await wired.queue()
    const producer = (await wired.surehop()).producer()
    const month = { body: 1, delayMs: MAX_DELAY_MS }
    const end = () => wired.raw((channel) => channel.deleteQueue(`surehop.delay.${TOP_LEVEL}`))
    await producer.send(queue, month)
    await end()
    await producer.send(queue, month).catch(({ outcome }: PublishFailed) => expect(outcome).equal('returned'))
    expect((await producer.send(queue, month)).outcome).equal('confirmed')
    await end()
  })

  it('for an exchange without a matching binding stops no other', async () => {
    const exchange = await wired.exchange()
    const queue = await wired.queue()
    const producer = (await wired.surehop()).producer()
    const unheard = Array.from({ length: 40 }, () => ({ body: 1, type: 'nobody.cares', delayMs: 100 }))
    await producer.publishMany(exchange, unheard)
    const arrived = await arrivals(queue)
    await producer.send(queue, { body: 1, delayMs: 100 })
    await producer.send(queue, { body: 1, delayMs: 200 })
    expect(await arrived.of(2)).length(2)
  })
})
