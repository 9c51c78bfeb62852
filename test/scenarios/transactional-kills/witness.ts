// Sees every copy of every message on both legs, and knows in the end what was committed and done: the books.

import { readFileSync, writeFileSync } from 'node:fs'
import { type Channel, type ChannelModel, connect } from 'amqplib'
import { connect as connectSurehop, deadQueueOf, workQueueTopology } from '../../../lib/index.ts'
import { checkQueueOf, halfQueueOf, parkedQueueOf } from '../../../lib/transactional-message/half-queues.ts'
import type { Schema } from '../../support/database.ts'
import { unique, uniqueExchange, uniqueQueue } from '../../support/unique.ts'
import { type Books, count } from './ledger.ts'
import type { Place } from './place.ts'

/** Ours, beside Surehop's: no unique constraint on effects, which would hide what is to be counted. */
const TABLES = `
CREATE TABLE counters (place text PRIMARY KEY, orders integer NOT NULL DEFAULT 0);
CREATE TABLE orders (id text PRIMARY KEY, messages integer NOT NULL, place text, number integer, key text);
CREATE TABLE effects (message text NOT NULL);
`

/** Names a line of queues, and makes them. */
export async function openPlace(schema: Schema, folder: string): Promise<Place> {
  const charges = unique('charges')
  const place: Place = {
    amqp: process.env['AMQP_URL']!,
    redis: process.env['REDIS_URL']!,
    database: schema.url,
    schema: schema.name,
    events: uniqueExchange('events'),
    work: uniqueQueue('work'),
    told: uniqueExchange('told'),
    orders: unique('orders'),
    stock: unique('stock'),
    charges,
    book: `${folder}/${charges}`,
  }
  writeFileSync(place.book, '')
  await schema.pool.query('INSERT INTO counters (place) VALUES ($1)', [place.orders])
  await using surehop = await connectSurehop({ amqp: place.amqp, service: 'kills' })
  const exchanges = [place.events, place.told].map((name) => ({ name, type: 'topic' as const }))
  const bindings = [{ source: place.events, queue: place.work, routingKey: '#' }]
  await surehop.declare({ ...workQueueTopology(place.work), exchanges, bindings })
  return place
}

export async function makeTables(schema: Schema): Promise<void> {
  await schema.pool.query(TABLES)
}

/** Watches all places. */
export class Witness {
  readonly arrived = new Map<string, number>()
  readonly outputs = new Map<string, Map<string, number>>()
  readonly #schema: Schema
  readonly #places: readonly Place[]
  readonly #connection: ChannelModel
  readonly #channel: Channel
  /** When something was seen last, on the monotonic clock. */
  seenAt = 0

  static async open(schema: Schema, places: readonly Place[]): Promise<Witness> {
    const connection = await connect(process.env['AMQP_URL']!)
    const witness = new Witness(schema, places, connection, await connection.createChannel())
    await witness.#watch()
    return witness
  }

  constructor(schema: Schema, places: readonly Place[], connection: ChannelModel, channel: Channel) {
    this.#schema = schema
    this.#places = places
    this.#connection = connection
    this.#channel = channel
  }

