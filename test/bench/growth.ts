/**
 * Does it stay as it is? One process publishes, and consumes with deduplication, for as many messages as are asked for; the last
 * tenth is compared with the first, and so is the memory. What is waiting in the queue is bounded, so that only what Surehop keeps can grow.
 */
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { Redis } from 'ioredis'
import { connect, RedisIdempotencyStore, type Surehop } from '../../lib/index.ts'
import { type Job, type Measured, stopwatch } from './job.ts'
import { bodyOf } from './pump.ts'
import { usedMemory } from './redis-memory.ts'

const PARTS = 10
/** Published or being published, and not handled yet. */
const WAITING = 2_000
const MB = 1024 * 1024

/** The state when so many messages were handled. */
interface Mark {
  readonly at: number
  readonly rssMb: number
  readonly heapMb: number
}

/** Publishes and consumes at the same time, as fast as it goes. */
export async function growth(job: Job): Promise<Measured> {
  await using surehop = await connect({ amqp: job.amqpUrl, service: 'bench' })
  await using store = new RedisIdempotencyStore({ url: job.redisUrl })
  const flow = new Flow(job)
  const { prefetch, concurrency } = job
  const options = { prefetch, concurrency, idempotency: store }
  await using _ = await surehop.consume(job.queue, options, async () => flow.handled())
  await flow.publish(surehop, job.warmup)
  const redis = new Redis(job.redisUrl)
  const before = await usedMemory(redis)
  flow.begin()
  const stop = stopwatch(job.messages)
  await flow.publish(surehop, job.messages)
  const measured = stop()
  const redisBytes = ((await usedMemory(redis)) - before) / job.messages
  redis.disconnect()
  return { ...measured, ...flow.figures(), redisBytes }
}

class Flow {
  readonly #job: Job
  readonly #content: Buffer
  readonly #collect: () => void
  readonly #marks: Mark[] = []
  readonly #part: number
  #sent = 0
  #count = 0
  #wake: (() => void) | undefined
  #from = Number.POSITIVE_INFINITY

  constructor(job: Job) {
    this.#job = job
    this.#content = bodyOf(job)
    this.#part = Math.max(1, Math.floor(job.messages / PARTS))
    setFlagsFromString('--expose-gc')
    this.#collect = runInNewContext('gc')
  }

  /** From here on it is measured. */
  begin(): void {
    this.#from = this.#count
    this.#mark()
  }

  /** Resolves when all of them are handled. */
  async publish(surehop: Surehop, messages: number): Promise<void> {
    const producer = surehop.producer({ windowMessages: this.#job.inFlight })
    const fail = (error: unknown) => {
      throw error
    }
    for (const end = this.#sent + messages; this.#sent < end; this.#sent++) {
      await this.#until(() => this.#sent - this.#count < WAITING)
      producer.send(this.#job.queue, { body: this.#content }).catch(fail)
    }
    await this.#until(() => this.#count === this.#sent)
    await producer.close()
  }

  /** The handler. */
  handled(): void {
    this.#count++
    if ((this.#count - this.#from) % this.#part === 0 && this.#marks.length <= PARTS) this.#mark()
    this.#wake?.()
  }

  /** The first and the last are taken after a full collection: what is left is what is held. */
  #mark(): void {
    if (this.#marks.length === 0 || this.#marks.length === PARTS) this.#collect()
    const { rss, heapUsed, external } = process.memoryUsage()
    this.#marks.push({ at: performance.now(), rssMb: rss / MB, heapMb: (heapUsed + external) / MB })
  }

  async #until(holds: () => boolean): Promise<void> {
    while (!holds())
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
  }

  figures(): Measured {
    const marks = this.#marks
    const rate = (part: number) => this.#part / ((marks[part]!.at - marks[part - 1]!.at) / 1_000)
    return {
      firstPerSecond: rate(1),
      lastPerSecond: rate(PARTS),
      lastToFirst: rate(PARTS) / rate(1),
      firstRssMb: marks[1]!.rssMb,
      lastRssMb: marks[PARTS]!.rssMb,
      firstHeapMb: marks[0]!.heapMb,
      lastHeapMb: marks[PARTS]!.heapMb,
    }
  }
}
