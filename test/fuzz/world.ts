// Every kind of consumer that there is, and one raw publisher: what a batch of hostile messages is sent to.
//
// Promises: every message of a batch is accounted for by its own marker: its handler succeeded, or its letter lies in the dead letters
// with a reason, or it is a copy of one with the same id; and every delivery was settled: nothing comes back when its consumers close.
// Letters go to the archive after each batch, where the command finds them.

import { randomBytes } from 'node:crypto'
import { connect as amqp, type ChannelModel } from 'amqplib'
import type { Pool } from 'pg'
import { z } from 'zod'
import {
  type ConsumeOptions,
  type Consumer,
  connect,
  DeadLetterNow,
  deadQueueOf,
  fixed,
  type Handler,
  type Message,
  migrate,
  onEvent,
  PostgresIdempotencyStore,
  RedisIdempotencyStore,
  type Surehop,
} from '../../lib/index.ts'
import { freshSchema, type Schema } from '../support/database.ts'
import { eventually } from '../support/eventually.ts'
import { unique, uniqueQueue } from '../support/unique.ts'
import { isKept, MARKED, MARKER, markerIn, UNSENDABLE, wrongWith } from './letters.ts'
import { nastyTexts, type Specimen } from './specimens.ts'
import { type Field, FRAME_MAX, headerFrameBytes, type RawMessage, RawPublisher, type Table } from './wire.ts'

/** Nothing has ended for so long, with repeats after 100 ms: nothing more will. */
const STALLED_AFTER_MS = 20_000
const SETTLED_WITHIN_MS = 30_000
/** The broker hands back what a closed channel held a moment after it has said that it is closed. */
const HANDED_BACK_WITHIN_MS = 200
/** Raw messages under way. */
const WINDOW = 64
/** Letters of each queue that nobody can move, at most. */
const STAYING = 200
/** Characters of a line: amqplib sends 64 KiB of headers, and the story needs some of that. */
const ROOM_FOR_A_STORY = 50_000
const SHARED = ['shared-a', 'shared-b', 'shared-c']

/** The consumers, by what is special about them. */
const KINDS = ['plain', 'redis', 'inbox', 'schema', 'ordered', 'digest', 'unguarded'] as const
type Kind = (typeof KINDS)[number]

/** So many queues there are. */
export const QUEUES = KINDS.length

/** A message on its way, and what is known of it. */
interface Sent {
  readonly specimen: Specimen
  readonly marker: string
  readonly queue: string
}

/** What went wrong with which message. */
export class Miscarried extends Error {}

/** All of it, on queues of its own. */
export class World {
  readonly surehop: Surehop
  readonly queues: readonly string[]
  readonly #schema: Schema
  readonly #redis: RedisIdempotencyStore
  readonly #inbox: PostgresIdempotencyStore
  readonly #ending = new AbortController()
  readonly #run = randomBytes(4).toString('hex')
  readonly #troubles: string[] = []
  readonly #handled = new Set<string>()
  readonly #consumers: Consumer[] = []
  #copies = 0
  #buried = 0
  #serial = 0
  #publisher: RawPublisher | undefined
  #raw: ChannelModel | undefined
  /** What became of the messages so far. */
  readonly ends = { handled: 0, dead: 0, kept: 0, copies: 0, sendable: 0 }

  private constructor(surehop: Surehop, schema: Schema, queues: readonly string[]) {
    this.surehop = surehop
    this.#schema = schema
    this.queues = queues
    this.#redis = new RedisIdempotencyStore({ url: process.env['REDIS_URL']! }, { prefix: unique('fuzz') })
    this.#inbox = new PostgresIdempotencyStore({ pool: schema.pool, schema: schema.name })
  }

  static async open(): Promise<World> {
    const schema = await freshSchema({ max: 20 })
    await migrate(schema.pool, { schema: schema.name })
    const surehop = await connect({ amqp: process.env['AMQP_URL']!, service: 'fuzz', drainMs: 10_000 })
    const world = new World(
      surehop,
      schema,
      KINDS.map((kind) => uniqueQueue(`fuzz-${kind}`)),
    )
    await world.#listen()
    await world.#consumeAll()
    return world
  }

  /** Markers of what was handled since the last batch began, or since {@link forget}. */
  get handled(): ReadonlySet<string> {
    return this.#handled
  }

  forget(): void {
    this.#handled.clear()
  }

  get pool(): Pool {
    return this.#schema.pool
  }

