// What the tests of the relay share: a schema and an outbox of one's own, a Surehop with relays, and queues whose messages are
// taken as they arrive.

import { type ChannelModel, type ConsumeMessage, connect as connectRaw } from 'amqplib'
import type { PoolClient } from 'pg'
import { type EventData, type EventName, type EventTable, onEvent } from '../../lib/observability/events.ts'
import { Outbox, type OutboxOptions } from '../../lib/outbox/outbox.ts'
import type { OutboxMessage } from '../../lib/outbox/prepare.ts'
import type { Relay } from '../../lib/outbox/relay.ts'
import type { RelayOptions } from '../../lib/outbox/relay-options.ts'
import { migrate } from '../../lib/sql/migrate.ts'
import { type ConnectOptions, connect, type Surehop } from '../../lib/surehop.ts'
import { freshSchema, type Schema } from '../support/database.ts'
import { latch, within } from '../support/eventually.ts'
import { unique, uniqueExchange, uniqueQueue } from '../support/unique.ts'

/** Quick reconnects and closes; everything else as users have it. */
const QUICK = { service: 'test', reconnectBaseMs: 20, reconnectCapMs: 200, drainMs: 3_000 }

/** A message as it came. */
export interface Arrival {
  readonly id: string
  readonly key: string | undefined
  readonly body: unknown
  readonly at: number
  readonly message: ConsumeMessage
}

/** Opened for one test; `close` ends all that it opened. */
export class Relaying {
  readonly name = unique('orders')
  readonly schema: Schema
  readonly outbox: Outbox
  readonly amqp: string
  readonly #raw: ChannelModel
  readonly #open: (() => unknown)[] = []

  static async open(of: { amqp?: string; url?: string } = {}): Promise<Relaying> {
    const schema = await freshSchema({ max: 30, ...(of.url === undefined ? {} : { url: of.url }) })
    await migrate(schema.pool, { schema: schema.name })
    const amqp = of.amqp ?? String(process.env['AMQP_URL'])
    const raw = await connectRaw(amqp, { noDelay: true })
    raw.on('error', () => {})
    return new Relaying(schema, amqp, raw)
  }

  constructor(schema: Schema, amqp: string, raw: ChannelModel) {
    this.schema = schema
    this.amqp = amqp
    this.#raw = raw
    this.outbox = this.anOutbox()
  }

  get pool() {
    return this.schema.pool
  }

  later(close: () => unknown): void {
    this.#open.push(close)
  }

