// What the fleet makes in the broker and in the database, and what it finds there in the end.
//
// Promises: names that no other fleet has; `survey` writes down what is left of its messages wherever they may lie, dead letters with
// the reason of their story; `close` removes all it has made.

import { type Channel, type ChannelModel, type ConsumeMessage, connect as connectRaw } from 'amqplib'
import { connect, deadQueueOf, HEADER, migrate, type Surehop, workQueueTopology } from '../../../lib/index.ts'
import { freshSchema, type Schema } from '../../support/database.ts'
import { eventually, within } from '../../support/eventually.ts'
import { unique } from '../../support/unique.ts'
import type { Look } from '../ledger/cast.ts'
import type { LedgerWriter } from '../ledger/writer.ts'
import { monotonicNs, type Path } from '../ledger.ts'
import { QUIET } from '../reconcile/letters.ts'
import { BY_BROKER } from '../reconcile/runs.ts'
import type { Names } from '../workers/job.ts'
import { TABLES } from '../workers/sql.ts'

const PAGE = 20_000
/** Whose transaction, or whose work, is done. */
const COMMITTED =
  'SELECT id FROM (SELECT id FROM orders UNION ALL SELECT id FROM works WHERE done) AS known WHERE id > $1 ORDER BY id LIMIT $2'
const DELAY_LEVELS = 25
const ANSWER_WITHIN_MS = 15_000
const SURVEY_WITHIN_MS = 60_000
const LET_GO_WITHIN_MS = 20_000

/** Type of a half message in its queue: its id is the transaction's. */
const HALF = 'surehop.half'

/** How full something is, by its name; nothing that is empty. */
export type Fill = Readonly<Record<string, number>>

/** See the head of this file. */
export class Ground {
  readonly names: Names
  readonly brokerVersion: string
  readonly #amqp: readonly string[]
  readonly #schema: Schema

  /** Makes schema, tables, queues and exchange. */
  static async make(amqp: readonly string[], postgres: string, singleActive: readonly Path[]): Promise<Ground> {
    const schema = await freshSchema({ url: postgres })
    try {
      await migrate(schema.pool, { schema: schema.name })
      await schema.pool.query(TABLES)
      const names = namesIn(schema.name)
      await using surehop = await connect({ amqp, service: names.service })
      await declare(surehop, names, singleActive)
      for (const id of QUIET) await surehop.producer().send(deadQueueOf(names.quiet), { messageId: id, body: {} })
      return new Ground(amqp, schema, names, surehop.brokerVersion ?? '0')
    } catch (error) {
      await schema.close()
      throw error
    }
  }

  private constructor(amqp: readonly string[], schema: Schema, names: Names, brokerVersion: string) {
    this.#amqp = amqp
    this.#schema = schema
    this.names = names
    this.brokerVersion = brokerVersion
  }

  /** For the workers: the database, with our schema on the search path. */
  get postgres(): string {
    return this.#schema.url
  }

