// What rows there is time for, in a run that must be over at a certain time.
//
// Promises: no row begins when less is left than the shortest before took; one that is in work when the time is up is not waited for,
// and that is said. For the first few rows, without which a run proves nothing, it may have more patience. Without a limit, all is waited for.

import { setTimeout as pause } from 'node:timers/promises'

/** For so many rows from the first on, more time. */
export interface Patience {
  readonly rows: number
  /** ms of this process. */
  readonly until: number
}

/** See the head of this file. */
export class TimeLimit {
  readonly #usual: number
  readonly #patience: Patience
  #rows = 0
  #shortestMs = Number.POSITIVE_INFINITY

  /** @param until ms of this process; infinite: none */
  constructor(until: number, patience: Patience = { rows: 0, until }) {
    this.#usual = until
    this.#patience = patience
  }

  get #until(): number {
    return this.#rows < this.#patience.rows ? this.#patience.until : this.#usual
  }

  /** For another row, as far as anybody knows. */
  hasTime(): boolean {
    const least = Number.isFinite(this.#shortestMs) ? this.#shortestMs : 0
    return performance.now() + least < this.#until
  }

  /** @returns undefined when the time was up before */
  async atMost<T>(row: Promise<T>): Promise<T | undefined> {
    const until = this.#until
    if (until === Number.POSITIVE_INFINITY) return row
    const began = performance.now()
    const done = new AbortController()
    // A timer drops the fraction, and may be early by one more.
    const leftMs = Math.ceil(until - began) + 1
    const timeIsUp = pause(leftMs, undefined, { signal: done.signal }).catch(() => undefined)
    const result = await Promise.race([row, timeIsUp])
    done.abort()
    this.#rows++
    this.#shortestMs = Math.min(this.#shortestMs, performance.now() - began)
    return result
  }
}
