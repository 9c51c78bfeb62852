/**
 * One hand-over by the broker, bound to the channel it came on.
 *
 *     open ──ack | hand back | reject──▶ settled
 *       └──channel lost──▶ stale         every later settlement is a no-op: the broker delivers it again
 *
 * Promises: settled at most once, and only on its own channel while that is open. (A tag acked on another channel acks a
 * different message there.) Acks given together go out together, before anything else can happen: one for all tags up to which
 * every delivery of the channel is settled, and one each for those beyond.
 */
import { setMaxListeners } from 'node:events'
import type { Channel } from 'amqplib'
import { Chain, type Link } from '../chain.ts'
import type { RawDelivery } from '../message.ts'

/** A channel as deliveries see it: known to be gone the moment it is gone. */
export class Epoch {
  readonly #channel: Channel
  readonly #lost = new AbortController()
  /** The tags of deliveries not settled yet; the broker counts upwards, so the first is the lowest. */
  readonly #unsettled = new Chain<number>()
  /** Given, and not told the broker yet. */
  readonly #acks: RawDelivery[] = []

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

  /** No settlement goes out on this channel any more, after those that were given. */
  end(reason: Error | undefined): void {
    if (this.open) this.#flush()
    this.#lost.abort(reason)
  }

  /** Told of every delivery of the channel, as they come. */
  arrived(raw: RawDelivery): Link<number> {
    return this.#unsettled.add(raw.fields.deliveryTag)
  }

  /** Hand-backs and rejections go out at once, acks in a moment. */
  settle(verb: 'ack' | 'hand-back' | 'reject', raw: RawDelivery, arrival: Link<number>): boolean {
    if (!this.open) return false
    if (verb === 'ack') this.#gather(raw)
    else if (!this.#send(() => this.#channel.nack(amqplibs(raw), false, verb === 'hand-back'))) return false
    this.#unsettled.remove(arrival)
    return true
  }

  /** Answers of one flight settle many deliveries in one go: the microtasks of all of them are queued before this one. */
  #gather(raw: RawDelivery): void {
    if (this.#acks.push(raw) === 1) queueMicrotask(this.#flush)
  }

  readonly #flush = (): void => {
    const acks = this.#acks.splice(0)
    const lowest = this.#unsettled.first?.item ?? Number.POSITIVE_INFINITY
    let last: RawDelivery | undefined
    for (const raw of acks) {
      const { deliveryTag } = raw.fields
      if (deliveryTag > lowest) this.#send(() => this.#channel.ack(amqplibs(raw)))
      else if (!last || deliveryTag > last.fields.deliveryTag) last = raw
    }
    if (last) this.#send(() => this.#channel.ack(amqplibs(last), true))
  }

  #send(tell: () => void): boolean {
    try {
      tell()
      return true
    } catch {
      // amqplib knows of the channel's end before it has told it
      this.#lost.abort()
      return false
    }
  }
}

function amqplibs(raw: RawDelivery): Parameters<Channel['ack']>[0] {
  return raw as unknown as Parameters<Channel['ack']>[0]
}

let made = 0

/** One hand-over by the broker; settled at most once, on its own channel. */
export class Delivery {
  /** Its name in this process. */
  readonly serial = ++made
  readonly raw: RawDelivery
  readonly #epoch: Epoch
  readonly #arrival: Link<number>
  #settled = false

  constructor(raw: RawDelivery, epoch: Epoch) {
    this.raw = raw
    this.#epoch = epoch
    this.#arrival = epoch.arrived(raw)
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
    if (this.#settled || !this.#epoch.settle(verb, this.raw, this.#arrival)) return false
    this.#settled = true
    return true
  }
}
