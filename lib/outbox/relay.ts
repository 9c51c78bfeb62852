/**
 * The relay: sends committed rows of one outbox, through one publisher, and takes them out of the table.
 *
 *     starting ──▶ running ⇄ paused (broker or database out of reach) ──▶ closing ──▶ closed
 *
 *     one loop (relay-loop.ts), nothing of it ever overlapping:   record failures ──▶ lease ──▶ upkeep ──▶ read ──▶ rest
 *     beside it, all the time:                                    publish what the book lets fly; clear what is confirmed
 *
 * This file puts the parts together, starts and closes them, and hands on what one has to tell the others.
 *
 * Promises: a committed row is published at least once, with its ids, and taken out only when confirmed and routed; no transaction
 * is open while we talk to the broker; the rows of a key arrive first in the order of their commits, whatever the number of relays; keys
 * do not wait for each other; a row that cannot be sent holds back its own key, is tried again ever later, and is parked after
 * `attempts`; at most `windowMessages` and `windowBytes` are in hand, the rest stays in the table; a crash loses nothing.
 * Does NOT promise that a row is published once: after a crash, or a lost answer, it goes again with the same message id.
 *
 * Why first arrivals of a key are in order even with a relay that acts beyond its lease (frozen, or cut off): every relay, dead or
 * alive, sends a row only when the broker has confirmed to it the row before, or when the row before was gone from the ready and held
 * ones when it read; and what is gone was confirmed to somebody, or given up on. So whoever sends a row, and whenever that
 * arrives, all before it have arrived. What a late relay adds are copies. To say that a row failed, which holds its key back,
 * takes the lease (see relay-table.ts). Between two relays a key that was retried or parked may see a late copy of the parked row: the
 * monotonic guard, which stops a relay that wakes before it has sent anything, makes that a matter of bytes already on their way.
 *
 * Events: relay.state, outbox.sent, outbox.held, outbox.parked, outbox.backlog, outbox.warning.
 */
import type { Connection } from '../connection/connection.ts'
import { Closed, DatabaseUnavailable } from '../errors.ts'
import { newMessageId } from '../message.ts'
import type { Events, EventTable } from '../observability/events.ts'
import type { Logger } from '../observability/log.ts'
import { Publisher } from '../producer/publisher.ts'
import { endingPool, poolWarnings } from '../sql/client.ts'
import { checkSchema } from '../sql/migrate.ts'
import { explainSql } from '../sql/trouble.ts'
import type { DelayRoute } from '../topology/delay.ts'
import { HINT_CHANNEL } from './hints.ts'
import { Book } from './relay-book.ts'
import { Clearing } from './relay-clearing.ts'
import { Condition } from './relay-condition.ts'
import { Flights } from './relay-flights.ts'
import { Listener } from './relay-listener.ts'
import { Loop } from './relay-loop.ts'
import { checkRelayOptions, type RelayOptions, type SettledRelayOptions } from './relay-options.ts'
import { Pace } from './relay-pace.ts'
import { Reading } from './relay-reading.ts'
import { Recording } from './relay-recording.ts'
import { Sender } from './relay-send.ts'
import { type Ask, askOf, PER_KEY, type RelayedRow, RelayTable } from './relay-table.ts'
import { Upkeep } from './relay-upkeep.ts'
import { RELAYS_CHANNEL, Shards } from './shards.ts'

/** What a relay needs from its surroundings. */
export interface RelayParts {
  /** The publishing connection. */
  readonly connection: Connection
  readonly delayRoute: (delayMs: number, exchange: string, routingKey: string) => Promise<DelayRoute>
  readonly forgetDelays: () => void
  readonly drainMs: number
  /** For what the outbox itself has to say. */
  readonly logger: Logger | undefined
  readonly onClosed: () => void
}

/** Of the window: what is worth a statement at once while there is much to do. */
const PART = 4

