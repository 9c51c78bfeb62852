/**
 * Decides which of the waiting jobs run now: at most `concurrency` at a time, jobs of one key one after another in the
 * order they came, other keys in parallel. Knows no broker.
 */

export interface Job {
  /** Jobs of one key never overlap and keep their order. */
  readonly key: string
  /** Must not reject. Waits that need no slot go through `rest`. */
  readonly run: (rest: Rest) => Promise<void>
  /** Called instead of `run` for a job that shall not start any more. */
  readonly drop?: () => void
}

/** Gives the job's slot to others while it waits, keeps its key, and takes a slot again afterwards. */
export type Rest = (wait: () => Promise<void>) => Promise<void>

/** The jobs of one consumer. */
export class InFlight {
  readonly #concurrency: number
  readonly #queues = new Map<string, Job[]>()
  readonly #ready: Job[] = []
  /** Jobs that have rested and want a slot again; before all that have not started. */
  readonly #rested: (() => void)[] = []
  #running = 0
  #resting = 0
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
    let waiting = 0
    for (const queue of this.#queues.values()) waiting += queue.length
    return this.#running + this.#resting + this.#ready.length + waiting
  }

  add(job: Job): void {
    const queue = this.#queues.get(job.key)
    if (queue) {
      queue.push(job)
      return
    }
    this.#queues.set(job.key, [])
    this.#ready.push(job)
    this.#fill()
  }

  /** Starts no more; what has not started is dropped. */
  halt(): void {
    this.#halted = true
    const waiting = [...this.#ready.splice(0), ...[...this.#queues.values()].flatMap((queue) => queue.splice(0))]
    for (const job of waiting) job.drop?.()
  }

  /** Resolves when nothing runs and nothing rests. */
  async drained(): Promise<void> {
    while (this.#running + this.#resting > 0) await new Promise<void>((resolve) => this.#idle.push(resolve))
  }

  #fill(): void {
    while (!this.#halted && this.#running < this.#concurrency && this.#ready.length > 0)
      this.#start(this.#ready.shift()!)
  }

  #start(job: Job): void {
    this.#running++
    void job.run((wait) => this.#rest(wait)).then(() => this.#ended(job))
  }

  async #rest(wait: () => Promise<void>): Promise<void> {
    this.#running--
    this.#resting++
    this.#fill()
    await wait()
    await new Promise<void>((resume) => {
      this.#rested.push(() => {
        this.#resting--
        this.#running++
        resume()
      })
      this.#fill()
    })
  }

  #ended(job: Job): void {
    this.#running--
    const queue = this.#queues.get(job.key)
    const next = queue?.shift()
    if (next) this.#ready.push(next)
    else this.#queues.delete(job.key)
    this.#fill()
    if (this.#running + this.#resting > 0) return
    const idle = this.#idle
    this.#idle = []
    for (const resolve of idle) resolve()
  }
}
