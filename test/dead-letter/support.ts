// A consumer with its dead letters, and letters of every kind, for the tests of this room.

import { connect as amqp, type Channel, type ChannelModel, type Options } from 'amqplib'
import {
  type ConsumeOptions,
  connect,
  type DeadLetters,
  deadQueueOf,
  exponential,
  type Handler,
  HEADER,
  type IdempotencyStore,
  type Letter,
  type Surehop,
} from '../../lib/index.ts'
import { archiveQueue, deadQueue } from '../../lib/topology/queues.ts'
import { eventually } from '../support/eventually.ts'
import { uniqueQueue } from '../support/unique.ts'

export const AMQP_URL = process.env['AMQP_URL'] ?? ''
export const REDIS_URL = process.env['REDIS_URL'] ?? ''

/** One test's queue with everything around it. */
export class Bench {
  readonly surehop: Surehop
  readonly queue: string
  readonly channel: Channel
  readonly #model: ChannelModel

  private constructor(surehop: Surehop, queue: string, model: ChannelModel, channel: Channel) {
    this.surehop = surehop
    this.queue = queue
    this.#model = model
    this.channel = channel
  }

  static async open(name = 'dead-letters'): Promise<Bench> {
    const surehop = await connect({ amqp: AMQP_URL, service: 'tests' })
    const queue = uniqueQueue(name)
    await surehop.declare({ queues: [deadQueue(queue), archiveQueue(queue)] })
    const model = await amqp(AMQP_URL)
    return new Bench(surehop, queue, model, await model.createConfirmChannel())
  }

  get dead(): string {
    return deadQueueOf(this.queue)
  }

  letters(idempotency?: IdempotencyStore): DeadLetters {
    return this.surehop.deadLetters(this.queue, idempotency ? { idempotency } : {})
  }

  /** Consumes with quick retries. */
  consume(handler: Handler, options: ConsumeOptions = {}) {
    const retry = { attempts: 1, backoff: exponential({ baseMs: 1, capMs: 1 }) }
    return this.surehop.consume(this.queue, { retry, ...options }, handler)
  }

  /** Puts letters into the dead letters as a consumer would write them. */
  async bury(count: number, change: (i: number) => Partial<Buried> = () => ({})): Promise<void> {
    for (let i = 0; i < count; i++) {
      const letter = { ...BURIED, id: `m-${i}`, body: { i } as unknown, ...change(i) }
      this.put(this.dead, letter.body, propertiesOf(this.queue, letter))
    }
    await this.confirmed()
  }

  /** Publishes as it is, by a plain client. */
  put(queue: string, body: unknown, options: Options.Publish = {}): void {
    this.channel.sendToQueue(queue, Buffer.isBuffer(body) ? body : Buffer.from(JSON.stringify(body)), {
      persistent: true,
      ...options,
    })
  }

  async confirmed(): Promise<void> {
    await (this.channel as Channel & { waitForConfirms(): Promise<void> }).waitForConfirms()
  }

  async count(queue = this.dead): Promise<number> {
    return (await this.channel.checkQueue(queue)).messageCount
  }

  /** Waits until the queue holds so many. */
  async holds(count: number, queue = this.dead): Promise<void> {
    await eventually(
      async () => {
        const found = await this.count(queue)
        if (found !== count) throw new Error(`${queue} holds ${found}`)
      },
      { what: `${count} in ${queue}` },
    )
  }

  async close(): Promise<void> {
    await this.#model.close()
    await this.surehop.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }
}

interface Buried {
  readonly id: string | undefined
  readonly body: unknown
  readonly type: string
  readonly error: string
  readonly message: string
  readonly fingerprint: string
  readonly reason: string
  readonly generation: number
  readonly deadAt: number
  readonly headers: Record<string, unknown>
}

const BURIED: Omit<Buried, 'id' | 'body'> = {
  type: 'order.placed',
  error: 'TimeoutError',
  message: 'no answer from the warehouse in 5000 ms',
  fingerprint: 'aaaabbbbcccc',
  reason: 'failed 8 times',
  generation: 0,
  deadAt: Date.UTC(2025, 5, 30, 12),
  headers: {},
}

function propertiesOf(queue: string, letter: Omit<Buried, 'body'>): Options.Publish {
  const { id, type, error, message, fingerprint, reason, generation, deadAt, headers } = letter
  return {
    ...(id === undefined ? {} : { messageId: id }),
    type,
    contentType: 'application/json',
    timestamp: Math.floor(deadAt / 1_000) - 60,
    appId: 'shop',
    headers: {
      ...(id === undefined ? {} : { [HEADER.transactionId]: `t-${id}` }),
      [HEADER.attempt]: 8,
      [HEADER.generation]: generation,
      [HEADER.exchange]: 'shop.events',
      [HEADER.routingKey]: type,
      [HEADER.reason]: reason,
      [HEADER.errorType]: error,
      [HEADER.errorMessage]: message,
      [HEADER.errorFingerprint]: fingerprint,
      [HEADER.errorStack]: 'at reserve (stock.ts:10:5)',
      [HEADER.queue]: queue,
      [HEADER.service]: 'inventory',
      [HEADER.host]: 'host-1',
      [HEADER.firstFailedAt]: deadAt - 30_000,
      [HEADER.lastFailedAt]: deadAt,
      [HEADER.deadAt]: deadAt,
      ...headers,
    },
  }
}

/** All of an async iteration. */
export async function all<T>(source: AsyncIterable<T>): Promise<T[]> {
  const items: T[] = []
  for await (const item of source) items.push(item)
  return items
}

export async function ids(source: AsyncIterable<Letter>): Promise<string[]> {
  return (await all(source)).map(({ id }) => id)
}
