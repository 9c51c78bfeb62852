/** What the parent asks of one child process, and what the child measured. */

/** One contestant's run. */
export interface Job {
  readonly contest: string
  readonly contestant: string
  readonly amqpUrl: string
  readonly redisUrl: string
  readonly databaseUrl: string
  readonly queue: string
  /** Name of a Postgres schema that nobody else uses; whoever needs it makes it. */
  readonly schema: string
  /** Messages (or transactions) before the measuring begins: the code is compiled and the windows are full by then. */
  readonly warmup: number
  /** Messages (or transactions) measured. */
  readonly messages: number
  readonly bodyBytes: number
  /** Publishing: messages sent and not yet confirmed. */
  readonly inFlight: number
  /** Consuming: unacked deliveries. */
  readonly prefetch: number
  /** Consuming: Surehop's handlers at a time. */
  readonly concurrency: number
  /** Outbox: how many keys the messages have; 0: none has one. */
  readonly keys: number
  /** Outbox: connections that write. */
  readonly connections: number
}

/** What is measured, client side only: CPU is user and system time of the child process. */
export type Figure = 'perSecond' | 'cpuUs' | 'peakRssMb' | 'p50Ms' | 'p99Ms' | 'maxMs'

/** Each contest says which figures its contestants have. */
export type Measured = Readonly<Partial<Record<Figure, number>>>

/** Measures so many messages, from now on. */
export function stopwatch(messages: number): () => Measured {
  const began = process.hrtime.bigint()
  const cpu = process.cpuUsage()
  return () => {
    const { user, system } = process.cpuUsage(cpu)
    const seconds = Number(process.hrtime.bigint() - began) / 1e9
    const peakRssMb = process.resourceUsage().maxRSS / 1024
    return { perSecond: messages / seconds, cpuUs: (user + system) / messages, peakRssMb }
  }
}

/** Counts messages, and measures from the end of the warm-up to the last. */
export class Meter {
  /** Resolves with the figures at the last message. */
  readonly done: Promise<Measured>
  readonly #job: Job
  #resolve!: (measured: Measured) => void
  #count = 0
  #stop: () => Measured = () => ({})

  constructor(job: Job) {
    this.#job = job
    this.done = new Promise((resolve) => {
      this.#resolve = resolve
    })
  }

  /** One more message is confirmed, or handled. */
  count(): void {
    const { warmup, messages } = this.#job
    this.#count++
    if (this.#count === warmup) this.#stop = stopwatch(messages)
    if (this.#count === warmup + messages) this.#resolve(this.#stop())
  }
}