/** Sends the rows of one outbox. Made by `surehop.relay()`. */
export class Relay {
  /** Name of the outbox. */
  readonly name: string
  readonly #options: SettledRelayOptions
  readonly #parts: RelayParts
  readonly #events: Events
  readonly #pace: Pace
  readonly #book: Book<RelayedRow>
  readonly #shards: Shards
  readonly #publisher: Publisher
  readonly #condition: Condition
  readonly #clearing: Clearing
  readonly #reading: Reading
  readonly #recording: Recording
  readonly #upkeep: Upkeep
  readonly #loop: Loop
  readonly #listener: Listener
  readonly #unwatch: (() => void)[] = []
  #turning: Promise<void> | undefined
  /** When the database is asked no more, on the monotonic clock. */
  #askUntil = Number.POSITIVE_INFINITY
  #closed: Promise<void> | undefined

  /** Use `surehop.relay()`. */
  constructor(options: RelayOptions, parts: RelayParts) {
    const settled = checkRelayOptions(options)
    const { name, schema, windowMessages, windowBytes, pollMs, leaseMs, pool, keepSentMs, backlogEveryMs } = settled
    this.name = name
    this.#options = settled
    this.#parts = parts
    this.#events = parts.connection.options.events
    const [owner, ask, events, many] = [newMessageId(), this.#ask(), this.#events, Math.ceil(windowMessages / PART)]
    const pace = new Pace(pollMs)
    const book = new Book<RelayedRow>({ windowMessages, windowBytes, perKey: PER_KEY })
    const table = new RelayTable(ask, { schema, name, owner, keepSent: keepSentMs > 0 })
    const shards = new Shards({ ask, name, schema, owner, leaseMs, inHand: (shard) => book.has(shard) })
    const window = { windowMessages, windowBytes, maxWaiting: Number.MAX_SAFE_INTEGER }
    this.#publisher = new Publisher(parts.connection, window)
    const sender = this.#makeSender()
    const condition = new Condition({ events, outbox: name, sender, leaseMs, doing: this.#doing })
    const flights = this.#makeFlights(book, sender)
    const onRead = () => flights.pump()
    const reading = new Reading({ book, table, shards, pace, many, pollMs, leaseMs, onRead })
    const [onCleared, onProblem] = [this.#cleared.bind(this), this.#clearingFailed.bind(this)]
    this.#clearing = new Clearing({ book, table, many, onCleared, onProblem })
    const recording = new Recording({ book, table, reading, events, outbox: name })
    const upkeepOf = { ask, table, events, name, schema, keepSentMs, backlogEveryMs }
    const upkeep = new Upkeep({ ...upkeepOf, shards: () => shards.reading })
    this.#loop = new Loop({ condition, book, shards, flights, recording, reading, upkeep, pace })
    this.#listener = new Listener(pool, `${schema}.${name}`, this.#hints())
    this.#pace = pace
    this.#book = book
    this.#shards = shards
    this.#condition = condition
    this.#reading = reading
    this.#recording = recording
    this.#upkeep = upkeep
  }

  /**
   * Why this relay is not fit to work, if so; and rows in its table that no relay sends. Parked rows, which are told by an event and
   * by the command, make no instance unfit.
   */
  get problems(): readonly string[] {
    if (this.#condition.isClosed) return []
    const { problem } = this.#condition
    const paused = problem === undefined ? [] : [`the relay of outbox "${this.name}" is paused: ${problem}`]
    const channel = this.#publisher.problem
    return [...paused, ...(channel === undefined ? [] : [channel]), ...this.#upkeep.problems]
  }

  /** Rows that wait (backlog, held ones among them), the age of the oldest, and parked ones, as last looked up (see `backlogEveryMs`). */
  get backlog(): EventTable['outbox.backlog'] | undefined {
    return this.#condition.isClosed ? undefined : this.#upkeep.figures
  }

  /** @throws SchemaMismatch, DatabaseUnavailable, PermissionRefused, ConnectionRefused; nothing is left open then */
  async start(): Promise<void> {
    try {
      await checkSchema(endingPool(this.#options.pool, this.#patience), { schema: this.#options.schema })
      await this.#shards.create()
      await this.#loop.lease()
      await this.#shards.greet()
      if (this.#closed) throw new Closed(`the relay of outbox "${this.name}" was closed while it started`)
    } catch (error) {
      if (this.#shards.count > 0) await this.#shards.leave().catch(() => {})
      this.#end()
      throw explainSql(error, this.#doing)
    }
    for (const warning of poolWarnings(this.#options.pool))
      this.#events.emit('outbox.warning', { outbox: this.name, warning })
    this.#publisher.start()
    this.#condition.started()
    this.#watch()
    this.#listener.start()
    this.#turning = this.#loop.run()
  }

  /**
   * Stops reading, waits at most `drainMs` of `connect()` for what is being published, takes it out of the table, and hands its share to
   * the other relays; a database that does not answer is given up on after `leaseMs`. Harmless when repeated.
   */
  close(): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #close(): Promise<void> {
    if (this.#condition.isClosed) return
    this.#condition.closing(performance.now() + this.#parts.drainMs)
    this.#book.dropWaiting()
    this.#pace.wake()
    await this.#turning
    this.#askUntil = performance.now() + this.#options.leaseMs
    for (const end of this.#unwatch) end()
    await Promise.all([this.#publisher.close(0), this.#listener.close()])
    await this.#clearing.close()
    await this.#recording.record().catch(() => {})
    await this.#shards.leave().catch(() => {})
    this.#end()
  }

  #end(): void {
    this.#condition.closed()
    this.#parts.onClosed()
  }

  #landed(): void {
    this.#clearing.landed()
    if (this.#book.broken > 0 || this.#book.flying === 0) this.#pace.wake()
  }

  #cleared(keys: readonly string[]): void {
    this.#reading.orphaned(keys)
    this.#pace.wake()
  }

  #clearingFailed(error: unknown): void {
    this.#condition.asked('clearing', error)
    this.#loop.conditionChanged()
  }

  #watch(): void {
    const { outbox } = this.#options
    const { logger } = this.#parts
    if (typeof outbox !== 'string') this.#unwatch.push(outbox.onAdded((hint) => this.#pace.hint(hint)))
    if (typeof outbox !== 'string' && logger) this.#unwatch.push(outbox.logTo(logger))
    this.#unwatch.push(this.#parts.connection.onChange(() => this.#loop.brokerChanged()))
    this.#loop.brokerChanged()
  }

  get #doing(): string {
    return `relaying outbox "${this.name}" (schema "${this.#options.schema}")`
  }

  #ask(): Ask {
    const { pool, schema } = this.#options
    return askOf(pool, schema, this.#patience)
  }

  /** A statement that is not answered within a lease is given up on: all of them may be repeated. */
  get #patience() {
    const { leaseMs } = this.#options
    const late = () => new DatabaseUnavailable(`${this.#doing}: Postgres did not answer within ${leaseMs} ms`)
    const leftMs = () => Math.min(leaseMs, Math.max(1, this.#askUntil - performance.now()))
    return {
      get ms() {
        return leftMs()
      },
      late,
    }
  }

  #makeSender(): Sender {
    const { connection, delayRoute, forgetDelays } = this.#parts
    const { publishDeadlineMs: deadlineMs, attempts, backoff } = this.#options
    const publisher = this.#publisher
    return new Sender({ connection, publisher, delayRoute, forgetDelays, deadlineMs, attempts, backoff })
  }

  #makeFlights(book: Book<RelayedRow>, sender: Sender): Flights {
    return new Flights({
      book,
      sender,
      events: this.#events,
      outbox: this.name,
      mayFly: () => this.#mayFly,
      isClosing: () => this.#condition.isClosing,
      onLanded: () => this.#landed(),
      onRoom: () => this.#pace.hint('committed'),
    })
  }

  get #mayFly(): boolean {
    return !this.#condition.isClosing && this.#shards.isSafe && this.#condition.problem === undefined
  }

  /** Hints of other processes, by channel. */
  #hints(): ReadonlyMap<string, () => void> {
    const hurry = () => {
      this.#shards.hurry()
      this.#pace.wake()
    }
    return new Map([
      [HINT_CHANNEL, () => this.#pace.hint('committed')],
      [RELAYS_CHANNEL, hurry],
    ])
  }
}
