/**
 * The relay: sends committed rows of one outbox, through one publisher, and takes them out of the table.
 *
 *     starting ──▶ running ⇄ paused (broker or database out of reach) ──▶ closing ──▶ closed
 *
 *     one turn of the loop, nothing of it ever overlapping:   settle ──▶ lease ──▶ upkeep ──▶ read ──▶ rest
 *     beside it, all the time:                                publish what the book lets fly
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
import { type Backoff, exponential } from '../backoff.ts'
import type { Connection } from '../connection/connection.ts'
import { within } from '../deadline.ts'
import { Closed, DatabaseUnavailable, InvalidOption, PublishFailed } from '../errors.ts'
import { newMessageId } from '../message.ts'
import { checkOptions, either, given, having, integer, needed, number, text } from '../options.ts'
import { Publisher } from '../producer/publisher.ts'
import type { SqlPool } from '../sql/client.ts'
import { checkSchema } from '../sql/migrate.ts'
import { DEFAULT_SCHEMA, schemaName } from '../sql/schema.ts'
import { explainSql } from '../sql/trouble.ts'
import type { DelayRoute } from '../topology/delay.ts'
import { HINT_CHANNEL } from './hints.ts'
import type { Outbox } from './outbox.ts'
import { Book, type Entry, type Verdict } from './relay-book.ts'
import { Listener } from './relay-listener.ts'
import { Pace } from './relay-pace.ts'
import { Sender } from './relay-send.ts'
import { type Ask, askOf, type OutboxRow, PER_KEY, RelayTable } from './relay-table.ts'
import { Upkeep } from './relay-upkeep.ts'
import { RELAYS_CHANNEL, Shards } from './shards.ts'

/** Options of a relay. Durations in ms. */
export interface RelayOptions {
  /** The outbox whose rows are sent: its name, or the outbox itself, if it is of this process: what it adds is then sent soonest. */
  readonly outbox: string | Outbox
  /** A pool of the database, such as `pg`'s `Pool`. The relay uses up to two connections of it, one of them to listen. You close it. */
  readonly pool: SqlPool
  /** The Postgres schema of Surehop's tables. Default: the outbox's, else `surehop`. */
  readonly schema?: string
  /** Most rows in hand. Default 1,000. */
  readonly windowMessages?: number
  /** Most bytes of bodies and headers in hand. Default 16 MiB; one larger row goes alone. */
  readonly windowBytes?: number
  /** Failures of one row, other than full queues and silence, after which it is parked. Default 10. */
  readonly attempts?: number
  /** The pause after each failure of a row. Default: exponential from 1 s to 5 min, with full jitter. */
  readonly backoff?: Backoff
  /** So long after its last sign of life a relay's rows are taken over by others. Default 10,000. */
  readonly leaseMs?: number
  /** The longest pause between two looks at an idle table. Default 500. */
  readonly pollMs?: number
  /** How long rows are kept after they were sent, to look at. Default 0: they are deleted at once. */
  readonly keepSentMs?: number
  /** How long one publish may wait for its confirm; then the row is tried again later. Default 30,000. */
  readonly publishDeadlineMs?: number
  /** How often the event `outbox.backlog` is told, if somebody listens. Default 10,000. */
  readonly backlogEveryMs?: number
}

const DEFAULTS = {
  windowMessages: 1_000,
  windowBytes: 16 * 1024 * 1024,
  attempts: 10,
  leaseMs: 10_000,
  pollMs: 500,
  keepSentMs: 0,
  publishDeadlineMs: 30_000,
  backlogEveryMs: 10_000,
} as const

const MAX_MS = 2_147_483_647

const RULES = {
  outbox: needed(either(text(128), having('an Outbox', 'add', 'onAdded'))),
  pool: needed(having("a pool such as pg's, with query() and connect()", 'query', 'connect')),
  schema: schemaName,
  windowMessages: integer(1, 65_535),
  windowBytes: integer(1),
  attempts: integer(1, 1_000_000),
  backoff: having('a backoff: exponential(), fixed() or steps()', 'delayMs', 'maxDelayMs'),
  leaseMs: number(100, MAX_MS),
  pollMs: number(1, MAX_MS),
  keepSentMs: number(0, MAX_MS * 100),
  publishDeadlineMs: number(1, MAX_MS),
  backlogEveryMs: number(100, MAX_MS),
}

