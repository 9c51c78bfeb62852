/**
 * How those who publish faster than the broker takes are slowed down: by refusal or, if they ask, by waiting for room.
 * Promises: no more than `maxWaiting` messages of `maxWaitingBytes` wait to be sent (one larger than that waits alone); who waits for a
 * change hears of the next.
 * Does NOT bound what is on the wire: that is the window, see `confirms.ts`.
 */
import { within } from '../deadline.ts'
import { Closed } from '../errors.ts'
import type { Confirms, Window } from './confirms.ts'

/** Bounds of one publisher. */
export interface Bounds extends Window {
  /** Publishes that may wait for the window or the broker; the next is refused at once. */
  readonly maxWaiting: number
  /** Bytes of bodies that may wait. Default no limit. */
  readonly maxWaitingBytes?: number
}

/** What one publisher may let wait, and who waits for room there. */
export class Backpressure {
  readonly #bounds: Bounds
  readonly #confirms: Confirms
  readonly #waiting = new Set<() => void>()

  constructor(bounds: Bounds, confirms: Confirms) {
    this.#bounds = bounds
    this.#confirms = confirms
  }

  /** @returns why one more message of so many bytes may not wait, if so */
  refusal(bytes: number): string | undefined {
    const { maxWaiting, maxWaitingBytes = Number.POSITIVE_INFINITY } = this.#bounds
    const { waitingCount, waitingBytes } = this.#confirms
    if (waitingCount >= maxWaiting)
      return `${maxWaiting} publishes wait already (maxWaiting): slow down, or use publishMany()`
    if (waitingCount > 0 && waitingBytes + bytes > maxWaitingBytes)
      return `publishes of ${waitingBytes} bytes wait already (maxWaitingBytes): slow down, or use publishMany()`
    return undefined
  }

  /** A window's messages wait to be sent. */
  get crowded(): boolean {
    const { windowMessages, windowBytes, maxWaiting } = this.#bounds
    const { waitingCount, waitingBytes } = this.#confirms
    return waitingCount >= Math.min(windowMessages, maxWaiting) || waitingBytes >= windowBytes
  }

  /** Resolves when something was sent or has ended. */
  change(): Promise<void> {
    return new Promise((resolve) => this.#waiting.add(resolve))
  }

  /** The same, but waits no longer than until then, by `performance.now()`. */
  async changeBy(until: number): Promise<void> {
    await within(this.change(), until - performance.now(), () => new Closed('')).catch(() => {})
  }

  /** Something was sent or has ended. */
  changed(): void {
    if (this.#waiting.size === 0) return
    const waiting = [...this.#waiting]
    this.#waiting.clear()
    for (const resolve of waiting) resolve()
  }
}
