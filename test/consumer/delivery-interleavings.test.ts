// Four deliveries of one channel: every order in which they are settled, acked or handed back each, every way of doing some of it in one
// go, and the end of the channel at every place; against a channel that counts as the broker does, acks for many included.

import { EventEmitter } from 'node:events'
import type { Channel } from 'amqplib'
import { expect } from 'chai'
import { Delivery, Epoch } from '../../lib/consumer/delivery.ts'
import type { RawDelivery } from '../../lib/message.ts'
import { rawDelivery } from './fakes.ts'

const TAGS = [1, 2, 3, 4]
type Verb = 'ack' | 'handBack'

/** A channel as the broker sees it. */
class Books extends EventEmitter {
  readonly unsettled = new Set(TAGS)
  /** What the consumer has asked for, by tag. */
  readonly asked = new Map<number, Verb>()
  open = true

  ack({ fields: { deliveryTag } }: RawDelivery, allUpTo = false): void {
    this.#settle(deliveryTag, 'ack')
    for (const tag of TAGS) if (allUpTo && tag < deliveryTag && this.unsettled.has(tag)) this.#settle(tag, 'ack')
  }

  nack({ fields: { deliveryTag } }: RawDelivery, allUpTo: boolean, requeue: boolean): void {
    expect(allUpTo).to.equal(false)
    expect(requeue).to.equal(true)
    this.#settle(deliveryTag, 'handBack')
  }

  #settle(tag: number, verb: Verb): void {
    if (!this.open) throw Object.assign(new Error('Channel closed'), { name: 'IllegalOperationError' })
    expect(this.unsettled.delete(tag), `tag ${tag} is settled once`).to.equal(true)
    expect(this.asked.get(tag), `tag ${tag} was asked to be settled so`).to.equal(verb)
  }
}

/** One history: in which order, by which verbs, after which of them the microtasks run, and where the channel ends, if at all. */
interface History {
  readonly order: readonly number[]
  readonly verbs: readonly Verb[]
  readonly pauses: number
  readonly endsBefore: number
  /** amqplib knows of the end before it tells. */
  readonly quietly: boolean
}

async function play({ order, verbs, pauses, endsBefore, quietly }: History): Promise<void> {
  const books = new Books()
  const epoch = new Epoch(books as unknown as Channel)
  const deliveries = TAGS.map((tag) => new Delivery(rawDelivery({ tag }), epoch))
  for (const [at, tag] of order.entries()) {
    if (at === endsBefore) end(books, quietly)
    const verb = verbs[at]!
    if (books.open) books.asked.set(tag, verb)
    const settled = deliveries[tag - 1]![verb]()
    if (books.open) expect(settled, 'it is taken').to.equal(true)
    expect(deliveries[tag - 1]![verb](), 'nothing is settled twice').to.equal(false)
    if ((pauses >> at) & 1) await rest()
  }
  await rest()
  if (endsBefore < 0) expect(books.unsettled, 'nothing is left').to.be.empty
  end(books, false)
  for (const delivery of deliveries)
    expect(delivery.ack(), 'nothing is settled on a channel that is gone').to.equal(false)
  await rest()
}

function end(books: Books, quietly: boolean): void {
  books.open = false
  if (!quietly) books.emit('close')
}

/** Whatever is gathered for a moment has gone out then. */
async function rest(): Promise<void> {
  for (let i = 0; i < 4; i++) await Promise.resolve()
}

function* orders(tags: readonly number[]): Generator<number[]> {
  if (tags.length === 0) yield []
  for (const first of tags) for (const rest of orders(tags.filter((tag) => tag !== first))) yield [first, ...rest]
}

function* choices(length: number): Generator<Verb[]> {
  if (length === 0) return yield []
  for (const rest of choices(length - 1)) for (const verb of ['ack', 'handBack'] as const) yield [verb, ...rest]
}

describe('deliveries of one channel', function () {
  this.timeout(120_000)

  it('are settled once, as asked, and on their own channel, in every order, acked or handed back, and wherever it ends', async () => {
    let played = 0
    for (const order of orders(TAGS))
      for (const verbs of choices(TAGS.length))
        for (let pauses = 0; pauses < 8; pauses++)
          for (let endsBefore = -1; endsBefore < TAGS.length; endsBefore++) {
            const history = { order, verbs, pauses, endsBefore, quietly: played++ % 2 === 0 }
            await play(history).catch((error: unknown) => {
              throw new Error(`${JSON.stringify(history)}: ${(error as Error).message}`, { cause: error })
            })
          }
    expect(played).to.equal(24 * 16 * 8 * 5)
  })
})