/** What a relay needs from its surroundings. */
export interface RelayParts {
  /** The publishing connection. */
  readonly connection: Connection
  readonly delayRoute: (delayMs: number, exchange: string, routingKey: string) => Promise<DelayRoute>
  readonly forgetDelays: () => void
  readonly drainMs: number
  readonly onClosed: () => void
}

type Settled = typeof DEFAULTS & RelayOptions & { readonly backoff: Backoff; readonly schema: string }
type State = 'starting' | 'running' | 'paused' | 'closing' | 'closed'

/** Rows read at a time: while these are published, the next are read. */
const PAGE = 500
/** Of the window: that much is settled, or read, at a time while there is much to do. */
const PART = 4
/** After such a time a page is read also where little room is. */
const SPARSE_MS = 25
/** What was confirmed is settled at the latest after so long. */
const SETTLE_MS = 10
/** Rows that could not be sent through no fault of theirs are tried again after so long, unless the connection changes before. */
const AGAIN_MS = 250
const DATABASE_PAUSE_BASE_MS = 100
const DATABASE_PAUSE_CAP_MS = 5_000

/** Sends the rows of one outbox. Made by `surehop.relay()`. */
export class Relay {
  /** Name of the outbox. */
  readonly name: string
  readonly #options: Settled
  readonly #parts: RelayParts
  readonly #book: Book<OutboxRow>
  readonly #table: RelayTable
  readonly #shards: Shards
  readonly #upkeep: Upkeep
  readonly #pace: Pace
  readonly #publisher: Publisher
  readonly #sender: Sender
  readonly #listener: Listener
  readonly #unwatch: (() => void)[] = []
  #state: State = 'starting'
  #database: Error | undefined
  #brokerLostAt: number | undefined
  #sendFrom = 0
  #settledAt = Number.NEGATIVE_INFINITY
  #dueLookAt = 0
  #drainUntil = Number.POSITIVE_INFINITY
  #loop: Promise<void> | undefined
  #closed: Promise<void> | undefined

