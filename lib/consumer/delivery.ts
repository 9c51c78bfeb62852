/**
 * One hand-over by the broker, bound to the channel it came on.
 *
 *     open ──ack | hand back | reject──▶ settled
 *       └──channel lost──▶ stale         every later settlement is a no-op: the broker delivers it again
 *
 * Promises: settled at most once, and only on its own channel while that is open. (A tag acked on another channel acks a
 * different message there.)
 */
import { setMaxListeners } from 'node:events'
import type { Channel } from 'amqplib'
import type { RawDelivery } from '../message.ts'

/** A channel as deliveries see it: known to be gone the moment it is gone. */
export class Epoch {
  readonly #channel: Channel
  readonly #lost = new AbortController()

  constructor(channel: Channel) {
    this.#channel = channel
    // Every delivery that waits listens, as many as prefetch allows.
    setMaxListeners(0, this.#lost.signal)
    channel.once('close', () => this.end(undefined))
  }

  get open(): boolean {
    return !this.#lost.signal.aborted
  }

  /** Fires when the channel is lost. */
  get signal(): AbortSignal {
    return this.#lost.signal
  }

  /** No settlement goes out on this channel any more. */
  end(reason: Error | undefined): void {
    this.#lost.abort(reason)
  }

  settle(verb: 'ack' | 'hand-back' | 'reject', raw: RawDelivery): boolean {
    if (!this.open) return false
    try {
      const message = raw as unknown as Parameters<Channel['ack']>[0]
      if (verb === 'ack') this.#channel.ack(message)
      else this.#channel.nack(message, false, verb === 'hand-back')
      return true
    } catch {
      // amqplib knows of the channel's end before it has told it
      this.end(undefined)
      return false
    }
  }
}

let made = 0

/** One hand-over by the broker; settled at most once, on its own channel. */
export class Delivery {
  /** Its name in this process. */
  readonly serial = ++made
  readonly raw: RawDelivery
  readonly #epoch: Epoch
  #settled = false

  constructor(raw: RawDelivery, epoch: Epoch) {
    this.raw = raw
    this.#epoch = epoch
  }

  /** Its channel is gone and it was not settled before: whatever we do, the broker will deliver it again. */
  get stale(): boolean {
    return !this.#settled && !this.#epoch.open
  }

  /** Fires when its channel is lost. */
  get lost(): AbortSignal {
    return this.#epoch.signal
  }

  /** Done with. @returns false when stale or settled before */
  ack(): boolean {
    return this.#settle('ack')
  }

  /** Back to the queue. Counts against the broker's delivery limit on most versions: for shutdown only. */
  handBack(): boolean {
    return this.#settle('hand-back')
  }

  /** To the dead letters by the broker itself, as it is. */
  reject(): boolean {
    return this.#settle('reject')
  }

  #settle(verb: 'ack' | 'hand-back' | 'reject'): boolean {
    if (this.#settled || !this.#epoch.settle(verb, this.raw)) return false
    this.#settled = true
    return true
  }
}
