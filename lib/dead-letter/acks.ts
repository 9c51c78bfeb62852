/**
 * Gathers the acks of one channel: those without a gap go out as one (`multiple`), which costs the broker one step instead of
 * many; the rest one by one. Promises: no letter that was not settled is acked. Pure but for the two callbacks.
 */

/** Acks one tag, or all up to it. */
export type Send = (tag: number, multiple: boolean) => void

/** So many tags acked out of turn are remembered; beyond, acks go out one by one from then on. */
const OUT_OF_TURN_MAX = 20_000

/** Acks of one channel, gathered where no gap is between them. */
export class Acks {
  readonly #send: Send
  readonly #schedule: (flush: () => void) => void
  /** Settled, not acked yet. */
  readonly #settled = new Set<number>()
  /** Acked before a lower tag. */
  readonly #outOfTurn = new Set<number>()
  /** The lowest tag not acked. A channel counts its deliveries from 1. */
  #lowest = 1
  #scheduled = false

  constructor(send: Send, schedule: (flush: () => void) => void = setImmediate) {
    this.#send = send
    this.#schedule = schedule
  }

  /** The letter of this tag is done with. */
  settle(tag: number): void {
    this.#settled.add(tag)
    if (this.#scheduled) return
    this.#scheduled = true
    this.#schedule(() => this.flush())
  }

  /** Sends what waits. */
  flush(): void {
    this.#scheduled = false
    let upTo = 0
    for (; ; this.#lowest++) {
      if (this.#settled.delete(this.#lowest)) upTo = this.#lowest
      else if (!this.#outOfTurn.delete(this.#lowest)) break
    }
    if (upTo > 0) this.#send(upTo, true)
    for (const tag of this.#settled) {
      this.#send(tag, false)
      if (this.#outOfTurn.size < OUT_OF_TURN_MAX) this.#outOfTurn.add(tag)
    }
    this.#settled.clear()
  }
}
