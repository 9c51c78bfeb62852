/**
 * The front of the house: one `connect()` per process gives producers, consumers and dead letters on two connections,
 * one for publishing and one for consuming (a memory alarm freezes every channel of a publishing connection, acks included).
 */
import { hostname } from 'node:os'
import { Connection } from './connection/connection.ts'
import type { TlsOptions } from './connection/connection-options.ts'
import { type ConsumeOptions, createConsumer } from './consume.ts'
import type { Consumer } from './consumer/consumer.ts'
import type { Handler } from './consumer/handler.ts'
import { DeadLetters, type DeadLettersOptions } from './dead-letter/dead-letters.ts'
import { Closed, ResourceMissing } from './errors.ts'
import { newMessageId } from './message.ts'
import { Events, type EventTable } from './observability/events.ts'
import { type Logger, logEvents } from './observability/log.ts'
import { checkOptions, either, given, having, integer, listOf, needed, number, object, text } from './options.ts'
import { Relay } from './outbox/relay.ts'
import type { RelayOptions } from './outbox/relay-options.ts'
import { checkProducerOptions, PRODUCER_DEFAULTS, Producer, type ProducerOptions } from './producer/producer.ts'
import { Publisher } from './producer/publisher.ts'
import { Declarer } from './topology/declarer.ts'
import { EMPTY, type Topology } from './topology/topology.ts'
import { Transactions, type TransactionsOptions } from './transactional-message/desk.ts'
import { createTransactional } from './transactional-message/open.ts'
import type { TransactionalOptions } from './transactional-message/options.ts'
import type { Transactional } from './transactional-message/transactional-message.ts'

/** Options of `connect()`. Durations in ms unless the name says otherwise. */
export interface ConnectOptions {
  /** One AMQP URL, or several nodes of one cluster: `amqp://user:password@host:5672/vhost`, or `amqps://...`. */
  readonly amqp: string | readonly string[]
  /** Name of this service: sent as `app_id`, shown in the broker and in dead letters. */
  readonly service: string
  /** A pino logger, or anything with debug/info/warn/error. Default: no logs. */
  readonly logger?: Logger
  /** TLS material for `amqps://`. */
  readonly tls?: TlsOptions
  /** How long `connect()` waits for the first connection. Default 30,000. */
  readonly connectTimeoutMs?: number
  /** AMQP heartbeat, seconds; a dead link is noticed within about three of them. Default 10. */
  readonly heartbeatSeconds?: number
  /** How long one attempt to connect may take. Default 10,000. */
  readonly handshakeTimeoutMs?: number
  /** How long one channel operation (declare, consume, close) may take. Default 10,000. */
  readonly rpcTimeoutMs?: number
  /** First pause before a reconnect; doubles, with jitter. Default 250. */
  readonly reconnectBaseMs?: number
  /** Longest pause before a reconnect. Default 15,000. */
  readonly reconnectCapMs?: number
  /** How long `close()` waits for open publishes and running handlers. Default 30,000. */
  readonly drainMs?: number
}

const DEFAULTS = {
  connectTimeoutMs: 30_000,
  heartbeatSeconds: 10,
  handshakeTimeoutMs: 10_000,
  rpcTimeoutMs: 10_000,
  reconnectBaseMs: 250,
  reconnectCapMs: 15_000,
  drainMs: 30_000,
} as const

const MAX_MS = 2_147_483_647

/** So long that a URL is never too long for it: a refusal would show its beginning, password included. */
const MAX_URL_BYTES = 1_000_000

const RULES = {
  amqp: needed(either(text(MAX_URL_BYTES), listOf(text(MAX_URL_BYTES), 1))),
  service: needed(text(128)),
  logger: having('a logger with debug, info, warn and error', 'debug', 'info', 'warn', 'error'),
  tls: object,
  connectTimeoutMs: number(1, MAX_MS),
  heartbeatSeconds: integer(1, 65_535),
  handshakeTimeoutMs: number(1, MAX_MS),
  rpcTimeoutMs: number(1, MAX_MS),
  reconnectBaseMs: number(1, MAX_MS),
  reconnectCapMs: number(1, MAX_MS),
  drainMs: number(0, MAX_MS),
}

/** Is this instance fit to work, and if not, why. */
export interface Health {
  readonly healthy: boolean
  /** Sentences for an operator; empty when healthy. */
  readonly reasons: readonly string[]
  /** How far behind the relays of this instance are: rows that wait, the age of the oldest in ms, parked ones. Absent without relays. */
  readonly outboxes?: readonly EventTable['outbox.backlog'][]
}

/**
 * Connects to RabbitMQ. Resolves when the broker has accepted us.
 * @throws InvalidOption; ConnectionRefused at once for a wrong password, vhost or TLS set-up; NotConnected after `connectTimeoutMs`
 */
export async function connect(options: ConnectOptions): Promise<Surehop> {
  checkOptions('connect()', options, RULES)
  const surehop = new Surehop(options)
  try {
    await surehop.opened()
  } catch (error) {
    await surehop.close()
    throw error
  }
  return surehop
}

