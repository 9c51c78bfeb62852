/**
 * Reads a queue without harm: consumes without ack, and gives everything back by closing its channels.
 *
 * A reader goes over the queue in legs, each a channel with one consumer and a prefetch of its own that grows from a few
 * letters to at most 4,096 or about 16 MiB, or fewer if told so: a first page is quick, a long queue takes few legs, and no more
 * than one leg's letters are buffered here. (One consumer cannot do: its prefetch ends at 65,535, and an unlimited one at 2,000.)
 *
 * Promises: the letters there at the start, oldest first, each once; what is not acked is back, in its order, when `close()`
 * resolves; what arrives later is not given. Does NOT promise that nobody else consumes the queue, only that no other reader does;
 * nor the order after a reader was killed.
 */
import type { Connection } from '../connection/connection.ts'
import { deferred, pause, unlessAborted, within } from '../deadline.ts'
import { BrokerTimeout, Closed, ResourceMissing } from '../errors.ts'
import { Leg, type LegListener, type Taken } from './leg.ts'
import { InspectorLock } from './lock.ts'

/** Most letters held by one leg. */
const LEG_MAX = 4_096
/** Fewer are not worth a channel, however large they are. */
const LEG_MIN = 4
/** About so many bytes are buffered. */
const LEG_BYTES = 16 * 1024 * 1024
const GROWTH = 4
/** Nothing came for so long: ask the broker whether anything is left, ms. */
const QUIET_MS = 1_000
/**
 * Nothing came for so long, and the broker says that none is left: somebody else took them. Sooner they may be on their way: it counts a letter
 * as handed over while it still reads it from disk, for seconds where letters are large (measured).
 */
const GONE_MS = 10_000
/** Nothing came for so long, and the broker says that letters are left: it gives them to somebody else, or to nobody, ms. */
const STARVED_MS = 30_000
/** How long `close()` waits until the broker counts the letters as ready again, ms. */
const SETTLE_MS = 2_000
const SETTLE_PAUSE_MS = 5

/** Most letters fetched at first: how large they are is not known yet. */
const FIRST_LEG = 8

/** How many letters are at hand at once. */
export interface Hold {
  /** Fetched at first, at most 8. Default 8. */
  readonly first?: number
  /** Fetched ahead. Default 4,096, or about 16 MiB. */
  readonly most?: number
  /** No letter is given once it has fired. */
  readonly signal?: AbortSignal | undefined
}

/** Reads a queue without taking anything out of it. */
export class Reader {
  /** Letters there at the start. */
  readonly total: number
  readonly #connection: Connection
  readonly #queue: string
  readonly #lock: InspectorLock
  readonly #legs: Leg[] = []
  readonly #buffer: Taken[] = []
  readonly #first: number
  readonly #most: number
  readonly #signal: AbortSignal | undefined
  #given = 0
  #arrived = 0
  #arrivedBytes = 0
  #settled = 0
  /** A letter came that nobody had looked at before. */
  #fresh = false
  /** Somebody else took the rest. */
  #gone = false
  #closing = false
  #failure: Error | undefined
  #news = deferred()

  private constructor(connection: Connection, queue: string, lock: InspectorLock, total: number, hold: Hold) {
    const { first = FIRST_LEG, most = LEG_MAX } = hold
    this.#connection = connection
    this.#queue = queue
    this.#lock = lock
    this.#signal = hold.signal
    this.total = total
    this.#most = Math.max(1, Math.min(most, LEG_MAX))
    this.#first = Math.max(1, Math.min(first, FIRST_LEG, this.#most))
  }

  /**
   * Locks the queue against other readers.
   * @throws ResourceBusy, ResourceMissing, NotConnected
   */
  static async open(connection: Connection, queue: string, hold: Hold = {}): Promise<Reader> {
    const total = await countOf(connection, queue)
    const lock = await InspectorLock.acquire(connection, queue)
    try {
      const locked = await connection.rpc(`look at queue "${queue}"`, () => lock.channel.checkQueue(queue))
      return new Reader(connection, queue, lock, Math.max(total, locked.messageCount), hold)
    } catch (error) {
      await lock.release()
      throw error
    }
  }

  /** Letters given so far. */
  get given(): number {
    return this.#given
  }

  /** Letters at hand that were not given yet. */
  get buffered(): number {
    return this.#buffer.length
  }