  async close(): Promise<void> {
    this.#publisher?.close()
    this.#ending.abort()
    await this.#raw?.close()
    await this.surehop.close()
    await this.#redis.close()
    await this.#inbox.close()
    await this.#schema.close()
  }

  async #listen(): Promise<void> {
    const { signal } = this.#ending
    const mine = ({ queue }: { readonly queue: string }) => this.queues.includes(queue)
    const stop = [
      onEvent('message.duplicate', (event) => void (mine(event) && this.#copies++)),
      onEvent('message.dead-lettered', (event) => void (mine(event) && this.#buried++)),
      onEvent('store.unavailable', (event) => void (mine(event) && this.#trouble('store', event.error))),
      onEvent('connection.state', ({ from, error }) => void (from === 'open' && error && this.#trouble(from, error))),
    ]
    signal.addEventListener('abort', () => {
      for (const end of stop) end()
    })
  }

  #trouble(what: string, error: Error): void {
    // A slow machine is nobody's fault, and is got over.
    if (!this.#ending.signal.aborted && !/in time|heartbeat/i.test(error.message))
      this.#troubles.push(`${what}: ${error.message}`)
  }

  async #consumeAll(): Promise<void> {
    for (const kind of KINDS) this.#consumers.push(await this.#consume(kind))
  }

  #consume(kind: Kind): Promise<Consumer> {
    const queue = this.#queueOf(kind)
    const common = { concurrency: 16, retry: { attempts: 2, backoff: fixed({ delayMs: 100 }) } }
    const handler: Handler = async (message, { attempt }) => this.#handle(message, attempt)
    if (kind === 'inbox') return this.#consumeInbox(queue, common)
    return this.surehop.consume(queue, { ...common, ...this.#optionsOf(kind) }, handler)
  }

  #consumeInbox(queue: string, common: ConsumeOptions): Promise<Consumer> {
    const handler = this.#inbox.transactional(async (message, { client, attempt }) => {
      await client.query('SELECT 1')
      this.#handle(message, attempt)
    })
    return this.surehop.consume(queue, { ...common, idempotency: this.#inbox }, handler)
  }

  #optionsOf(kind: Kind): ConsumeOptions {
    const idempotency = this.#redis
    switch (kind) {
      case 'plain':
        return { identity: 'unguarded', body: 'bytes' }
      case 'schema':
        return { idempotency, schema: z.strictObject({ sku: z.string(), quantity: z.number() }) }
      case 'ordered':
        return { idempotency, orderBy: 'key' }
      case 'digest':
      case 'unguarded':
        return { idempotency, identity: kind }
      default:
        return { idempotency }
    }
  }

  #queueOf(kind: Kind): string {
    return this.queues[KINDS.indexOf(kind)]!
  }

  /** Reads all that a handler may read, then does what the marker says. */
  #handle(message: Message, attempt: number): void {
    const marker = markerOf(message)
    if (marker === undefined) throw new DeadLetterNow('it lost its marker')
    const { headers, publishedAt } = message
    JSON.stringify([Object.keys(headers), publishedAt, message.key, message.routingKey, message.exchange])
    const [, , serial = '0', fate] = marker.split(':')
    const nasty = nastyTexts[Number(serial) % nastyTexts.length]!
    if (fate === 'fails' || (fate === 'once' && attempt === 1)) throw errorOf(nasty)
    if (fate === 'hopeless') throw new DeadLetterNow(`no hope: ${nasty}`)
    this.#handled.add(marker)
  }

  /** Sends a batch, waits until all of it has ended, and checks how. @throws Miscarried */
  async batch(specimens: readonly Specimen[]): Promise<void> {
    const before = { copies: this.#copies, buried: this.#buried }
    this.#handled.clear()
    const sent = await this.#send(specimens)
    const ended = () => this.#handled.size + this.#copies - before.copies + this.#buried - before.buried
    await this.#untilEnded(ended, sent.length)
    const letters = await this.#letters()
    this.#account(sent, letters)
    await this.#tidy(letters, sent)
    await this.quiet()
  }

  /** Or until no more of them do: which ones are missing is found out by whoever counts them. */
  async #untilEnded(ended: () => number, all: number): Promise<void> {
    for (let before = -1; before < ended() && ended() < all; ) {
      before = ended()
      await eventually(() => ended() > before, { withinMs: STALLED_AFTER_MS }).catch(() => {})
    }
  }

  async #send(specimens: readonly Specimen[]): Promise<Sent[]> {
    const sent: Sent[] = []
    for (let at = 0; at < specimens.length; at += WINDOW) {
      const some = specimens.slice(at, at + WINDOW).map((specimen) => this.#prepared(specimen))
      this.#publisher = this.#publisher && !this.#publisher.broken ? this.#publisher : await publisher()
      const own = this.#publisher
      await Promise.all(some.map(({ message }) => own.publish(message)))
      sent.push(...some)
    }
    return sent
  }

  #prepared(specimen: Specimen): Sent & { message: RawMessage } {
    const fate = { succeeds: 'ok', 'fails once': 'once', fails: 'fails', 'is hopeless': 'hopeless' }[specimen.fate]
    const marker = `fuzz:${this.#run}:${this.#serial++}:${fate}`
    const queue = this.queues[specimen.queue]!
    return { specimen, marker, queue, message: marked(specimen, marker, queue) }
  }

  /** Lines of all letters, by marker. */
  async #letters(): Promise<Map<string, string>> {
    const found = new Map<string, string>()
    for (const queue of this.queues)
      for await (const line of this.surehop.deadLetters(queue).exportTo()) {
        const marker = markerIn(line)
        if (marker === undefined) throw new Miscarried(`a letter without its marker: ${line.slice(0, 500)}`)
        found.set(marker, line)
      }
    return found
  }

  #account(sent: readonly Sent[], letters: ReadonlyMap<string, string>): void {
    for (const one of sent) {
      const line = letters.get(one.marker)
      const copy = this.#mayBeCopy(one)
      if (line !== undefined) this.#judge(one, line)
      else if (this.#handled.has(one.marker)) this.ends.handled++
      else if (copy) this.ends.copies++
      else throw new Miscarried(`neither handled nor dead: ${told(one)}. ${this.#state()}`)
    }
    if (this.#troubles.length > 0) throw new Miscarried(`it was disturbed: ${this.#troubles.splice(0).join('; ')}`)
  }

  /** Only an id that others have, too, excuses a message that nobody handled. */
  #mayBeCopy({ specimen, queue }: Sent): boolean {
    if (specimen.identity === 'shared' || specimen.identity === 'hostile') return true
    if (specimen.identity !== 'none' || queue === this.#queueOf('plain')) return false
    return queue !== this.#queueOf('unguarded') || hasTransactionId(specimen)
  }

  #judge(one: Sent, line: string): void {
    const why = wrongWith(line, one.specimen.fate)
    if (why) throw new Miscarried(`${why}: ${told(one)}`)
    if (isKept(line)) this.ends.kept++
    this.ends.dead++
  }

  /** All letters go to the archive, but for those that nobody can send. */
  async #tidy(letters: ReadonlyMap<string, string>, sent: readonly Sent[]): Promise<void> {
    for (const queue of this.queues) {
      const { stopped, error, failed } = await this.surehop.deadLetters(queue).discard()
      if (stopped !== 'done') throw new Miscarried(`discarding stopped: ${stopped} ${error?.message}`)
      if (failed > 0 && !UNSENDABLE.test(String(error?.message)))
        throw new Miscarried(`a letter cannot be discarded: ${error?.message}`)
    }
    await this.#checkKept(letters, sent)
    await this.#purge()
  }

