/**
 * When a relay looks next: at once while there is much, soon after there was something or a hint came, ever later while there is
 * nothing, at the latest after `pollMs`. Looking is the truth; hints only make it sooner. One that comes before the commit it tells of
 * begins a sequence of looks anew, 2, 4, 8, 16 ... ms apart; one that comes after it asks for a look at once.
 *
 * Promises: waits on one timer and ends early when woken; between two looks are 2 ms, and as long as a look took where nobody waits,
 * unless much is found.
 */
import { MAX_TIMER_MS } from '../deadline.ts'
import type { Hint } from './hints.ts'

const FIRST_MS = 2
const NEVER = Number.NEGATIVE_INFINITY

/** When one loop looks, and its rest in between. */
export class Pace {
  readonly #pollMs: number
  #stepMs = FIRST_MS
  #dueAt = NEVER
  #lookedAt = NEVER
  /** Came since the latest look began. */
  #hint: Hint | undefined
  #ring: (() => void) | undefined
  #woken = false
  #restsUntil = NEVER

  constructor(pollMs: number) {
    this.#pollMs = pollMs
  }

  /** When the next look is due, on the monotonic clock. */
  get dueAt(): number {
    return this.#dueAt
  }

  /** A look begins: what is hinted from now on it may miss. */
  looking(): void {
    this.#hint = undefined
  }

  /** A look has ended. */
  looked(tookMs: number, found: 'nothing' | 'some' | 'much'): void {
    const now = performance.now()
    this.#lookedAt = now
    const again = found === 'some' || this.#hint !== undefined
    this.#stepMs = Math.min(this.#pollMs, again ? FIRST_MS : this.#stepMs * 2)
    this.#dueAt = found === 'much' ? now : now + Math.max(this.#stepMs, Math.min(this.#pollMs, tookMs))
    if (this.#hint) this.#hasten(this.#hint)
  }

  /** There may be something. */
  hint(hint: Hint): void {
    this.#hint = this.#hint === 'committed' ? 'committed' : hint
    this.#stepMs = Math.min(FIRST_MS, this.#pollMs)
    this.#hasten(hint)
    if (this.#dueAt < this.#restsUntil) this.wake()
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
    this.#restsUntil = NEVER
    this.#woken = false
  }

  #hasten(hint: Hint): void {
    const now = performance.now()
    const soonest = hint === 'committed' ? Math.max(now, this.#lookedAt + FIRST_MS) : now + FIRST_MS
    this.#dueAt = Math.min(this.#dueAt, soonest)
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
