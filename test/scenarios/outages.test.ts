// Everything the flow stands on goes away and comes back while messages flow: the flow goes on by itself, nothing is lost, and
// what each publish was told is true.

import { expect } from 'chai'
import { v7 } from 'uuid'
import { connect, onEvent, PublishFailed, RedisIdempotencyStore } from '../../lib/index.ts'
import { eventually, latch, within } from '../support/eventually.ts'
import { type RabbitMq, type Server, startRabbitMq, startRedis } from '../support/services.ts'
import { startProxy, type TcpProxy } from '../support/tcp-proxy.ts'

/** Messages that come while Redis is away: as many as a consumer takes. */
const HELD = 10

type Outcome = 'confirmed' | PublishFailed['outcome']

/** Publishes without pause until it is told to stop, and notes what it was told of each message. */
class Flow {
  readonly outcomes = new Map<string, Outcome>()
  #stopped = false
  #running: Promise<unknown> = Promise.resolve()

  start(publish: (messageId: string) => Promise<unknown>): void {
    this.#running = Promise.all(Array.from({ length: 8 }, () => this.#lane(publish)))
  }

  get confirmed(): number {
    return [...this.outcomes.values()].filter((outcome) => outcome === 'confirmed').length
  }

  /** So many more are confirmed: the flow is under way. */
  async goesOn(count: number): Promise<void> {
    const target = this.confirmed + count
    await eventually(() => this.confirmed >= target, { what: `${count} more confirmed publishes`, withinMs: 60_000 })
  }

  async stop(): Promise<void> {
    this.#stopped = true
    await this.#running
  }

  async #lane(publish: (messageId: string) => Promise<unknown>): Promise<void> {
    while (!this.#stopped) {
      const messageId = v7()
      const outcome = await publish(messageId).then(
        () => 'confirmed' as const,
        (error: unknown) => {
          if (!(error instanceof PublishFailed)) throw error
          return error.outcome
        },
      )
      this.outcomes.set(messageId, outcome)
      // An answer of "not sent" comes at once; do not spin.
      await new Promise((resolve) => setTimeout(resolve, outcome === 'confirmed' ? 1 : 20))
    }
  }
}

describe('scenario: outages while messages flow', function () {
  this.timeout(240_000)
  let broker: RabbitMq
  let redis: Server
  let link: TcpProxy
  before(async () => {
    ;[broker, redis] = await Promise.all([startRabbitMq(), startRedis()])
    link = await startProxy(broker.url)
  })
  after(async () => {
    await link?.close()
    await Promise.all([broker?.close(), redis?.close()])
  })

  it('runs nothing while Redis is away, and afterwards each message that came meanwhile, once', async () => {
    const queue = 'outages-held'
    const handled: string[] = []
    const store = new RedisIdempotencyStore({ url: redis.url })
    const surehop = await connect({ service: 'outages', amqp: broker.url, drainMs: 5_000 })
    const options = { idempotency: store, leaseMs: 2_000, concurrency: HELD, prefetch: HELD }
    await surehop.consume(queue, options, ({ messageId }) => void handled.push(messageId))
    const away = latch()
    const back = latch()
    const ends = [
      onEvent('store.unavailable', (event) => event.queue === queue && away.resolve()),
      onEvent('store.available', (event) => event.queue === queue && back.resolve()),
    ]
    await redis.stop()
    await within(away.promise, { what: 'the news that Redis is away' })
    const ids = Array.from({ length: HELD }, () => v7())
    await Promise.all(ids.map((messageId) => surehop.producer().send(queue, { messageId, body: {} })))
    await eventually(async () => (await surehop.queueStatus(queue))?.messages === 0, { what: 'all in the hands of it' })
    expect(handled).to.deep.equal([])
    expect(surehop.health().reasons.join()).to.match(/nothing is run/)
    await redis.start()
    await within(back.promise, { what: 'the news that Redis is back', withinMs: 20_000 })
    await eventually(() => expect([...handled].sort()).to.deep.equal([...ids].sort()), { withinMs: 20_000 })
    for (const end of ends) end()
    await surehop.close()
    await store.close()
  })

  it('goes on by itself after each, loses nothing, repeats nothing, and every publish was told the truth', async () => {
    const queue = 'outages'
    const handled = new Map<string, number>()
    const store = new RedisIdempotencyStore({ url: redis.url })
    const options = { service: 'outages', reconnectBaseMs: 100, reconnectCapMs: 1_000, drainMs: 5_000 }
    const [sender, receiver] = [
      await connect({ ...options, amqp: link.url }),
      await connect({ ...options, amqp: link.url }),
    ]
    const backoff = { delayMs: () => 100, maxDelayMs: () => 100 }
    await receiver.consume(
      queue,
      { idempotency: store, leaseMs: 2_000, retry: { backoff } },
      async ({ messageId }, { attempt }) => {
        await new Promise((resolve) => setTimeout(resolve, 2))
        if (attempt === 1 && messageId.endsWith('77')) throw new Error('the first attempt of some')
        handled.set(messageId, (handled.get(messageId) ?? 0) + 1)
      },
    )
    const flow = new Flow()
    const producer = sender.producer({ deadlineMs: 4_000 })
    flow.start((messageId) => producer.send(queue, { messageId, body: {} }))

    for (let round = 0; round < 2; round++) {
      await flow.goesOn(300)
      link.cut(round ? 'fin' : 'rst')
      await flow.goesOn(300)
      await redis.restart()
      await flow.goesOn(300)
      await redis.freeze()
      await flow.goesOn(50)
      await redis.thaw()
      await flow.goesOn(300)
      await (round ? broker.kill9() : broker.stop())
      await broker.start()
    }
    await flow.goesOn(300)
    await flow.stop()

    const confirmed = [...flow.outcomes].filter(([, outcome]) => outcome === 'confirmed').map(([id]) => id)
    const silent = () => confirmed.filter((id) => !handled.has(id)).length
    await eventually(() => expect(silent()).to.equal(0), { what: 'the handling of all confirmed', withinMs: 60_000 })
    const notSent = [...flow.outcomes].filter(([, outcome]) => outcome === 'not-sent').map(([id]) => id)
    expect(notSent.filter((id) => handled.has(id))).to.deep.equal([])
    expect([...handled.values()].filter((count) => count > 1)).to.have.length(0)
    expect(flow.outcomes.size).to.be.above(2_000)
    await eventually(() => expect(receiver.health()).to.deep.equal({ healthy: true, reasons: [] }))
    await Promise.all([sender.close(), receiver.close()])
    await store.close()
    // The figures of RabbitMQ 4.3 are seconds old.
    await eventually(async () => {
      const left = await broker.ctl('list_queues', '--quiet', '--no-table-headers', 'name', 'messages')
      const both = left.split('\n').filter((line) => /^outages(\.dead)?\t/.test(line))
      expect(both.sort()).to.deep.equal(['outages\t0', 'outages.dead\t0'])
    })
  })
})
