// What rows there is time for, in a run that must be over at a certain time.
//
// Promises: no row begins that would take longer than the longest before it took, if that is more than is left; one that is in work when
// the time is up is told so, and is not waited for. Without a limit, all is waited for.

import { setTimeout as pause } from 'node:timers/promises'

/** See the head of this file. */
export class TimeLimit {
  readonly #until: number
  #longestMs = 0

  /** @param until ms of this process; infinite: none */
  constructor(until: number) {
    this.#until = until
  }

  /** For another row, as far as anybody knows. */
  hasTime(): boolean {
    return performance.now() + this.#longestMs < this.#until
  }

  /** @returns undefined when the time was up before */
  async atMost<T>(row: Promise<T>): Promise<T | undefined> {
    if (this.#until === Number.POSITIVE_INFINITY) return row
    const began = performance.now()
    const done = new AbortController()
    const timeIsUp = pause(this.#until - began, undefined, { signal: done.signal }).catch(() => undefined)
    const result = await Promise.race([row, timeIsUp])
    done.abort()
    this.#longestMs = Math.max(this.#longestMs, performance.now() - began)
    return result
  }
}
