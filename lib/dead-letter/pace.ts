/** Spreads work evenly over time, and bounds what is under way. */
import { type Deferred, deferred, pause } from '../deadline.ts'

/** After a stall so much is caught up at once, ms: timers are coarse, and a burst must stay small. */
const CATCH_UP_MS = 50

/** At most `perSecond` turns, evenly; 0 means without limit. */
export class Pace {
  readonly #gapMs: number
  #nextAt = 0

  constructor(perSecond: number) {
    this.#gapMs = perSecond > 0 ? 1_000 / perSecond : 0
  }

  /** Waits for the next turn, or until the signal fires. */
  async turn(signal?: AbortSignal): Promise<void> {
    if (this.#gapMs === 0) return
    const now = performance.now()
    this.#nextAt = Math.max(this.#nextAt, now - CATCH_UP_MS) + (this.#nextAt === 0 ? CATCH_UP_MS : this.#gapMs)
    const waitMs = this.#nextAt - now
    if (waitMs >= 1) await pause(waitMs, signal)
  }
}

/** At most so many tasks and bytes under way; a single larger one goes alone. */
export class Window {
  readonly #tasks: number
  readonly #bytes: number
  #running = 0
  #runningBytes = 0
  #change: Deferred<void> = deferred()

  constructor(limit: { readonly tasks: number; readonly bytes: number }) {
    this.#tasks = limit.tasks
    this.#bytes = limit.bytes
  }

  /** Starts a task as soon as there is room; resolves when it has started. The task must not reject. */
  async start(bytes: number, task: () => Promise<void>): Promise<void> {
    while (this.#running > 0 && (this.#running >= this.#tasks || this.#runningBytes + bytes > this.#bytes))
      await this.#change.promise
    this.#running++
    this.#runningBytes += bytes
    void task().finally(() => {
      this.#running--
      this.#runningBytes -= bytes
      this.#change.resolve()
      this.#change = deferred()
    })
  }

  /** Resolves when nothing is under way. */
  async drained(): Promise<void> {
    while (this.#running > 0) await this.#change.promise
  }
}
