/**
 * A retry storm: every message fails at its first attempt and asks for a delay of its own, all mixed, through the way any failure
 * takes: the store, a confirmed publish to the delay queues, the ack. One clock tells when it failed and when it came again.
 * Promises to find: an attempt before its time, a message that did not come again, a handler that ran once more than it should.
 */
import { setTimeout as pause } from 'node:timers/promises'
import { connect, type Message, RedisIdempotencyStore, RetryLater, type Surehop } from '../../lib/index.ts'
import { roundedDelayMs } from '../../lib/topology/delay.ts'
import { type Job, type Measured, stopwatch } from './job.ts'
import { type Body, bodyOf } from './outbox-messages.ts'
import { quantiles } from './quantiles.ts'

const SHORTEST_MS = 100
const LONGEST_MS = 60_000
/** Below so many messages a short look is wanted: then no delay is longer than this. */
const SHORT = 20_000
const SHORT_LONGEST_MS = 6_000
/** First attempts not run yet: the storm is as strong as they are handled, not a backlog that every repeat would wait behind. */
const WAITING = 500
/** After the longest delay so much time passes without a sign before the missing ones are called lost. */
const SILENCE_MS = 30_000
/** Stragglers and doubles have so long to show up after the last. */
const LINGER_MS = 3_000
/** How often it is asked whether all have come. */
const LOOK_MS = 100
const GOLDEN = 0.6180339887498949

/** From the shortest to the longest, as many per octave everywhere, neighbours far apart; whole ms. */
function delayOf(n: number, longestMs: number): number {
  return Math.round(SHORTEST_MS * (longestMs / SHORTEST_MS) ** ((n * GOLDEN) % 1))
}

/** Failures a second, and how late they came again. */
export async function retryStorm(job: Job): Promise<Measured> {
  await using surehop = await connect({ amqp: job.amqpUrl, service: 'bench' })
  await using store = new RedisIdempotencyStore({ url: job.redisUrl })
  const storm = new Storm(job.messages)
  const { prefetch, concurrency } = job
  const stop = stopwatch(job.messages)
  await using _ = await surehop.consume<Body>(
    job.queue,
    { prefetch, concurrency, idempotency: store },
    async (message: Message<Body>, { attempt }) => storm.ran(message.body.n, attempt),
  )
  await feed(job, storm, surehop)
  await storm.over()
  const { cpuUs = 0, peakRssMb = 0 } = stop()
  return { cpuUs, peakRssMb, ...storm.figures(await surehop.deadLetters(job.queue).count()) }
}

async function feed(job: Job, storm: Storm, surehop: Surehop): Promise<void> {
  const producer = surehop.producer()
  const fail = (error: unknown) => {
    throw error
  }
  for (let n = 0; n < job.messages; n++) {
    await storm.room(n)
    producer.send(job.queue, { body: bodyOf(n, job) }).catch(fail)
  }
}

class Storm {
  readonly #longestMs: number
  readonly #failedAt: Float64Array
  readonly #cameAt: Float64Array
  readonly #runs: Uint8Array
  readonly #beganAt = performance.now()
  #lastFailureAt = 0
  #failures = 0
  #came = 0
  #signAt = performance.now()
  #wake: (() => void) | undefined

  constructor(messages: number) {
    this.#longestMs = messages < SHORT ? SHORT_LONGEST_MS : LONGEST_MS
    this.#failedAt = new Float64Array(messages)
    this.#cameAt = new Float64Array(messages)
    this.#runs = new Uint8Array(messages)
  }

  /** The handler. @throws RetryLater at the first attempt */
  ran(n: number, attempt: number): void {
    this.#signAt = performance.now()
    this.#runs[n]!++
    this.#wake?.()
    if (attempt === 1) this.#fail(n)
    else this.#again(n)
  }

  #fail(n: number): never {
    this.#failures++
    this.#lastFailureAt = this.#failedAt[n] = performance.now()
    throw new RetryLater(delayOf(n, this.#longestMs))
  }

  #again(n: number): void {
    if (this.#cameAt[n] !== 0) return
    this.#cameAt[n] = performance.now()
    this.#came++
  }

  /** Waits until the message with this number may be sent. */
  async room(n: number): Promise<void> {
    while (n - this.#failures >= WAITING) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
  }

  /** All have come again, or nothing has happened for long. */
  async over(): Promise<void> {
    const patienceMs = roundedDelayMs(this.#longestMs) + SILENCE_MS
    while (this.#came < this.#runs.length && performance.now() - this.#signAt < patienceMs) await pause(LOOK_MS)
    await pause(LINGER_MS)
  }

  /** A letter is a message that did not come again, too; it is counted as lost by itself. */
  figures(letters: number): Measured {
    const came = [...this.#cameAt.keys()].filter((n) => this.#cameAt[n] !== 0)
    const waited = (n: number) => this.#cameAt[n]! - this.#failedAt[n]!
    const late = came.map((n) => waited(n) - delayOf(n, this.#longestMs))
    const beyond = came.map((n) => waited(n) - roundedDelayMs(delayOf(n, this.#longestMs)))
    const [lateAt, beyondAt] = [quantiles(late), quantiles(beyond)]
    return {
      perSecond: this.#failures / ((this.#lastFailureAt - this.#beganAt) / 1_000),
      early: late.filter((ms) => ms < 0).length,
      lost: this.#runs.length - came.length,
      twice: this.#runs.filter((runs) => runs > 2).length,
      letters,
      p50Ms: lateAt(0.5),
      p99Ms: lateAt(0.99),
      maxMs: lateAt(1),
      beyondP50Ms: beyondAt(0.5),
      beyondP99Ms: beyondAt(0.99),
      beyondMaxMs: beyondAt(1),
    }
  }
}
