// Everything the flow stands on goes away and comes back while messages flow: the flow goes on by itself, nothing is lost, and
// what each publish was told is true.

import { expect } from 'chai'
import { v7 } from 'uuid'
import { connect, PublishFailed, RedisIdempotencyStore } from '../../lib/index.ts'
import { eventually } from '../support/eventually.ts'
import { type RabbitMq, type Server, startRabbitMq, startRedis } from '../support/services.ts'
import { startProxy, type TcpProxy } from '../support/tcp-proxy.ts'

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
