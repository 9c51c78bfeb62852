/**
 * Decides which of the waiting jobs run now: at most `concurrency` at a time, jobs of one key one after another in the
 * order they came, other keys in parallel. Knows no broker.
 *
 *     waiting ──slot free, key free──▶ running ⇄ resting (no slot, keeps its key) ──▶ ended
 *        │                                └──leave()──▶ leaving (the same, needs none any more) ──▶ ended
 *        └──dropWaiting()──▶ dropped                     after halt() nothing that waits ever runs
 *
 * Does NOT promise a bound on what waits: the broker's prefetch is that bound.
 */

/** One thing to be run, with the key that orders it. */
export interface Job {
  /** Jobs of one key never overlap and keep their order. */
  readonly key: string
  run(slot: Slot): Promise<unknown>
  /** Called instead of `run` for a job that is dropped. */
  drop?(): void
}

/** What a job holds while it runs. */
export interface Slot {
  /** Gives it to others during a wait that needs none, keeps the key, and takes a slot again afterwards. */
  rest(wait: () => Promise<void>): Promise<void>
  /** Gives it up for good, unless as many as may run have left and not ended. */
  leave(): void
}

/** Nobody waits behind the one whose key it is; nothing is ever put in here. */
const NOBODY: Job[] = []

/** What becomes of a slot. */
interface Held {
  holds: boolean
  left: boolean
}

/** The jobs of one consumer. */
export class InFlight {
  readonly #concurrency: number
  /** Per key that is taken: the jobs behind the one that is ready, running or resting. */
  readonly #behind = new Map<string, Job[]>()
  readonly #ready: Job[] = []
  /** Jobs that have rested and want a slot again; before all that have not started. */
  readonly #rested: (() => void)[] = []
  #running = 0
  /** Jobs without a slot that have not ended: they rest, or are leaving. */
  #resting = 0
  /** Those among them that are leaving: what they have done has no record yet, so that there must not be any number of them. */
  #leaving = 0
  #halted = false
  #idle: (() => void)[] = []

  constructor(concurrency: number) {
    this.#concurrency = concurrency
  }

  /** Jobs running now. */
  get running(): number {
    return this.#running
  }

  /** Jobs taken and not ended. */
  get size(): number {
    let behind = 0
    for (const jobs of this.#behind.values()) behind += jobs.length
    return this.#running + this.#resting + this.#ready.length + behind
  }

  add(job: Job): void {
    const behind = this.#behind.get(job.key)
    if (behind === undefined) {
      this.#behind.set(job.key, NOBODY)
      this.#ready.push(job)
      this.#fill()
    } else if (behind === NOBODY) this.#behind.set(job.key, [job])
    else behind.push(job)
  }

  /** Starts no more, from this moment. Jobs that rest go on when they have rested. */
  halt(): void {
    this.#halted = true
    this.#fill()
  }

  /** Drops what has not started; jobs of one key in their order. */
  dropWaiting(): void {
    const ready = this.#ready.splice(0)
    const dropped = ready.flatMap((job) => [job, ...this.#behind.get(job.key)!])
    for (const { key } of ready) this.#behind.delete(key)
    for (const jobs of this.#behind.values()) dropped.push(...jobs.splice(0))
    for (const job of dropped) job.drop?.()
  }

  /** Resolves when nothing runs and nothing rests. */
  async drained(): Promise<void> {
    while (this.#running + this.#resting > 0) await new Promise<void>((resolve) => this.#idle.push(resolve))
  }

  #fill(): void {
    while (this.#rested.length > 0 && (this.#halted || this.#running < this.#concurrency)) {
      this.#running++
      this.#resting--
      this.#rested.shift()!()
    }
    while (!this.#halted && this.#running < this.#concurrency && this.#ready.length > 0)
      this.#start(this.#ready.shift()!)
  }

  #start(job: Job): void {
    this.#running++
    const slot = new HeldSlot(this)
    const ended = () => {
      if (slot.left) this.#leaving--
      if (slot.holds) this.#running--
      else this.#resting--
      this.#ended(job)
    }
    job.run(slot).then(ended, ended)
  }

  /** For its slots. */
  leave(slot: Held): void {
    if (!slot.holds || this.#leaving >= this.#concurrency) return
    slot.left = true
    this.#leaving++
    this.#give(slot)
  }

  /** For its slots. */
  async rest(slot: Held, wait: () => Promise<void>): Promise<void> {
    if (slot.left) this.#leaving--
    slot.left = false
    if (slot.holds) this.#give(slot)
    await wait()
    await new Promise<void>((resume) => {
      this.#rested.push(resume)
      this.#fill()
    })
    slot.holds = true
  }

  #give(slot: Held): void {
    slot.holds = false
    this.#running--
    this.#resting++
    this.#fill()
  }

  #ended(job: Job): void {
    const next = this.#behind.get(job.key)!.shift()
    if (next) this.#ready.push(next)
    else this.#behind.delete(job.key)
    this.#fill()
    if (this.#running + this.#resting > 0) return
    const idle = this.#idle.splice(0)
    for (const resolve of idle) resolve()
  }
}

/** A class, not closures: one is made for each message. */
class HeldSlot implements Slot {
  holds = true
  left = false
  readonly #flight: InFlight

  constructor(flight: InFlight) {
    this.#flight = flight
  }

  rest(wait: () => Promise<void>): Promise<void> {
    return this.#flight.rest(this, wait)
  }

  leave(): void {
    this.#flight.leave(this)
  }
}