  /** What is on its way: in queues, ready, and in the outboxes. */
  async onTheWay(): Promise<Fill> {
    const { direct, inbox, told } = this.names
    const rows = this.#schema.pool.query(
      "SELECT name, count(*)::int AS rows FROM outbox WHERE state <> 'sent' GROUP BY 1",
    )
    const queues = this.#withBroker(async (connection) => {
      const counts: Record<string, number> = {}
      for (const queue of [direct, inbox, told, ...halfQueues(this.names), ...delays()])
        counts[queue] = await readyIn(connection, queue)
      return counts
    })
    const counts = Object.fromEntries((await rows).rows.map((row) => [`outbox ${row.name}`, row.rows]))
    return Object.fromEntries(Object.entries({ ...counts, ...(await queues) }).filter(([, count]) => count > 0))
  }

  /**
   * Writes down what is there now: nobody must be at work any more. Where accepted messages are missing, it ends by deleting the
   * queues, to see whether the broker still holds those.
   */
  survey(ledger: LedgerWriter, missing: readonly string[] = []): Promise<void> {
    const look = async () => {
      const letters = await this.#withBroker((connection) => this.#lettersIn(connection))
      const lie = new Set(letters.map(({ id }) => id))
      const unseen = missing.filter((id) => !lie.has(id))
      if (unseen.length > 0)
        letters.push(...(await this.#withBroker((connection) => this.#heldBack(connection, unseen))))
      ledger.write(await this.#withBroker((connection) => this.#lastLook(connection)))
      await this.#rows(ledger)
      for (const { id, where, why, generation } of letters) {
        const at = monotonicNs()
        ledger.write(why === undefined ? { is: 'left', at, id, where } : { is: 'dead', at, id, why })
        if (why !== undefined) ledger.write({ is: 'letter', at, id, generation })
      }
    }
    return eventually(look, { withinMs: SURVEY_WITHIN_MS, what: 'a look at all that is left' })
  }

  async close(): Promise<void> {
    const { direct, inbox, told, quiet, events } = this.names
    const letters = [direct, inbox, told, quiet].flatMap((queue) => [deadQueueOf(queue), `${queue}.archive`])
    const queues = [...letters, quiet, ...halfQueues(this.names)]
    const remove = async (connection: ChannelModel) => {
      await this.#removeQueues(connection)
      for (const queue of queues) await onChannel(connection, (channel) => channel.deleteQueue(queue))
      await onChannel(connection, (channel) => channel.deleteExchange(events))
    }
    await this.#withBroker(remove).catch(() => {})
    await this.#schema.close()
  }

  async #rows(ledger: LedgerWriter): Promise<void> {
    const { pool } = this.#schema
    const pages = async (next: (after: string) => Promise<string | undefined>) => {
      for (let after: string | undefined = ''; after !== undefined; ) {
        after = await next(after)
        ledger.flush()
      }
    }
    await pages(async (after) => {
      const { rows } = await pool.query(COMMITTED, [after, PAGE])
      for (const { id } of rows) ledger.note({ is: 'committed', at: monotonicNs(), id })
      return rows.at(-1)?.id
    })
    await pages(async (after) => {
      const from = after === '' ? 0 : after
      const { rows } = await pool.query('SELECT place, id FROM effects WHERE place > $1 ORDER BY place LIMIT $2', [
        from,
        PAGE,
      ])
      for (const { place, id } of rows) ledger.note({ is: 'done', at: monotonicNs(), id, place: Number(place) })
      return rows.at(-1)?.place
    })
    const { rows } = await pool.query("SELECT name, state, message_id FROM outbox WHERE state <> 'sent' LIMIT $1", [
      PAGE,
    ])
    for (const { name, state, message_id: id } of rows)
      ledger.write({ is: 'left', at: monotonicNs(), id, where: `outbox ${name}, ${state}` })
  }

  async #lettersIn(connection: ChannelModel): Promise<Lying[]> {
    const { direct, inbox, told } = this.names
    const lying: Lying[] = []
    for (const queue of [direct, inbox, told, ...halfQueues(this.names), ...delays()])
      lying.push(...(await this.#ours(connection, queue, false)))
    for (const queue of [direct, inbox, told]) lying.push(...(await this.#ours(connection, deadQueueOf(queue), true)))
    return lying
  }

  /**
   * What RabbitMQ's own dead-lettering holds, no look shows: 3.10 was seen to hold retries for minutes after a lost majority. It lets
   * go of them when the queue they are for is gone.
   */
  async #heldBack(connection: ChannelModel, unseen: readonly string[]): Promise<Lying[]> {
    await this.#removeQueues(connection)
    let held: Lying[] = []
    const look = async () => {
      const letters = await this.#ours(connection, UNDELIVERABLE, false)
      held = letters.filter(({ id }) => unseen.includes(id))
      if (held.length < unseen.length) throw new Error(`${held.length} of ${unseen.length} missing messages have come`)
    }
    await eventually(look, { withinMs: LET_GO_WITHIN_MS }).catch(() => {})
    return held.map((lying) => ({ ...lying, where: 'a delay queue, held back by the broker when it was due' }))
  }

  /** At the letters that nobody was to touch, without the library. */
  async #lastLook(connection: ChannelModel): Promise<Look> {
    const letters = await readAll(connection, deadQueueOf(this.names.quiet))
    const seen = letters.map(({ id, generation }) => `${id}:${generation}`)
    const counts = [seen.length, seen.length, seen.length] as const
    return {
      is: 'looked',
      at: monotonicNs(),
      queue: 'quiet',
      spell: 0,
      counts,
      first: seen,
      second: seen,
      storyless: [],
    }
  }

  async #removeQueues(connection: ChannelModel): Promise<void> {
    const { direct, inbox, told } = this.names
    for (const queue of [direct, inbox, told]) await onChannel(connection, (channel) => channel.deleteQueue(queue))
  }

  async #ours(connection: ChannelModel, queue: string, isDead: boolean): Promise<Lying[]> {
    const letters = await readAll(connection, queue)
    const ours = letters.filter(({ service }) => service === this.names.service)
    return ours.map(({ id, why, generation }) => ({ id, where: queue, why: isDead ? why : undefined, generation }))
  }

  async #withBroker<T>(work: (connection: ChannelModel) => Promise<T>): Promise<T> {
    const connection = await firstThatAnswers(this.#amqp)
    connection.on('error', () => {})
    try {
      return await within(work(connection), { withinMs: SURVEY_WITHIN_MS, what: "the broker's answer" })
    } finally {
      await within(connection.close(), { withinMs: ANSWER_WITHIN_MS }).catch(() => {})
    }
  }
}