  async close(): Promise<void> {
    for (const close of this.#open.splice(0).reverse()) await close()
    await this.#raw.close().catch(() => {})
    await this.schema.close()
  }

  anOutbox(options: Partial<OutboxOptions> = {}): Outbox {
    return new Outbox({ name: this.name, schema: this.schema.name, ...options })
  }

  async surehop(options: Partial<ConnectOptions> = {}): Promise<Surehop> {
    const surehop = await connect({ amqp: this.amqp, ...QUICK, ...options })
    this.later(() => surehop.close())
    return surehop
  }

  /** A relay on a connection of its own. */
  async relay(options: Partial<RelayOptions> = {}, surehop?: Surehop): Promise<Relay> {
    const on = surehop ?? (await this.surehop())
    return on.relay({ outbox: this.name, schema: this.schema.name, pool: this.pool, ...options })
  }

  /** Adds messages in one transaction that commits. */
  async add(...messages: readonly OutboxMessage[]): Promise<string[]> {
    return this.committed(async (client) => {
      const added = await this.outbox.add(messages, client)
      return added.map(({ messageId }) => messageId)
    })
  }

  async committed<T>(work: (client: PoolClient) => Promise<T>): Promise<T> {
    const client = await this.pool.connect()
    try {
      await client.query('BEGIN')
      const result = await work(client)
      await client.query('COMMIT')
      return result
    } finally {
      client.release()
    }
  }

  /** States of the rows by position. */
  async states(): Promise<string[]> {
    const rows = await this.sql<{ state: string }>(
      'SELECT state FROM {schema}.outbox WHERE name = $1 ORDER BY position',
      [this.name],
    )
    return rows.map(({ state }) => state)
  }

  async sql<T = Record<string, unknown>>(sql: string, parameters: unknown[] = []): Promise<T[]> {
    return (await this.pool.query(sql.replaceAll('{schema}', this.schema.name), parameters)).rows as T[]
  }

  async queue(args: Readonly<Record<string, unknown>> = {}, name = uniqueQueue()): Promise<string> {
    const channel = await this.#raw.createChannel()
    await channel.assertQueue(name, { durable: true, arguments: { 'x-queue-type': 'quorum', ...args } })
    await channel.close()
    return name
  }

  async exchange(name = uniqueExchange()): Promise<string> {
    const channel = await this.#raw.createChannel()
    await channel.assertExchange(name, 'topic', { durable: true })
    await channel.close()
    return name
  }

  async bind(queue: string, exchange: string, pattern: string): Promise<void> {
    const channel = await this.#raw.createChannel()
    await channel.bindQueue(queue, exchange, pattern)
    await channel.close()
  }

  /** Takes whatever arrives in a queue, in that order. */
  async arrivals(queue: string): Promise<Arrivals> {
    const arrivals = new Arrivals()
    const channel = await this.#raw.createChannel()
    channel.on('error', () => {})
    await channel.consume(queue, (message) => message && arrivals.take(message), { noAck: true })
    return arrivals
  }

  /** All events of that name about this outbox from now on. */
  record<N extends EventName & keyof EventTable>(name: N): EventData<N>[] {
    const seen: EventData<N>[] = []
    this.later(onEvent(name, (data) => this.#isOurs(data) && seen.push(data)))
    return seen
  }

  /** The next event of that name about this outbox for which `where` holds. */
  event<N extends EventName>(name: N, where: (data: EventData<N>) => boolean = () => true, withinMs = 20_000) {
    const seen = latch<EventData<N>>()
    const end = onEvent(name, (data) => this.#isOurs(data) && where(data) && seen.resolve(data))
    return within(seen.promise, { what: `the event ${name}`, withinMs }).finally(end)
  }

  #isOurs(data: object): boolean {
    const { outbox } = data as { readonly outbox?: string }
    return outbox === undefined || outbox === this.name
  }
}

/** What has arrived in a queue. */
export class Arrivals {
  readonly all: Arrival[] = []
  #changed = latch()

  take(message: ConsumeMessage): void {
    const { messageId, headers } = message.properties
    const key = headers?.['surehop-key'] as string | undefined
    const text = message.content.toString()
    const body: unknown = message.properties.contentType === 'application/json' ? JSON.parse(text) : text
    this.all.push({ id: String(messageId), key, body, at: Date.now(), message })
    this.#changed.resolve()
    this.#changed = latch()
  }

  get ids(): string[] {
    return this.all.map(({ id }) => id)
  }

  /** First arrivals only. */
  get firsts(): Arrival[] {
    const seen = new Set<string>()
    return this.all.filter(({ id }) => !seen.has(id) && seen.add(id))
  }

  /** Bodies of first arrivals, of one key or of all. */
  bodies(key?: string): unknown[] {
    return this.firsts.filter((it) => key === undefined || it.key === key).map(({ body }) => body)
  }

  /** Waits until so many different messages have come. */
  async count(wanted: number, withinMs = 30_000): Promise<this> {
    const deadline = Date.now() + withinMs
    while (new Set(this.ids).size < wanted) {
      const what = `${wanted} messages (${new Set(this.ids).size} came)`
      await within(this.#changed.promise, { what, withinMs: Math.max(1, deadline - Date.now()) })
    }
    return this
  }

  /** Waits until one has come for which `where` holds. */
  async one(where: (arrival: Arrival) => boolean, withinMs = 30_000): Promise<Arrival> {
    const deadline = Date.now() + withinMs
    for (;;) {
      const found = this.all.find(where)
      if (found) return found
      await within(this.#changed.promise, { what: 'that message', withinMs: Math.max(1, deadline - Date.now()) })
    }
  }
}