/** One connection to RabbitMQ and everything opened on it. Made by {@link connect}. */
export class Surehop {
  readonly service: string
  readonly #options: typeof DEFAULTS & ConnectOptions
  readonly #events: Events
  readonly #stopLogs: () => void
  readonly #publish: Connection
  #consume: Connection | undefined
  #declarer: Declarer | undefined
  readonly #publishers = new Set<Publisher>()
  readonly #consumers = new Set<Consumer>()
  readonly #transactionals = new Set<Transactional>()
  readonly #relays = new Set<Relay>()
  #inner: { readonly publisher: Publisher; readonly producer: Producer } | undefined
  #closed: Promise<void> | undefined

  /** Use `connect()`. */
  constructor(options: ConnectOptions) {
    this.#options = {
      ...DEFAULTS,
      ...given(options),
    } as typeof DEFAULTS & ConnectOptions
    this.service = options.service
    this.#events = new Events(newMessageId())
    this.#stopLogs = options.logger ? logEvents(this.#events.instance, options.logger) : () => {}
    this.#publish = this.#connection('publish')
  }

  /** Waits for the first connection; `connect()` does. */
  opened(): Promise<void> {
    return this.#publish.ready(this.#options.connectTimeoutMs)
  }

  /**
   * A producer with a confirm channel and window of its own: make one and keep it, or close it.
   * @throws InvalidOption
   */
  producer(options: ProducerOptions = {}): Producer {
    return this.#producer(options).producer
  }

  /**
   * Consumes a queue: declares it with its dead letters, archive and delays, and runs `handler` for each message. Resolves when
   * the broker has accepted the consumer.
   * @throws InvalidOption, TopologyMismatch, PermissionRefused, StoreUnavailable, NotConnected, Closed; nothing is left open then
   */
  async consume<Body = unknown>(
    queue: string,
    options: ConsumeOptions<Body>,
    handler: Handler<Body>,
  ): Promise<Consumer> {
    const declarer = this.#topology()
    this.#inner ??= this.#producer({}, true)
    const { service } = this
    const around = {
      connection: this.#consume!,
      declarer,
      ...this.#inner,
      service,
      host: HOST,
      drainMs: this.#options.drainMs,
    }
    const consumer = createConsumer(queue, options, handler, around)
    for (const before of this.#consumers) if (before.isClosed) this.#consumers.delete(before)
    // Before the first wait: a close() meanwhile must find it.
    this.#consumers.add(consumer)
    try {
      await this.#consume!.ready(this.#options.connectTimeoutMs)
      await consumer.start()
    } catch (error) {
      this.#consumers.delete(consumer)
      throw error
    }
    return consumer
  }

  /**
   * Sends the committed rows of an outbox. Resolves when it has found its tables and runs. Any number of processes may relay the same
   * outbox: they divide the work, and take over from each other.
   * @throws InvalidOption, SchemaMismatch, DatabaseUnavailable, PermissionRefused, Closed; nothing is left open then
   */
  async relay(options: RelayOptions): Promise<Relay> {
    if (this.#closed) throw new Closed('this Surehop instance is closed')
    const relay = new Relay(options, {
      connection: this.#publish,
      delayRoute: (ms, exchange, key) => this.#topology().delayRoute(ms, exchange, key),
      forgetDelays: () => this.#declarer?.forget(),
      drainMs: this.#options.drainMs,
      logger: this.#options.logger,
      onClosed: () => this.#relays.delete(relay),
    })
    this.#relays.add(relay)
    await relay.start()
    return relay
  }

  /**
   * Opens a sender of transactional messages: they are stored first, and sent exactly if local work succeeded. Declares its queues
   * (`<name>.half`, `.half.check`, `.half.parked`) and begins to check back. One name per kind of transaction, the same in all
   * instances of a service.
   * @throws InvalidOption, TopologyMismatch (also when `firstCheckMs` was changed), PermissionRefused, StoreUnavailable, NotConnected,
   *   Closed; nothing is left open then
   */
  async transactional(name: string, options: TransactionalOptions): Promise<Transactional> {
    const declarer = this.#topology()
    this.#inner ??= this.#producer({}, true)
    const { publisher } = this.#inner
    const { drainMs, connectTimeoutMs } = this.#options
    const { service } = this
    const transactional = createTransactional(name, options, {
      connection: this.#consume!,
      declarer,
      publisher,
      service,
      drainMs,
    })
    for (const before of this.#transactionals) if (before.isClosed) this.#transactionals.delete(before)
    this.#transactionals.add(transactional)
    try {
      await this.#consume!.ready(connectTimeoutMs)
      await transactional.start()
    } catch (error) {
      await transactional.close()
      this.#transactionals.delete(transactional)
      throw error
    }
    return transactional
  }

  /**
   * The transactions of a sender that nobody could decide: to look at, and to send back with a verdict.
   * @throws InvalidOption
   */
  transactions(name: string, options: TransactionsOptions = {}): Transactions {
    this.#topology()
    this.#inner ??= this.#producer({}, true)
    return new Transactions(name, options, { connection: this.#consume!, publisher: this.#inner.publisher })
  }

  /**
   * The dead letters of a consumer's queue: to look at, send again, discard, restore, edit, export and import.
   * @throws InvalidOption
   */
  deadLetters(queue: string, options: DeadLettersOptions = {}): DeadLetters {
    const declarer = this.#topology()
    this.#inner ??= this.#producer({}, true)
    const { publisher } = this.#inner
    return new DeadLetters(queue, options, {
      connection: this.#consume!,
      declarer,
      publisher,
      events: this.#events,
    })
  }

  /**
   * Declares exchanges, queues and bindings of your own, at each call; again after a reconnect is up to the caller, since durable things stay.
   * @throws TopologyInvalid, TopologyMismatch, PermissionRefused, NotConnected
   */
  async declare(topology: Partial<Topology>): Promise<void> {
    await this.#topology().declareAnew({ ...EMPTY, ...topology })
  }

  /** The broker's version, e.g. `4.1.2`; undefined while there is no connection. */
  get brokerVersion(): string | undefined {
    return this.#publish.serverVersion
  }

  /**
   * Ready messages and consumers of a queue, or undefined if there is no such queue. Declares nothing.
   * @throws NotConnected, BrokerTimeout, PermissionRefused
   */
  async queueStatus(queue: string): Promise<{ readonly messages: number; readonly consumers: number } | undefined> {
    this.#topology()
    const connection = this.#consume!
    await connection.ready(this.#options.connectTimeoutMs)
    const look = () =>
      connection.withChannel((channel) => connection.rpc(`look at queue "${queue}"`, () => channel.checkQueue(queue)))
    const { messageCount, consumerCount } = await look().catch((error: unknown) => {
      if (error instanceof ResourceMissing) return { messageCount: undefined, consumerCount: 0 }
      throw error
    })
    return messageCount === undefined ? undefined : { messages: messageCount, consumers: consumerCount }
  }

  /** Why this instance is not fit to work, if so. */
  health(): Health {
    const reasons = [
      ...this.#publish.problems,
      ...(this.#consume?.problems ?? []),
      ...[...this.#publishers].flatMap((p) => p.problem ?? []),
      ...[...this.#consumers].flatMap((c) => c.problems),
      ...[...this.#transactionals].flatMap((t) => t.problems),
      ...[...this.#relays].flatMap((relay) => relay.problems),
    ]
    const outboxes = [...this.#relays].flatMap((relay) => relay.backlog ?? [])
    return { healthy: reasons.length === 0, reasons, ...(outboxes.length > 0 ? { outboxes } : {}) }
  }

  /** Stops consumers, then relays; finishes what runs within `drainMs`; closes both connections. Harmless when repeated. */
  close(): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #close(): Promise<void> {
    const { drainMs } = this.#options
    await Promise.all([...this.#consumers].map((consumer) => consumer.close()))
    await Promise.all([...this.#transactionals].map((transactional) => transactional.close()))
    await Promise.all([...this.#relays].map((relay) => relay.close()))
    await Promise.all([...this.#publishers].map((publisher) => publisher.close(drainMs)))
    await Promise.all([this.#publish.close(), this.#consume?.close()])
    this.#stopLogs()
  }

  #producer(options: ProducerOptions, derived = false): { readonly publisher: Publisher; readonly producer: Producer } {
    checkProducerOptions(options)
    if (this.#closed) throw new Closed('this Surehop instance is closed')
    const publisher = new Publisher(this.#publish, { ...PRODUCER_DEFAULTS, ...given(options) })
    this.#publishers.add(publisher)
    publisher.start()
    const delayRoute = (ms: number, exchange: string, key: string) => this.#topology().delayRoute(ms, exchange, key)
    const close = async () => {
      await publisher.close(this.#options.drainMs)
      this.#publishers.delete(publisher)
    }
    const forgetDelays = () => this.#declarer?.forget()
    const parts = { publisher, service: this.service, derived, delayRoute, forgetDelays, close }
    return { publisher, producer: new Producer(parts, options) }
  }

  #connection(role: string): Connection {
    const { amqp, tls, service, heartbeatSeconds, handshakeTimeoutMs, rpcTimeoutMs, reconnectBaseMs, reconnectCapMs } =
      this.#options
    const urls = typeof amqp === 'string' ? [amqp] : amqp
    const timing = { heartbeatSeconds, handshakeTimeoutMs, rpcTimeoutMs, reconnectBaseMs, reconnectCapMs }
    return new Connection({ urls, role, service, tls, events: this.#events, ...timing })
  }

  /** Declarations go over the consuming connection: the broker may block the publishing one. */
  #topology(): Declarer {
    if (this.#closed) throw new Closed('this Surehop instance is closed')
    this.#consume ??= this.#connection('consume')
    this.#declarer ??= new Declarer(this.#consume)
    return this.#declarer
  }
}

/** This machine, for the story of a dead letter. */
export const HOST = hostname()