interface Lying {
  readonly id: string
  readonly where: string
  /** Of a dead letter. */
  readonly why: string | undefined
  readonly generation: number
}

/** Where messages end that were due when their queue was gone. */
const UNDELIVERABLE = deadQueueOf('surehop.undeliverable')

function namesIn(schema: string): Names {
  const service = unique('lab')
  const name = (what: string) => `${service}.${what}`
  const queues = {
    direct: name('direct'),
    events: name('events'),
    inbox: name('inbox'),
    told: name('told'),
    quiet: name('quiet'),
    halves: name('halves'),
  }
  return { service, ...queues, prefix: service, schema }
}

/** As the consumers will, so that nothing is offered in vain before they come. */
async function declare(surehop: Surehop, names: Names, singleActive: readonly Path[]): Promise<void> {
  const { direct, events, inbox, told, quiet } = names
  await surehop.declare(workQueueTopology(direct, { singleActiveConsumer: singleActive.includes('direct') }))
  await surehop.declare(workQueueTopology(told))
  await surehop.declare(workQueueTopology(quiet))
  const exchanges = [{ name: events, type: 'topic' as const }]
  const bindings = [{ source: events, queue: inbox, routingKey: '#' }]
  const topology = workQueueTopology(inbox, { singleActiveConsumer: singleActive.includes('outbox') })
  await surehop.declare({ ...topology, exchanges, bindings })
}

/** Of the sender of half messages; not there where there is none. */
function halfQueues({ halves }: Names): string[] {
  return ['half', 'half.check', 'half.parked'].map((queue) => `${halves}.${queue}`)
}

function delays(): string[] {
  return Array.from({ length: DELAY_LEVELS }, (_, level) => `surehop.delay.${`${level}`.padStart(2, '0')}`)
}

async function firstThatAnswers(urls: readonly string[]): Promise<ChannelModel> {
  const errors: unknown[] = []
  for (const url of urls) {
    try {
      return await connectRaw(url, { timeout: ANSWER_WITHIN_MS })
    } catch (error) {
      errors.push(error)
    }
  }
  throw new AggregateError(errors, `none of ${urls.length} brokers answers`)
}

/** What is refused closes the channel: one each. Undefined: refused, there is no such queue. */
async function onChannel<T>(connection: ChannelModel, ask: (channel: Channel) => Promise<T>): Promise<T | undefined> {
  const channel = await connection.createChannel()
  channel.on('error', () => {})
  try {
    const answer = await ask(channel)
    await channel.close()
    return answer
  } catch (error) {
    if ((error as { code?: number }).code === 404) return undefined
    throw error
  }
}

async function readyIn(connection: ChannelModel, queue: string): Promise<number> {
  return (await onChannel(connection, (channel) => channel.checkQueue(queue)))?.messageCount ?? 0
}

interface Letter {
  readonly id: string
  readonly service: string | undefined
  readonly why: string
  readonly generation: number
}

/** All messages that are ready; the end of the channel gives them back. */
async function readAll(connection: ChannelModel, queue: string): Promise<Letter[]> {
  const expected = await readyIn(connection, queue)
  if (expected === 0) return []
  const channel = await connection.createChannel()
  channel.on('error', () => {})
  const letters: Letter[] = []
  const all = new Promise<void>((resolve, reject) => {
    const take = (raw: ConsumeMessage | null) => {
      if (!raw) return reject(new Error(`the broker cancelled the look at ${queue}`))
      letters.push(letterOf(raw))
      if (letters.length === expected) resolve()
    }
    channel.consume(queue, take, { noAck: false }).catch(reject)
  })
  await within(all, { withinMs: ANSWER_WITHIN_MS, what: `a look at the ${expected} messages of ${queue}` })
  await channel.close()
  return letters
}

function letterOf({ properties }: ConsumeMessage): Letter {
  const { messageId, appId, headers, type } = properties
  const reason: unknown = headers?.[HEADER.reason]
  const id = String(type === HALF ? headers?.[HEADER.transactionId] : messageId)
  const generation = Number(headers?.[HEADER.generation] ?? 0)
  return { id, service: appId, why: reason === undefined ? BY_BROKER : String(reason), generation }
}
