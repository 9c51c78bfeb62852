// A narrow line that several connections share: says when the next bytes may go.
//
// Promises: no more than the rate on average, first come first served; an idle line saves nothing up.

import { setTimeout as pause } from 'node:timers/promises'

const SLICES_PER_SECOND = 20

export class Bandwidth {
  readonly #bytesPerSecond: number
  #freeAt = 0

  constructor(bytesPerSecond: number) {
    this.#bytesPerSecond = bytesPerSecond
  }

  /** The bytes in pieces of at most a twentieth of a second each. */
  *slicesOf(bytes: Buffer): Generator<Buffer> {
    const length = Math.max(1, Math.floor(this.#bytesPerSecond / SLICES_PER_SECOND))
    for (let from = 0; from < bytes.length; from += length) yield bytes.subarray(from, from + length)
  }

  /** Waits until this many bytes have had their time on the line. */
  async pass(count: number): Promise<void> {
    const now = performance.now()
    this.#freeAt = Math.max(now, this.#freeAt) + (count / this.#bytesPerSecond) * 1_000
    await pause(this.#freeAt - now)
  }
}
