/**
 * When a relay looks next: at once while there is much, soon after there was something or a hint came, ever later while there is
 * nothing, at the latest after `pollMs`. Looking is the truth; hints only make it sooner, and they come before the commit they
 * tell of: so a hint begins a sequence of looks anew, 2, 4, 8, 16 ... ms apart.
 *
 * Promises: waits on one timer and ends early when woken; looks take at most half of the time unless much is found.
 */
import { MAX_TIMER_MS } from '../deadline.ts'

const FIRST_MS = 2
/** Of the time a look took: the least pause after it. */
const SHARE = 1

/** When one loop looks, and its rest in between. */
export class Pace {
  readonly #pollMs: number
  #nextMs = FIRST_MS
  #leastMs = 0
  #lookedAt = Number.NEGATIVE_INFINITY
  #ring: (() => void) | undefined
  #woken = false
  #restsUntil = Number.NEGATIVE_INFINITY

  constructor(pollMs: number) {
    this.#pollMs = pollMs
  }

  /** When the next look is due, on the monotonic clock. */
  get dueAt(): number {
    return this.#lookedAt + Math.max(this.#nextMs, this.#leastMs)
  }

  /** A look has ended. */
  looked(tookMs: number, found: 'nothing' | 'some' | 'much'): void {
    this.#lookedAt = performance.now()
    this.#leastMs = found === 'much' ? 0 : Math.min(this.#pollMs, tookMs * SHARE)
    this.#nextMs =
      found === 'much' ? 0 : Math.min(this.#pollMs, found === 'some' ? FIRST_MS : this.#nextMs * 2 || FIRST_MS)
  }

  /** There may be something: the quick sequence begins anew. */
  hint(): void {
    this.#nextMs = FIRST_MS / 2
    if (this.dueAt < this.#restsUntil) this.wake()
  }

  /** Ends the wait under way, or the next one. */
  wake(): void {
    this.#woken = true
    this.#ring?.()
  }

  /** Waits until that time of the monotonic clock, or until woken. */
  async until(at: number): Promise<void> {
    this.#restsUntil = at
    if (!this.#woken) await this.#rung(at - performance.now())
    this.#restsUntil = Number.NEGATIVE_INFINITY
    this.#woken = false
  }

  #rung(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer)
        this.#ring = undefined
        resolve()
      }
      const timer = setTimeout(done, Math.min(MAX_TIMER_MS, Math.max(0, ms))).unref()
      this.#ring = done
    })
  }
}

const PAUSE_BASE_MS = 100
const PAUSE_CAP_MS = 5_000

/** How long to leave a database alone that failed so many times in a row, ms. */
export function pauseAfter(failures: number): number {
  const ceiling = Math.min(PAUSE_CAP_MS, PAUSE_BASE_MS * 2 ** Math.min(failures - 1, 16))
  return ceiling * (0.5 + Math.random() / 2)
}