  /** Counts what the broker was left and could be moved to the archive afterwards: perhaps we could have told its story. */
  async #checkKept(letters: ReadonlyMap<string, string>, sent: readonly Sent[]): Promise<void> {
    const left = await this.#letters()
    const excused = new Set(sent.filter(forgesTables).map(({ marker }) => marker))
    for (const [marker, line] of letters)
      if (!left.has(marker) && !excused.has(marker) && isKept(line) && line.length < ROOM_FOR_A_STORY)
        this.ends.sendable++
  }

  /** A few of those that nobody can move stay, to be looked at by the command. */
  async #purge(): Promise<void> {
    this.#raw ??= await amqp(process.env['AMQP_URL']!)
    const channel = await this.#raw.createChannel()
    for (const queue of this.queues) {
      const { messageCount } = await channel.checkQueue(deadQueueOf(queue))
      if (messageCount > STAYING) await channel.purgeQueue(deadQueueOf(queue))
    }
    await channel.close()
  }

  /** What was delivered and never settled is counted nowhere: it comes back when its channel is closed. */
  async #settled(): Promise<void> {
    await Promise.all(this.#consumers.splice(0).map((consumer) => consumer.close()))
    const back = () => Promise.all(this.queues.map(async (it) => (await this.surehop.queueStatus(it))?.messages ?? 0))
    const some = async () => (await back()).some((count) => count > 0)
    const stuck = await eventually(some, { withinMs: HANDED_BACK_WITHIN_MS }).catch(() => false)
    if (stuck) throw new Miscarried(`delivered, and never settled: ${(await this.#left()).join(', ')}`)
    await this.#consumeAll()
  }

  /** The first message of each queue. */
  async #left(): Promise<string[]> {
    this.#raw ??= await amqp(process.env['AMQP_URL']!)
    const channel = await this.#raw.createChannel()
    const found: string[] = []
    for (const queue of this.queues) {
      const raw = await channel.get(queue)
      const { appId, headers } = raw ? raw.properties : {}
      if (raw) found.push(`${[headers?.[MARKER], appId].find((it) => MARKED.test(`"${it}"`))} in ${queue}`)
    }
    await channel.close()
    return found
  }

  /** Nothing is left, and everything is well. */
  async quiet(): Promise<void> {
    for (const queue of this.queues)
      await eventually(async () => (await this.surehop.queueStatus(queue))?.messages === 0, {
        withinMs: SETTLED_WITHIN_MS,
        what: `an empty queue ${queue}`,
      })
    await this.#settled()
    const { reasons: problems } = this.surehop.health()
    if (problems.length > 0) throw new Miscarried(`not healthy: ${problems.join('; ')}`)
  }

  #state(): string {
    return `Health: ${JSON.stringify(this.surehop.health().reasons)}; troubles: ${this.#troubles.join('; ')}`
  }
}

