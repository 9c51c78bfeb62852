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

  /** False: it never waits. */
  get limited(): boolean {
    return this.#gapMs > 0
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

/** At most so many letters and bytes under way; a single larger one goes alone. */
export class Window {
  readonly #count: number
  readonly #bytes: number
  #inside = 0
  #insideBytes = 0
  #left: Deferred<void> | undefined

  constructor(limit: { readonly count: number; readonly bytes: number }) {
    this.#count = limit.count
    this.#bytes = limit.bytes
  }

  /** One more may enter. */
  fits(bytes: number): boolean {
    return this.#inside === 0 || (this.#inside < this.#count && this.#insideBytes + bytes <= this.#bytes)
  }

  /** Resolves when one more may enter. */
  async room(bytes: number): Promise<void> {
    while (!this.fits(bytes)) await this.#change()
  }

  enter(bytes: number): void {
    this.#inside++
    this.#insideBytes += bytes
  }

  leave(bytes: number): void {
    this.#inside--
    this.#insideBytes -= bytes
    this.#left?.resolve()
    this.#left = undefined
  }

  /** Starts a task as soon as there is room; resolves when it has started. The task must not reject. */
  async start(bytes: number, task: () => Promise<void>): Promise<void> {
    await this.room(bytes)
    this.enter(bytes)
    void task().finally(() => this.leave(bytes))
  }

  /** Resolves when nothing is under way. */
  async drained(): Promise<void> {
    while (this.#inside > 0) await this.#change()
  }

  #change(): Promise<void> {
    this.#left ??= deferred()
    return this.#left.promise
  }
}
