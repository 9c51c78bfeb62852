/**
 * One leg of a reader: a channel with one consumer on it, which takes letters and keeps them until they are acked or it is closed.
 * Promises: a letter is acked at most once, on the channel it came on, and only while that is open; losing the channel is told.
 */
import type { Channel } from 'amqplib'
import { type Connection, closeChannel } from '../connection/connection.ts'
import { ChannelLost, textOf } from '../errors.ts'
import type { RawDelivery } from '../message.ts'
import { Acks } from './acks.ts'

/** A letter in hand: ack it, or let it go back when the reader closes. */
export interface Taken {
  readonly raw: RawDelivery
  /** @returns false when its channel is gone: the letter is back in the queue */
  ack(): boolean
}

/** What a leg tells its reader. */
export interface LegListener {
  took(taken: Taken): void
  settled(): void
  lost(reason: Error): void
}

/** One stretch of reading, on a channel of its own. */
export class Leg {
  readonly prefetch: number
  readonly #connection: Connection
  readonly #queue: string
  readonly #listener: LegListener
  #channel: Channel | undefined
  #tag: string | undefined
  #taken = 0
  #unsettled = 0
  #closed = false
  #gone = false
  readonly #acks = new Acks((tag, multiple) => this.#ack(tag, multiple))

  constructor(connection: Connection, queue: string, prefetch: number, listener: LegListener) {
    this.#connection = connection
    this.#queue = queue
    this.prefetch = prefetch
    this.#listener = listener
  }

  /** It gives no more, or a larger one would do better. */
  spent(ideal: number): boolean {
    return this.#unsettled >= this.prefetch || (this.#taken >= this.prefetch && ideal >= 2 * this.prefetch)
  }

  /** Cancelled, and nothing left to hold. */
  get empty(): boolean {
    return this.#unsettled === 0 && this.#tag === undefined
  }

  async open(): Promise<void> {
    const channel = await this.#connection.openChannel()
    this.#channel = channel
    let reason: Error | undefined
    channel.on('error', (error: Error) => {
      reason = error
    })
    channel.on('close', () => {
      this.#gone = true
      this.#lost(reason)
    })
    await this.#connection.rpc('set the prefetch', () => channel.prefetch(this.prefetch))
    const { consumerTag } = await this.#connection.rpc(`look into queue "${this.#queue}"`, () =>
      channel.consume(this.#queue, (raw) => this.#took(raw as RawDelivery | null), { noAck: false }),
    )
    this.#tag = consumerTag
  }

  /** Ends its consumer and keeps what it took. */
  async cancel(): Promise<void> {
    const tag = this.#tag
    this.#tag = undefined
    if (tag === undefined || this.#closed) return
    await this.#connection.rpc('stop looking', () => this.#channel!.cancel(tag)).catch(() => {})
  }

  /** Letters still ready in the queue. */
  async ready(): Promise<number> {
    const asked = this.#connection.rpc(`look at queue "${this.#queue}"`, () => this.#channel!.checkQueue(this.#queue))
    return (await asked).messageCount
  }

  /** Resolves when the broker has all acks: it takes what comes over a channel in turn. */
  async flushed(): Promise<void> {
    if (this.#closed) return
    this.#acks.flush()
    await this.ready()
  }

  async close(): Promise<void> {
    if (this.#closed) return
    this.#acks.flush()
    this.#closed = true
    if (this.#channel) await closeChannel(this.#channel, this.#connection.options.rpcTimeoutMs)
  }

  #took(raw: RawDelivery | null): void {
    if (raw === null) {
      this.#lost(new Error('the broker cancelled the consumer: was the queue deleted?'))
      return
    }
    const { deliveryTag } = raw.fields
    let acked: boolean | undefined
    this.#taken++
    this.#unsettled++
    const ack = () => {
      acked ??= this.#settle(deliveryTag)
      return acked
    }
    this.#listener.took({ raw, ack })
  }

  #settle(deliveryTag: number): boolean {
    if (this.#closed || this.#gone) return false
    this.#unsettled--
    this.#acks.settle(deliveryTag)
    this.#listener.settled()
    return true
  }

  /** On the channel that delivered, and only while that is open. */
  #ack(deliveryTag: number, multiple: boolean): void {
    if (this.#gone) return
    try {
      this.#channel?.ack({ fields: { deliveryTag } } as Parameters<Channel['ack']>[0], multiple)
    } catch {
      this.#gone = true
    }
  }

  #lost(reason: Error | undefined): void {
    if (this.#closed) return
    const why = reason ? textOf(reason) : 'the connection was lost'
    this.#listener.lost(
      new ChannelLost(`reading queue "${this.#queue}" was cut short: ${why}. What was not done is back in the queue`, {
        cause: reason,
      }),
    )
  }
}