  /** Use `surehop.relay()`. */
  constructor(options: RelayOptions, parts: RelayParts) {
    checkOptions('relay()', options, RULES)
    const { outbox } = options
    this.name = typeof outbox === 'string' ? outbox : outbox.name
    const schema = options.schema ?? (typeof outbox === 'string' ? DEFAULT_SCHEMA : outbox.schema)
    this.#options = { ...DEFAULTS, backoff: exponential(), ...given(options), schema } as Settled
    this.#parts = parts
    checkTwin(outbox, schema)
    const { windowMessages, windowBytes, pollMs, leaseMs, pool, keepSentMs } = this.#options
    const [name, owner, ask] = [this.name, newMessageId(), this.#bounded(askOf(pool, schema))]
    this.#book = new Book({ windowMessages, windowBytes, perKey: PER_KEY })
    this.#table = new RelayTable(ask, { schema, name, owner, keepSent: keepSentMs > 0 })
    this.#shards = new Shards({ ask, name, schema, owner, leaseMs, inHand: (shard) => this.#book.has(shard) })
    this.#upkeep = this.#makeUpkeep(ask)
    this.#pace = new Pace(pollMs)
    this.#publisher = new Publisher(parts.connection, {
      windowMessages,
      windowBytes,
      maxWaiting: Number.MAX_SAFE_INTEGER,
    })
    this.#sender = this.#makeSender()
    this.#listener = this.#makeListener()
  }

  /** Why this relay is not fit to work, if so; and rows in its table that no relay sends. Parked rows are told by an event, and make nobody unfit. */
  get problems(): readonly string[] {
    if (this.#state === 'closed') return []
    const problem = this.#problem
    const paused = problem === undefined ? [] : [`the relay of outbox "${this.name}" is paused: ${problem}`]
    const channel = this.#publisher.problem
    return [...paused, ...(channel === undefined ? [] : [channel]), ...this.#upkeep.problems]
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
      this.#become('closed')
      this.#parts.onClosed()
      throw explainSql(error, this.#doing)
    }
    this.#publisher.start()
    this.#watch()
    this.#listener.start()
    this.#become('running')
    this.#loop = this.#run()
  }

  /** Stops reading, waits at most `drainMs` of `connect()` for what is being published, settles it, hands its shards over. Harmless when repeated. */
  close(): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  get #problem(): string | undefined {
    return this.#database?.message ?? this.#sender.problem
  }

  get #doing(): string {
    return `relaying outbox "${this.name}" (schema "${this.#options.schema}")`
  }

  async #run(): Promise<void> {
    for (let failures = 0; !this.#isDrained; ) {
      try {
        await this.#turn()
        failures = 0
        this.#database = undefined
      } catch (error) {
        failures++
        this.#database = explainSql(error, this.#doing)
      }
      this.#judgeState()
      await this.#pace.until(failures === 0 ? this.#nextAt : performance.now() + databasePauseMs(failures))
    }
  }

  get #isClosing(): boolean {
    return this.#closed !== undefined
  }

  get #isDrained(): boolean {
    return this.#isClosing && (this.#book.flying === 0 || performance.now() >= this.#drainUntil)
  }

  async #turn(): Promise<void> {
    await this.#settle()
    if (this.#isAbandoned) return this.#abandon()
    if (performance.now() >= this.#shards.dueAt) await this.#lease()
    await this.#shards.release()
    if (this.#isClosing) return
    await this.#upkeep.turn()
    if (this.#mayRead) await this.#read()
  }

  /** When the loop has something to do, unless it is woken. */
  get #nextAt(): number {
    const never = Number.POSITIVE_INFINITY
    const settleAt = this.#book.unsettled > 0 ? this.#settledAt + SETTLE_MS : never
    if (this.#isAbandoned) return settleAt
    const lostAt = this.#brokerLostAt === undefined ? never : this.#brokerLostAt + this.#options.leaseMs
    const common = Math.min(settleAt, this.#shards.dueAt, lostAt)
    if (this.#isClosing) return Math.min(common, this.#drainUntil)
    const readAt = this.#problem === undefined && this.#book.room.bytes > 0 ? this.#readAt : never
    const pumpAt = this.#sendFrom > performance.now() ? this.#sendFrom : never
    return Math.min(common, readAt, pumpAt, this.#upkeep.dueAt)
  }

  /** Few at a time cost as much as many: while more are on their way, not at once. */
  get #maySettle(): boolean {
    const { unsettled, flying } = this.#book
    if (unsettled === 0) return false
    return flying === 0 || this.#isMany(unsettled) || performance.now() - this.#settledAt >= SETTLE_MS
  }

  #isMany(rows: number): boolean {
    return rows * PART >= this.#options.windowMessages
  }

  /** Tells the database what became of rows. */
  async #settle(): Promise<void> {
    if (!this.#maySettle) return
    this.#settledAt = performance.now()
    const settlement = this.#book.settlement()
    await this.#table.sent(settlement.done)
    await this.#table.failed(settlement.failures)
    const keys = this.#book.settled(settlement)
    if (settlement.failures.length > 0) this.#lookSoon(settlement.failures)
    await this.#promote(keys)
    for (const { entry, verdict } of settlement.failures) this.#tellFailure(entry.row, verdict)
  }

  async #promote(keys: readonly string[]): Promise<void> {
    if (keys.length === 0) return
    this.#dueLookAt = 0
    await this.#table.promote(keys)
  }

  async #lease(): Promise<void> {
    const fresh = await this.#shards.turn()
    this.#book.keep(this.#shards.holds)
    if (fresh.length === 0) return
    this.#upkeep.tookOver()
    this.#dueLookAt = 0
    this.#pace.hint()
  }

  get #mayRead(): boolean {
    return (
      this.#problem === undefined &&
      this.#shards.isSafe &&
      this.#book.room.bytes > 0 &&
      performance.now() >= this.#readAt
    )
  }

  /** Small pages cost as much as large ones: with little room, not at once. */
  get #readAt(): number {
    const { messages } = this.#book.room
    if (messages === 0) return Number.POSITIVE_INFINITY
    return this.#isMany(messages) ? this.#pace.dueAt : this.#pace.dueAt + SPARSE_MS
  }

  async #read(): Promise<void> {
    const startedAt = performance.now()
    const shards = this.#shards.reading
    const due = startedAt >= this.#dueLookAt ? await this.#readDue(shards) : 0
    const ready = await this.#readReady(shards)
    const found =
      ready * 2 >= Math.min(PAGE, this.#options.windowMessages) ? 'much' : ready + due > 0 ? 'some' : 'nothing'
    this.#pace.looked(performance.now() - startedAt, found)
  }

  /** Rows that are tried again may take half of the room. */
  async #readDue(shards: readonly number[]): Promise<number> {
    this.#dueLookAt = performance.now() + this.#options.pollMs
    const { messages, bytes } = this.#book.room
    const page = await this.#table.due({
      shards,
      hand: this.#book.positions,
      messages: Math.min(PAGE, Math.ceil(messages / 2)),
      bytes: Math.ceil(bytes / 2),
    })
    if (page.length > 0) this.#dueLookAt = 0
    this.#book.take(page, this.#shards.epochOf)
    this.#pump()
    return page.length
  }

  async #readReady(shards: readonly number[]): Promise<number> {
    const { messages, bytes } = this.#book.room
    if (messages === 0 || bytes === 0) return 0
    const page = await this.#table.ready({
      shards,
      hand: this.#book.positions,
      crowded: this.#book.crowded,
      messages: Math.min(PAGE, messages),
      bytes,
    })
    const blocked = this.#book.take(page, this.#shards.epochOf)
    this.#pump()
    await this.#hold(blocked)
    return page.length
  }

  /** Moved once, so that not every look goes over all rows of a key that waits. */
  async #hold(blocked: readonly OutboxRow[]): Promise<void> {
    if (blocked.length === 0) return
    await this.#table.hold(blocked, this.#shards.epochOf)
    await this.#promote([...new Set(blocked.map(({ key }) => key!))])
  }

  /** Publishes whatever may fly. */
  #pump(): void {
    if (this.#isClosing || !this.#shards.isSafe || this.#problem !== undefined || performance.now() < this.#sendFrom)
      return
    for (let entry = this.#book.next(); entry; entry = this.#book.next()) this.#send(entry)
  }

  #send(entry: Entry<OutboxRow>): void {
    this.#sender.send(entry.row).then(
      () => this.#confirmed(entry),
      (error: unknown) => this.#failed(entry, error),
    )
  }

  #confirmed(entry: Entry<OutboxRow>): void {
    const { row } = entry
    this.#book.confirmed(entry)
    this.#sender.forget(row)
    if (this.#parts.connection.options.events.wanted('outbox.sent')) this.#tellSent(row)
    this.#landed()
  }

  #failed(entry: Entry<OutboxRow>, error: unknown): void {
    const unanswered = this.#isClosing && error instanceof PublishFailed && error.retryable
    const verdict = unanswered ? 'again' : this.#sender.judge(entry.row, error)
    if (verdict === 'again') {
      this.#sendFrom = performance.now() + AGAIN_MS
      this.#book.again(entry)
    } else this.#book.failed(entry, verdict)
    this.#landed()
  }

  #landed(): void {
    this.#pump()
    const { flying, unsettled } = this.#book
    if (flying === 0 || this.#isMany(unsettled)) this.#pace.wake()
  }

  /** The broker has been out of reach for so long that others, which may reach it, shall have our rows. */
  get #isAbandoned(): boolean {
    const { leaseMs } = this.#options
    return !this.#isClosing && this.#brokerLostAt !== undefined && performance.now() - this.#brokerLostAt > leaseMs
  }

  async #abandon(): Promise<void> {
    if (this.#shards.count > 0) {
      this.#book.keep(() => false)
      await this.#shards.leave()
    }
  }

  #watch(): void {
    const { outbox } = this.#options
    if (typeof outbox !== 'string') this.#unwatch.push(outbox.onAdded(() => this.#pace.hint()))
    this.#unwatch.push(this.#parts.connection.onChange(() => this.#brokerChanged()))
    this.#brokerChanged()
  }

  #brokerChanged(): void {
    const lost = this.#sender.problem !== undefined
    if (!lost) {
      if (this.#brokerLostAt !== undefined) this.#shards.hurry()
      this.#brokerLostAt = undefined
      this.#sendFrom = 0
      this.#pump()
    } else this.#brokerLostAt ??= performance.now()
    this.#judgeState()
    this.#pace.wake()
  }

  #judgeState(): void {
    if (this.#state !== 'running' && this.#state !== 'paused') return
    this.#become(this.#problem === undefined ? 'running' : 'paused')
    this.#pump()
  }

  #become(to: State): void {
    const from = this.#state
    if (from === to) return
    this.#state = to
    const error = to === 'paused' ? (this.#database ?? new Error(this.#problem)) : undefined
    this.#parts.connection.options.events.emit('relay.state', { outbox: this.name, from, to, error })
  }

  #lookSoon(failures: readonly { readonly verdict: Verdict }[]): void {
    const soonestMs = Math.min(...failures.map(({ verdict }) => verdict.delayMs))
    this.#dueLookAt = Math.min(this.#dueLookAt, performance.now() + soonestMs)
  }

  #tellSent(row: OutboxRow): void {
    const { message_id: messageId, transaction_id: transactionId, exchange, routing_key: routingKey } = row
    const ageMs = row.ageMs + performance.now() - row.readAt
    const data = { outbox: this.name, messageId, transactionId, exchange, routingKey, ageMs }
    this.#parts.connection.options.events.emit('outbox.sent', data)
  }

  #tellFailure(row: OutboxRow, { state, attempts, delayMs, error }: Verdict): void {
    const { events } = this.#parts.connection.options
    const ids = { outbox: this.name, messageId: row.message_id, transactionId: row.transaction_id }
    if (state === 'parked') events.emit('outbox.parked', { ...ids, attempts, error })
    else events.emit('outbox.held', { ...ids, attempt: attempts, delayMs, error })
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
    await this.#settle().catch(() => {})
    await this.#shards.leave().catch(() => {})
    this.#become('closed')
    this.#parts.onClosed()
  }

  /** A statement that is not answered within a lease is given up on: all of them may be repeated. */
  #bounded(ask: Ask): Ask {
    const { leaseMs } = this.#options
    const late = () => new DatabaseUnavailable(`${this.#doing}: Postgres did not answer within ${leaseMs} ms`)
    return (sql, parameters) => within(ask(sql, parameters), leaseMs, late)
  }

  #makeSender(): Sender {
    const { connection, delayRoute, forgetDelays } = this.#parts
    const { publishDeadlineMs: deadlineMs, attempts, backoff } = this.#options
    return new Sender({
      connection,
      publisher: this.#publisher,
      delayRoute,
      forgetDelays,
      deadlineMs,
      attempts,
      backoff,
    })
  }

  #makeUpkeep(ask: Ask): Upkeep {
    const { schema, keepSentMs, backlogEveryMs } = this.#options
    const { events } = this.#parts.connection.options
    const shards = () => this.#shards.reading
    return new Upkeep({ ask, table: this.#table, events, name: this.name, schema, shards, keepSentMs, backlogEveryMs })
  }

  #makeListener(): Listener {
    const { pool, schema } = this.#options
    const hurry = () => {
      this.#shards.hurry()
      this.#pace.wake()
    }
    const on = new Map([
      [HINT_CHANNEL, () => this.#pace.hint()],
      [RELAYS_CHANNEL, hurry],
    ])
    return new Listener(pool, `${schema}.${this.name}`, on)
  }
}

function checkTwin(outbox: string | Outbox, schema: string): void {
  if (typeof outbox === 'string' || outbox.schema === schema) return
  throw new InvalidOption(`relay(): expected schema to be that of the outbox, "${outbox.schema}", got "${schema}"`)
}

function databasePauseMs(failures: number): number {
  const ceiling = Math.min(DATABASE_PAUSE_CAP_MS, DATABASE_PAUSE_BASE_MS * 2 ** Math.min(failures - 1, 16))
  return ceiling * (0.5 + Math.random() / 2)
}
