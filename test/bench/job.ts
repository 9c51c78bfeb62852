/** What the parent asks of one child process, and what the child measured. */

/** One contestant's run. */
export interface Job {
  readonly contestant: string
  readonly amqpUrl: string
  readonly redisUrl: string
  readonly queue: string
  /** Messages before the measuring begins: the code is compiled and the windows are full by then. */
  readonly warmup: number
  /** Messages measured. */
  readonly messages: number
  readonly bodyBytes: number
  /** Publishing: messages sent and not yet confirmed. */
  readonly inFlight: number
  /** Consuming: unacked deliveries. */
  readonly prefetch: number
  /** Consuming: Surehop's handlers at a time. */
  readonly concurrency: number
}

/** Client side only: CPU is user and system time of the child process. */
export interface Measured {
  readonly perSecond: number
  readonly cpuUs: number
  readonly peakRssMb: number
}

/** Counts messages, and measures from the end of the warm-up to the last. */
export class Meter {
  /** Resolves with the figures at the last message. */
  readonly done: Promise<Measured>
  readonly #job: Job
  #resolve!: (measured: Measured) => void
  #count = 0
  #began = 0n
  #cpu: NodeJS.CpuUsage = { user: 0, system: 0 }

  constructor(job: Job) {
    this.#job = job
    this.done = new Promise((resolve) => {
      this.#resolve = resolve
    })
  }

  /** One more message is confirmed, or handled. */
  count(): void {
    this.#count++
    if (this.#count === this.#job.warmup) this.#begin()
    if (this.#count === this.#job.warmup + this.#job.messages) this.#end()
  }

  #begin(): void {
    this.#began = process.hrtime.bigint()
    this.#cpu = process.cpuUsage()
  }

  #end(): void {
    const { user, system } = process.cpuUsage(this.#cpu)
    const seconds = Number(process.hrtime.bigint() - this.#began) / 1e9
    const { messages } = this.#job
    const peakRssMb = process.resourceUsage().maxRSS / 1024
    this.#resolve({ perSecond: messages / seconds, cpuUs: (user + system) / messages, peakRssMb })
  }
}