function publisher(): Promise<RawPublisher> {
  return RawPublisher.open(process.env['AMQP_URL']!)
}

/** A table that cannot be sent in the place of one of our own headers: a letter in the archive does without it, a retry does not. */
function forgesTables({ specimen }: Sent): boolean {
  const { headers = [] } = specimen.properties
  return headers.some(([name, { t }]) => name.toString('latin1').startsWith('surehop-') && /^[AFTD]|deep/.test(t))
}

function markerOf({ appId, headers }: Message): string | undefined {
  for (const value of [headers[MARKER], appId]) if (typeof value === 'string' && MARKED.test(`"${value}"`)) return value
  return undefined
}

function errorOf(text: string): Error {
  const error = new Error(`${text} at amqp://user:${text}@host`)
  error.name = text
  return error
}

/** The message as it goes out: known again by its marker, and small enough for a frame. */
function marked(specimen: Specimen, marker: string, queue: string): RawMessage {
  const { properties, identity, body } = specimen
  const { appId, headers = [], ...rest } = properties
  const field: Field = { t: 'S', v: Buffer.from(marker) }
  const table: Table =
    specimen.marker === 'header'
      ? [...headers.filter(([name]) => !name.equals(Buffer.from(MARKER))), [Buffer.from(MARKER), field]]
      : headers
  const own = specimen.marker === 'header' ? appId : Buffer.from(marker)
  const id = identity === 'own' ? Buffer.from(`id-${marker}`) : identity === 'none' ? undefined : idOf(specimen)
  const message: RawMessage = {
    exchange: '',
    routingKey: Buffer.from(queue),
    properties: {
      ...rest,
      headers: table,
      ...(own ? { appId: own } : {}),
      ...(id ? { messageId: id } : {}),
    },
    body,
  }
  if (headerFrameBytes(message) <= FRAME_MAX) return message
  return marked({ ...specimen, properties: { ...properties, headers: headers.slice(0, -1) } }, marker, queue)
}

function idOf({ identity, body, properties }: Specimen): Buffer {
  if (identity === 'shared') return Buffer.from(SHARED[body.length % SHARED.length]!)
  return (
    properties.correlationId ??
    properties.type ??
    Buffer.from(nastyTexts[body.length % nastyTexts.length]!).subarray(0, 255)
  )
}

function told({ specimen, marker, queue }: Sent): string {
  return `${marker} in ${queue} (${specimen.fate}, id ${specimen.identity})`
}

/** Without a message id this is its identity, and a forged one may be another's. */
function hasTransactionId({ properties }: Specimen): boolean {
  return (properties.headers ?? []).some(([name, { t }]) => name.toString('latin1') === 'transaction_id' && t === 'S')
}
