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

/** Of a stretch of messages, client side only: CPU is user and system time of the child process, per message. */
type FigureOfWork = 'perSecond' | 'cpuUs' | 'peakRssMb'
/** How long something took, or was late. */
type FigureOfTime =
  | 'p50Ms'
  | 'p99Ms'
  | 'maxMs'
  | 'beyondP50Ms'
  | 'beyondP99Ms'
  | 'beyondMaxMs'
  | 'countMs'
  | 'pageMs'
  | 'groupMs'
/** Messages; none of them should be. */
type FigureOfFault = 'early' | 'lost' | 'twice' | 'letters'
/** Of the first tenth, of the last tenth, or at their end. */
type FigureOfGrowth =
  | 'firstPerSecond'
  | 'lastPerSecond'
  | 'lastToFirst'
  | 'firstRssMb'
  | 'lastRssMb'
  | 'firstHeapMb'
  | 'lastHeapMb'
/** Of Redis, per id. */
type FigureOfMemory = 'bytes' | 'compactBytes' | 'redisBytes'

/** What is measured. */
export type Figure = FigureOfWork | FigureOfTime | FigureOfFault | FigureOfGrowth | FigureOfMemory

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
