/**
 * One timer for the deadlines of many publishes: it is set for the earliest, and set anew for the rest when that has come.
 * Promises: what is open when its deadline passes is told then, or as soon after as Node's timers allow; never before. The timer
 * alone keeps no process alive.
 * Does NOT forget a deadline when its publish ends: the timer then finds nothing to tell, which costs less than to keep count.
 */
import { MAX_TIMER_MS } from '../deadline.ts'

/** What must end by then, by `performance.now()`. */
export interface Due {
  readonly deadlineAt: number
}

/** The deadlines of whatever is open. */
export class Deadlines<D extends Due> {
  readonly #open: () => readonly D[]
  readonly #passed: (late: readonly D[]) => void
  #timer: NodeJS.Timeout | undefined
  #timerAt = Number.POSITIVE_INFINITY

  /** @param passed is called whenever the timer went off, perhaps with none */
  constructor(open: () => readonly D[], passed: (late: readonly D[]) => void) {
    this.#open = open
    this.#passed = passed
  }

  add({ deadlineAt }: D): void {
    if (deadlineAt < this.#timerAt) this.#set(deadlineAt)
  }

  stop(): void {
    clearTimeout(this.#timer)
  }

  #set(at: number): void {
    clearTimeout(this.#timer)
    this.#timerAt = at
    this.#timer = setTimeout(() => this.#sweep(), Math.min(MAX_TIMER_MS, Math.max(0, at - performance.now())))
    this.#timer.unref()
  }

  /** The timer is set before anybody is told: who is told may publish again at once, with a deadline of its own. */
  #sweep(): void {
    const now = performance.now()
    const late: D[] = []
    let next = Number.POSITIVE_INFINITY
    for (const one of this.#open()) {
      if (one.deadlineAt <= now) late.push(one)
      else next = Math.min(next, one.deadlineAt)
    }
    this.#timerAt = Number.POSITIVE_INFINITY
    if (Number.isFinite(next)) this.#set(next)
    this.#passed(late)
  }
}