  /** As it stands now. */
  async books(): Promise<Books> {
    const { rows: orders } = await this.#schema.pool.query(
      'SELECT id, messages, place, key FROM orders ORDER BY number',
    )
    const { rows: effects } = await this.#schema.pool.query(
      'SELECT message, count(*)::int AS times FROM effects GROUP BY 1',
    )
    const charges = this.#places.flatMap(({ book }) => chargesIn(readFileSync(book, 'utf8')))
    const committed: Transaction[] = [...orders, ...charges]
    return {
      committed: new Set(committed.flatMap(idsOf)),
      keys: keysOf(orders),
      arrived: this.arrived,
      effects: new Map(effects.map(({ message, times }) => [message, times])),
      outputs: this.outputs,
    }
  }

  /** What still lies somewhere: in a queue of the way, dead, undecided, or unsent in an outbox. */
  async left(): Promise<Readonly<Record<string, number>>> {
    const { schema } = this.#places[0]!
    const { rows } = await this.#schema.pool.query(
      `SELECT state, count(*)::int AS rows FROM ${schema}.outbox GROUP BY 1`,
    )
    const left: Record<string, number> = Object.fromEntries(
      rows.map(({ state, rows }) => [`outbox rows ${state}`, rows]),
    )
    for (const { work, charges } of this.#places)
      for (const queue of [
        work,
        deadQueueOf(work),
        halfQueueOf(charges),
        checkQueueOf(charges),
        parkedQueueOf(charges),
      ])
        left[queue] = await this.#readyIn(queue)
    return Object.fromEntries(Object.entries(left).filter(([, number]) => number > 0))
  }

  /** A queue that nobody has declared holds nothing; asking for it costs a channel. */
  async #readyIn(queue: string): Promise<number> {
    const channel = await this.#connection.createChannel()
    channel.on('error', () => {})
    try {
      const { messageCount } = await channel.checkQueue(queue)
      await channel.close()
      return messageCount
    } catch {
      return 0
    }
  }

  /**
   * The broker gives up on a message that it has delivered twenty times, as it must; here consumers die more often than that. The
   * operator sends it again, those that are done, too: the inbox drops them.
   */
  async replayTooOftenDelivered(): Promise<number> {
    let replayed = 0
    for (const { work } of this.#places) {
      if ((await this.#readyIn(deadQueueOf(work))) === 0) continue
      await using surehop = await connectSurehop({ amqp: process.env['AMQP_URL']!, service: 'operator' })
      const options = { perSecond: 0, watch: false, force: true }
      const where = 'reason=delivery_limit'
      replayed += (await surehop.deadLetters(work).replay({ where }, options)).replayed
    }
    return replayed
  }

  async close(): Promise<void> {
    for (const { charges } of this.#places)
      for (const queue of [halfQueueOf(charges), checkQueueOf(charges), parkedQueueOf(charges)])
        await this.#channel.deleteQueue(queue)
    await this.#connection.close()
  }

  async #watch(): Promise<void> {
    await this.#channel.prefetch(1_000)
    for (const { events, told } of this.#places) {
      await this.#see(events, (id) => count(this.arrived, id))
      await this.#see(told, (id, body) => {
        const { of } = JSON.parse(body) as { of: string }
        if (!this.outputs.has(of)) this.outputs.set(of, new Map())
        count(this.outputs.get(of)!, id)
      })
    }
  }

  async #see(exchange: string, tell: (id: string, body: string) => void): Promise<void> {
    const { queue } = await this.#channel.assertQueue('', { exclusive: true })
    await this.#channel.bindQueue(queue, exchange, '#')
    const take = (message: { content: Buffer; properties: { messageId?: string } } | null) => {
      if (!message) return
      this.seenAt = performance.now()
      tell(String(message.properties.messageId), message.content.toString())
    }
    await this.#channel.consume(queue, take, { noAck: true })
  }
}

interface Transaction {
  readonly id: string
  readonly messages: number
}

function idsOf({ id, messages }: Transaction): string[] {
  return Array.from({ length: messages }, (_, i) => `${id}.${i}`)
}

/** Keys of one place are not those of another. */
function keysOf(orders: readonly (Transaction & { readonly place: string; readonly key: string | null })[]) {
  const keys = new Map<string, string[]>()
  for (const order of orders) {
    if (order.key === null) continue
    const name = `${order.place} ${order.key}`
    keys.set(name, [...(keys.get(name) ?? []), ...idsOf(order)])
  }
  return keys
}

/** Of two lines of one transaction the first counts: see half.ts. */
function chargesIn(lines: string): Transaction[] {
  const first = new Map<string, number>()
  for (const line of lines.split('\n')) {
    const [id = '', word, messages] = line.split(' ')
    if (id !== '' && !first.has(id)) first.set(id, word === 'yes' ? Number(messages) : 0)
  }
  return [...first].map(([id, messages]) => ({ id, messages })).filter(({ messages }) => messages > 0)
}