  /**
   * The next letter, or undefined at the end, or once the signal has fired.
   * @throws ChannelLost: everything not acked is back in the queue; BrokerTimeout: it has letters and gives none
   */
  async next(): Promise<Taken | undefined> {
    while (this.#given < this.total && !this.#gone && !this.#signal?.aborted) {
      if (this.#failure) throw this.#failure
      const taken = this.#buffer.shift()
      if (taken) {
        this.#given++
        return taken
      }
      if (!(await this.#more())) return undefined
    }
    return undefined
  }

  /** At most `max` letters, at least one unless it is the end. */
  async nextMany(max: number): Promise<Taken[]> {
    const first = await this.next()
    if (!first) return []
    const rest = this.#buffer.splice(0, Math.min(max - 1, this.total - this.#given))
    this.#given += rest.length
    return [first, ...rest]
  }

  /** Letters that came to the queue after the start, as the broker counts; at least 0. */
  async arrivals(): Promise<number> {
    return Math.max(0, (await this.#ready()) + this.#arrived - this.total)
  }

  /**
   * Resolves when it has all it took in hand, and the broker every ack.
   * @throws ChannelLost, BrokerTimeout: what was acked may be back in the queue, too
   */
  async check(): Promise<void> {
    const flushed = Promise.all(this.#legs.map((leg) => leg.flushed()))
    await flushed.catch((error: Error) => this.#fail(error))
    if (this.#failure) throw this.#failure
  }

  /** Gives everything back that was not acked, in its order. Never rejects. */
  async close(): Promise<void> {
    this.#closing = true
    this.#buffer.length = 0
    await this.#takeReturned().catch(() => {})
    this.#fail(new Closed('the reader is closed'))
    await this.#legs.at(-1)?.cancel()
    const others = await this.#ready().catch(() => 0)
    for (const leg of this.#legs) await leg.close()
    await this.#untilBack(others + this.#arrived - this.#settled)
    await this.#lock.release()
  }

  async #more(): Promise<boolean> {
    const before = this.#arrived
    const leg = this.#legs.at(-1)
    if (!leg || leg.spent(this.#ideal())) await this.#nextLeg(leg)
    if (this.#buffer.length > 0) return true
    // What was handed out must come back in order, also when nobody waits for more.
    const [signal, patienceMs] = this.#closing ? [undefined, GONE_MS] : [this.#signal, STARVED_MS]
    const began = performance.now()
    for (let leftAt = began; performance.now() < leftAt + GONE_MS; ) {
      await within(unlessAborted(this.#news.promise, signal), QUIET_MS, () => new Closed('')).catch(() => {})
      if (this.#arrived > before || this.#failure || signal?.aborted) return true
      if (await this.#anyLeft()) leftAt = performance.now()
      if (this.#arrived > before) return true
      if (leftAt > began + patienceMs) throw this.#starved()
    }
    this.#gone = true
    return false
  }

  /** Somebody may have emptied the queue. A second answer on the same channel comes after every delivery sent before the first. */
  async #anyLeft(): Promise<boolean> {
    const leg = this.#legs.at(-1)!
    const left = await leg.ready()
    await leg.ready()
    return left > 0
  }

  /** To close, it need not be waited for once more. */
  #starved(): Error {
    const seconds = STARVED_MS / 1_000
    this.#fail(
      new BrokerTimeout(
        `queue "${this.#queue}" has letters and has given none for ${seconds} s. Is another consumer its single active one, is it a stream, or has it lost most of its nodes? See: rabbitmqctl list_queues name type state consumers. What was taken is back in the queue`,
      ),
    )
    return this.#failure!
  }

  async #nextLeg(last: Leg | undefined): Promise<void> {
    await last?.cancel()
    for (const leg of this.#legs.filter((l) => l.empty)) await leg.close()
    const wanted = Math.min(this.#ideal(), !last ? this.#first : this.#closing ? LEG_MAX : last.prefetch * GROWTH)
    const prefetch = Math.max(1, Math.min(wanted, Math.max(LEG_MIN, this.total - this.#arrived)))
    const leg = new Leg(this.#connection, this.#queue, prefetch, this.#listener())
    this.#legs.push(leg)
    await leg.open()
  }

  #listener(): LegListener {
    return {
      took: (taken) => {
        this.#arrived++
        this.#arrivedBytes += taken.raw.content.length
        if (!taken.raw.fields.redelivered) this.#fresh = true
        if (!this.#closing) this.#buffer.push(taken)
        this.#tell()
      },
      settled: () => void this.#settled++,
      lost: (reason) => this.#fail(reason),
    }
  }

  /** Letters that nobody holds. */
  async #ready(): Promise<number> {
    const doing = `look at queue "${this.#queue}"`
    const { messageCount } = await this.#connection.rpc(doing, () => this.#lock.channel.checkQueue(this.#queue))
    return messageCount
  }

  #ideal(): number {
    if (this.#arrived === 0) return this.#first
    const average = Math.max(1, this.#arrivedBytes / this.#arrived)
    // Each leg that holds what was skipped costs a channel: many legs grow.
    const most = this.#closing ? LEG_MAX : Math.max(this.#most, this.#legs.length)
    return Math.min(most, Math.max(LEG_MIN, Math.floor(LEG_BYTES / average)))
  }

  #fail(reason: Error): void {
    this.#failure ??= reason
    this.#buffer.length = 0
    this.#tell()
  }

  #tell(): void {
    this.#news.resolve()
    this.#news = deferred()
  }

  /**
   * RabbitMQ (3.10 and 4.0, measured) puts a letter that is handed back behind all others that were handed back before, and gives
   * those first. So a short look after a long one would turn their order round: take all that were, and hand them back together.
   */
  async #takeReturned(): Promise<void> {
    if (this.#arrived === 0) return
    while (!this.#fresh && !this.#failure && (await this.#ready()) > 0) await this.#more()
  }

  /** A reader that comes next must find them: the broker hands back what a closed channel held a moment later. */
  async #untilBack(count: number): Promise<void> {
    const until = performance.now() + SETTLE_MS
    try {
      while ((await this.#ready()) < count && performance.now() < until) await pause(SETTLE_PAUSE_MS)
    } catch {
      // The connection is gone, and the letters are back with it.
    }
  }
}

/** Letters ready in a queue, asked on a channel of its own: asking for a missing queue closes the channel. */
export async function countOf(connection: Connection, queue: string): Promise<number> {
  const doing = `look at queue "${queue}"`
  await connection.ready(connection.options.rpcTimeoutMs)
  try {
    return await connection.withChannel(async (channel) => {
      const { messageCount } = await connection.rpc(doing, () => channel.checkQueue(queue))
      return messageCount
    })
  } catch (error) {
    if (!(error instanceof ResourceMissing)) throw error
    throw new ResourceMissing(
      error.resource,
      `queue "${queue}" does not exist. Its consumer declares it at its first start: is the name right, and the virtual host?`,
      { cause: error },
    )
  }
}
