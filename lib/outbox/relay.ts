/**
 * The relay: sends committed rows of one outbox, through one publisher, and takes them out of the table.
 *
 *     starting ──▶ running ⇄ paused (broker or database out of reach) ──▶ closing ──▶ closed
 *
 *     one turn of the loop, nothing of it ever overlapping:   record failures ──▶ lease ──▶ upkeep ──▶ read ──▶ rest
 *     beside it, all the time:                                publish what the book lets fly; clear what is confirmed
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
import { poolWarnings } from '../sql/client.ts'
import { checkSchema } from '../sql/migrate.ts'
import { explainSql } from '../sql/trouble.ts'
import type { DelayRoute } from '../topology/delay.ts'
import { HINT_CHANNEL } from './hints.ts'
import { Book, type Failure } from './relay-book.ts'
import { Clearing } from './relay-clearing.ts'
import { Flights } from './relay-flights.ts'
import { Listener } from './relay-listener.ts'
import { checkRelayOptions, type RelayOptions, type SettledRelayOptions } from './relay-options.ts'
import { Pace, pauseAfter } from './relay-pace.ts'
import { Reading } from './relay-reading.ts'
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

type State = 'starting' | 'running' | 'paused' | 'closing' | 'closed'

/** Of the window: what is worth a statement at once while there is much to do. */
const PART = 4
const NEVER = Number.POSITIVE_INFINITY

/** Sends the rows of one outbox. Made by `surehop.relay()`. */
export class Relay {
  /** Name of the outbox. */
  readonly name: string
  readonly #options: SettledRelayOptions
  readonly #parts: RelayParts
  readonly #events: Events
  readonly #pace: Pace
  readonly #book: Book<RelayedRow>
  readonly #table: RelayTable
  readonly #shards: Shards
  readonly #sender: Sender
  readonly #publisher: Publisher
  readonly #flights: Flights
  readonly #clearing: Clearing
  readonly #reading: Reading
  readonly #upkeep: Upkeep
  readonly #listener: Listener
  readonly #unwatch: (() => void)[] = []
  #state: State = 'starting'
  /** Why the database cannot be asked, as the loop and the clearing found. */
  readonly #database: { loop: Error | undefined; clearing: Error | undefined } = {
    loop: undefined,
    clearing: undefined,
  }
  #brokerLostAt: number | undefined
  #drainUntil = NEVER
  #loop: Promise<void> | undefined
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
    this.#sender = this.#makeSender()
    this.#flights = this.#makeFlights(book)
    const onRead = () => this.#flights.pump()
    const [onCleared, onProblem] = [this.#cleared.bind(this), this.#clearingFailed.bind(this)]
    this.#clearing = new Clearing({ book, table, many, onCleared, onProblem })
    this.#reading = new Reading({ book, table, shards, pace, many, pollMs, onRead })
    const upkeepOf = { ask, table, events, name, schema, keepSentMs, backlogEveryMs }
    this.#upkeep = new Upkeep({ ...upkeepOf, shards: () => shards.reading })
    this.#listener = new Listener(pool, `${schema}.${name}`, this.#hints())
    this.#pace = pace
    this.#book = book
    this.#table = table
    this.#shards = shards
  }

  /**
   * Why this relay is not fit to work, if so; and rows in its table that no relay sends. Parked rows, which are told by an event and
   * by the command, make no instance unfit.
   */
  get problems(): readonly string[] {
    if (this.#state === 'closed') return []
    const problem = this.#problem
    const paused = problem === undefined ? [] : [`the relay of outbox "${this.name}" is paused: ${problem}`]
    const channel = this.#publisher.problem
    return [...paused, ...(channel === undefined ? [] : [channel]), ...this.#upkeep.problems]
  }

  /** Rows that wait (backlog, held ones among them), the age of the oldest, and parked ones, as last looked up (see `backlogEveryMs`). */
  get backlog(): EventTable['outbox.backlog'] | undefined {
    return this.#state === 'closed' ? undefined : this.#upkeep.figures
  }

  /** @throws SchemaMismatch, DatabaseUnavailable, PermissionRefused, ConnectionRefused; nothing is left open then */
  async start(): Promise<void> {
    try {
      await checkSchema(this.#options.pool, { schema: this.#options.schema })
      await this.#shards.create()
      await this.#lease()
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
    this.#become('running')
    this.#watch()
    this.#listener.start()
    this.#loop = this.#run()
  }

  /**
   * Stops reading, waits at most `drainMs` of `connect()` for what is being published, takes it out of the table, and hands its share to
   * the other relays. Harmless when repeated.
   */
  close(): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #run(): Promise<void> {
    for (let failures = 0; !this.#isDrained; ) {
      try {
        await this.#turn()
        failures = 0
        this.#database.loop = undefined
      } catch (error) {
        failures++
        this.#database.loop = explainSql(error, this.#doing)
      }
      this.#judge()
      await this.#pace.until(failures === 0 ? this.#nextAt : performance.now() + pauseAfter(failures))
    }
  }

  async #turn(): Promise<void> {
    if (this.#isAbandoned) return this.#abandon()
    await this.#record()
    if (performance.now() >= this.#shards.dueAt) await this.#lease()
    await this.#shards.release()
    if (this.#isClosing) return
    await this.#upkeep.turn()
    if (this.#mayRead && performance.now() >= this.#reading.dueAt) await this.#reading.look()
  }

  /** When the loop has something to do, unless it is woken. */
  get #nextAt(): number {
    if (this.#isAbandoned) return NEVER
    const lostAt = this.#brokerLostAt === undefined ? NEVER : this.#brokerLostAt + this.#options.leaseMs
    const common = Math.min(this.#shards.dueAt, lostAt)
    if (this.#isClosing) return Math.min(common, this.#drainUntil)
    const readAt = this.#mayRead ? this.#reading.dueAt : NEVER
    const { startFrom } = this.#flights
    return Math.min(common, readAt, startFrom > performance.now() ? startFrom : NEVER, this.#upkeep.dueAt)
  }

  get #mayRead(): boolean {
    return this.#problem === undefined && this.#shards.isSafe
  }

  get #mayFly(): boolean {
    return !this.#isClosing && this.#shards.isSafe && this.#problem === undefined
  }

  get #isClosing(): boolean {
    return this.#drainUntil !== NEVER
  }

  get #isDrained(): boolean {
    return this.#isClosing && (this.#book.flying === 0 || performance.now() >= this.#drainUntil)
  }

  /** Why nothing is sent now. */
  get #problem(): string | undefined {
    return (this.#database.loop ?? this.#database.clearing)?.message ?? this.#sender.problem
  }

  get #doing(): string {
    return `relaying outbox "${this.name}" (schema "${this.#options.schema}")`
  }

  /** Tells the table what could not be sent. */
  async #record(): Promise<void> {
    this.#book.forget()
    const { failures } = this.#book
    if (failures.length === 0) return
    await this.#table.failed(failures)
    this.#reading.orphaned(this.#book.recorded(failures))
    this.#reading.heldIn(Math.min(...failures.map(({ verdict }) => verdict.delayMs)))
    for (const failure of failures) this.#tell(failure)
  }

  async #lease(): Promise<void> {
    const fresh = await this.#shards.turn()
    this.#book.keep(this.#shards.holds)
    this.#flights.pump()
    if (fresh.length === 0) return
    this.#upkeep.tookOver()
    this.#reading.heldIn(0)
    this.#pace.hint('committed')
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
    this.#database.clearing = error === undefined ? undefined : explainSql(error, this.#doing)
    this.#judge()
    this.#pace.wake()
  }

  /** The broker has been out of reach for so long that others, who may reach it, shall have our share. */
  get #isAbandoned(): boolean {
    return !this.#isClosing && performance.now() - (this.#brokerLostAt ?? NEVER) > this.#options.leaseMs
  }

  async #abandon(): Promise<void> {
    if (this.#shards.count === 0) return
    this.#book.keep(() => false)
    await this.#shards.leave()
  }

  #watch(): void {
    const { outbox } = this.#options
    const { logger } = this.#parts
    if (typeof outbox !== 'string') this.#unwatch.push(outbox.onAdded((hint) => this.#pace.hint(hint)))
    if (typeof outbox !== 'string' && logger) this.#unwatch.push(outbox.logTo(logger))
    this.#unwatch.push(this.#parts.connection.onChange(() => this.#brokerChanged()))
    this.#brokerChanged()
  }

  #brokerChanged(): void {
    if (this.#sender.problem !== undefined) this.#brokerLostAt ??= performance.now()
    else {
      if (this.#brokerLostAt !== undefined) this.#shards.hurry()
      this.#brokerLostAt = undefined
      this.#flights.resume()
    }
    this.#judge()
    this.#pace.wake()
  }

  #judge(): void {
    if (this.#state !== 'running' && this.#state !== 'paused') return
    this.#become(this.#problem === undefined ? 'running' : 'paused')
    this.#flights.pump()
  }

  #become(to: State): void {
    const from = this.#state
    if (from === to) return
    this.#state = to
    const why = this.#database.loop ?? this.#database.clearing ?? new Error(this.#sender.problem)
    this.#events.emit('relay.state', { outbox: this.name, from, to, error: to === 'paused' ? why : undefined })
  }

  #tell({ entry, verdict }: Failure<RelayedRow>): void {
    const { message_id: messageId, transaction_id: transactionId } = entry.row
    const { state, attempts, delayMs, error } = verdict
    const ids = { outbox: this.name, messageId, transactionId }
    if (state === 'parked') this.#events.emit('outbox.parked', { ...ids, attempts, error })
    else this.#events.emit('outbox.held', { ...ids, attempt: attempts, delayMs, error })
  }

  async #close(): Promise<void> {
    if (this.#state === 'closed') return
    this.#drainUntil = performance.now() + this.#parts.drainMs
    this.#become('closing')
    this.#book.dropWaiting()
    this.#pace.wake()
    await this.#loop
    for (const end of this.#unwatch) end()
    await Promise.all([this.#publisher.close(0), this.#listener.close()])
    await this.#clearing.close()
    await this.#record().catch(() => {})
    await this.#shards.leave().catch(() => {})
    this.#end()
  }

  #end(): void {
    this.#become('closed')
    this.#parts.onClosed()
  }

  /** A statement that is not answered within a lease is given up on: all of them may be repeated. */
  #ask(): Ask {
    const { leaseMs, pool, schema } = this.#options
    const late = () => new DatabaseUnavailable(`${this.#doing}: Postgres did not answer within ${leaseMs} ms`)
    return askOf(pool, schema, { ms: leaseMs, late })
  }

  #makeSender(): Sender {
    const { connection, delayRoute, forgetDelays } = this.#parts
    const { publishDeadlineMs: deadlineMs, attempts, backoff } = this.#options
    const publisher = this.#publisher
    return new Sender({ connection, publisher, delayRoute, forgetDelays, deadlineMs, attempts, backoff })
  }

  #makeFlights(book: Book<RelayedRow>): Flights {
    return new Flights({
      book,
      sender: this.#sender,
      events: this.#events,
      outbox: this.name,
      mayFly: () => this.#mayFly,
      isClosing: () => this.#isClosing,
      onLanded: () => this.#landed(),
      onRoom: () => this.#pace.hint('committed'),
    })
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
