// Forged half messages in the queues of a transactional sender, its instance, and what an operator does with the parked ones.
//
// Promises: every half message ends: its messages are published, and their handler has seen them or their letters lie in the dead
// letters; or it was rolled back; or it is parked, where the desk shows it; or its target is missing, and a warning says so until it
// is there. None of them disturbs the others.

import { randomBytes } from 'node:crypto'
import { connect as amqp, type ChannelModel } from 'amqplib'
import fc from 'fast-check'
import { connect, fixed, onEvent, RedisDecisionStore, type Surehop } from '../../lib/index.ts'
import { eventually } from '../support/eventually.ts'
import { unique, uniqueQueue } from '../support/unique.ts'
import { type Answer, contentOf, type Half, halves } from './halves.ts'
import { FRAME_MAX, headerFrameBytes, type Properties, type RawMessage, RawPublisher } from './wire.ts'
import { Miscarried } from './world.ts'

const SETTLED_WITHIN_MS = 60_000
/** Parked ones, at most. */
const STAYING = 500
/** What is wrong with one that was parked unread, by its field. */
const NAMED = /was parked: (it is no half message: )?expected [\w"]/
const QUICK = { firstCheckMs: 200, checkCapMs: 300, checks: 2 } as const

/** A transactional sender with an instance for each batch. */
export class TransactionsWorld {
  readonly name = unique('fuzz')
  readonly prefix = unique('fuzz')
  readonly ends = { published: 0, 'rolled back': 0, parked: 0, unreadable: 0, stuck: 0 }
  readonly #surehop: Surehop
  readonly #decisions: RedisDecisionStore
  readonly #raw: ChannelModel
  readonly #targets = { queue: uniqueQueue('fuzz-half'), missing: uniqueQueue('fuzz-missing') }
  readonly #run = randomBytes(4).toString('hex')
  readonly #seen = new Set<string>()
  readonly #published = new Set<string>()
  /** Those whose messages are as they should be. */
  readonly #plain = new Set<string>()
  readonly #ended = new Set<string>()
  /** Committed, and their target is not there: by where it may be declared. */
  readonly #stuck = new Map<string, 'missing' | 'elsewhere'>()
  readonly #unlisten: (() => void)[] = []
  readonly #troubles: string[] = []
  #serial = 0
  /** So many must be parked: their own sender's doing, or put there by hand. */
  #parked = 0

  private constructor(surehop: Surehop, raw: ChannelModel) {
    this.#surehop = surehop
    this.#raw = raw
    this.#decisions = new RedisDecisionStore({ url: process.env['REDIS_URL']! }, { prefix: this.prefix })
    this.#listen()
  }

  static async open(): Promise<TransactionsWorld> {
    const url = process.env['AMQP_URL']!
    const surehop = await connect({ amqp: url, service: 'fuzz', drainMs: 10_000 })
    const world = new TransactionsWorld(surehop, await amqp(url))
    await world.#consume()
    return world
  }

  get desk() {
    return this.#surehop.transactions(this.name)
  }

  async close(): Promise<void> {
    for (const end of this.#unlisten) end()
    await this.#surehop.close()
    await this.#decisions.close()
    const channel = await this.#raw.createChannel()
    for (const suffix of ['half', 'half.check', 'half.parked']) await channel.deleteQueue(`${this.name}.${suffix}`)
    await this.#raw.close()
  }

  #listen(): void {
    const mine = ({ name }: { readonly name: string }) => name === this.name
    const end = (kind: keyof TransactionsWorld['ends'], id: string) => {
      if (!this.#ended.has(id)) this.ends[kind]++
      this.#ended.add(id)
      this.#stuck.delete(id)
    }
    this.#unlisten.push(
      onEvent('transaction.published', (event) => {
        if (mine(event) && this.#plain.has(event.transactionId)) this.#published.add(event.transactionId)
        if (mine(event)) end('published', event.transactionId)
      }),
      onEvent('transaction.decided', (event) => {
        if (mine(event) && event.decision === 'rolled-back') end('rolled back', event.transactionId)
      }),
      onEvent('transaction.parked', (event) => {
        if (mine(event)) end('parked', event.transactionId)
        if (mine(event)) this.#parked++
      }),
      onEvent('transaction.warning', (event) => {
        if (!mine(event)) return
        const { transactionId: id, warning } = event
        if (id === undefined) {
          end('unreadable', `unreadable ${this.#ended.size}`)
          this.#parked++
          if (!NAMED.test(warning)) this.#troubles.push(warning)
        } else if (id !== undefined && /could not all be published/.test(warning)) {
          end('stuck', id)
          this.#stuck.set(id, warning.includes(`queue "${this.#targets.missing}"`) ? 'missing' : 'elsewhere')
          if (!/\(returned\)|cannot publish to exchange/.test(warning)) this.#troubles.push(`${id}: ${warning}`)
        }
      }),
    )
  }

  async #consume(): Promise<void> {
    const options = { identity: 'unguarded', body: 'bytes', retry: { attempts: 2, backoff: fixed({ delayMs: 100 }) } }
    await this.#surehop.consume(this.#targets.queue, options as object, async ({ rawBody }) => {
      this.#seen.add(markerIn(rawBody.toString('latin1')) ?? '')
    })
  }

  /** Puts them into the queues, has an instance see to them, and checks how each ended. @throws Miscarried */
  async batch(some: readonly Half[]): Promise<void> {
    await this.#instance(async () => {
      const before = this.#ended.size
      const byHand = await this.#send(some)
      this.#parked += byHand
      const ended = () => this.#ended.size - before
      await this.#until(() => ended() >= some.length - byHand, `${some.length - byHand} ends`)
    })
    await this.#account()
    await this.#tidy()
  }

  /** Parks so many unseen. */
  async leave(count: number, seed: number): Promise<void> {
    const some = fc.sample(halves, { numRuns: count, seed })
    await this.#send(some.map((half) => ({ ...half, into: 'half.parked' })))
  }

  /** What an operator does: all that can be read is rolled back, and what was missing is declared. */
  async moves(): Promise<string[]> {
    const wrong: string[] = []
    const readable = new Set<string>()
    let unreadable = 0
    for await (const { transactionId, unreadable: why } of this.desk.list())
      if (why === undefined) readable.add(transactionId)
      else unreadable++
    await this.#surehop.declare({ queues: [{ name: this.#targets.missing, arguments: {} }] })
    await this.#instance(async () => {
      const { unsent } = await this.desk.sendMany(readable, 'rollback')
      if (unsent.length > 0) wrong.push(`${unsent.length} were not sent back: ${unsent[0]}`)
      await this.#until(() => ![...this.#stuck.values()].includes('missing'), 'the end of those that were stuck')
      await this.#until(() => [...readable].every((id) => this.#ended.has(id)), 'the end of those sent back')
    }).catch((error: Error) => void wrong.push(error.message))
    await this.#counted(unreadable).catch((error: Error) => void wrong.push(error.message))
    return wrong
  }

  /** An instance of the service, for as long as the work takes. */
  async #instance(work: () => Promise<void>): Promise<void> {
    const check = (id: string) => (/:(commit|rollback)$/.exec(id)?.[1] ?? 'unknown') as Answer
    const instance = await this.#surehop.transactional(this.name, { decisions: this.#decisions, check, ...QUICK })
    try {
      await work()
    } finally {
      await instance.close()
    }
  }

  async #send(some: readonly Half[]): Promise<number> {
    const publisher = await RawPublisher.open(process.env['AMQP_URL']!)
    const outcomes = await Promise.all(some.map((half) => publisher.publish(this.#message(half))))
    publisher.close()
    const lost = outcomes.filter((outcome) => outcome !== 'acked').length
    if (lost > 0) throw new Miscarried(`${lost} half messages were not stored`)
    return some.filter(({ into }) => into === 'half.parked').length
  }

  #message(half: Half): RawMessage {
    const marker = `fuzz:${this.#run}:${this.#serial++}:${half.answer}`
    if (isPlain(half)) this.#plain.add(marker)
    const { headers = [], ...rest } = half.properties
    const verdict = half.verdict && { t: 'S' as const, v: Buffer.from(half.verdict) }
    const own = headers.filter(([name]) => !name.equals(VERDICT))
    const properties = { ...rest, headers: verdict ? [...own, [VERDICT, verdict] as const] : own }
    const routingKey = Buffer.from(`${this.name}.${half.into}`)
    return fitting({ exchange: '', routingKey, properties, body: contentOf(half, marker, this.#targets) })
  }

  /** Nothing is anywhere but where it was said to be, and what was published has arrived. */
  async #account(): Promise<void> {
    await this.#counted(this.#parked)
    await this.#until(async () => {
      const letters = await this.#letters()
      const missing = [...this.#published].filter((id) => !this.#seen.has(id) && !letters.includes(`${id}"`))
      if (missing.length > 0) throw new Error(missing.slice(0, 5).join())
      return true
    }, 'what was published to arrive')
    if (this.#troubles.length > 0) throw new Miscarried(this.#troubles.splice(0).join('\n').slice(0, 2_000))
  }

  /** No half message is anywhere but with these, or stuck. */
  async #counted(parkedOnes: number): Promise<void> {
    const wanted = `0 waiting, ${this.#stuck.size} undecided, ${parkedOnes} parked`
    await this.#until(async () => {
      const { waiting, undecided, parked } = await this.desk.counts()
      const found = `${waiting} waiting, ${undecided} undecided, ${parked} parked`
      if (found !== wanted) throw new Error(found)
      return true
    }, wanted)
  }

  /** A few of the parked ones stay. */
  async #tidy(): Promise<void> {
    for (const seen of [this.#seen, this.#published, this.#plain, this.#ended]) seen.clear()
    // Those that are stuck are told of again.
    for (const id of this.#stuck.keys()) this.#ended.add(id)
    await this.#surehop.deadLetters(this.#targets.queue).discard()
    if (this.#parked <= STAYING) return
    const channel = await this.#raw.createChannel()
    await channel.purgeQueue(`${this.name}.half.parked`)
    await channel.close()
    this.#parked = 0
  }

  async #until(check: () => boolean | Promise<boolean>, what: string): Promise<void> {
    await eventually(check, { what, withinMs: SETTLED_WITHIN_MS }).catch((error: Error) => {
      const { reasons } = this.#surehop.health()
      throw new Miscarried(`${error.message}; ${JSON.stringify(this.ends)}; ${reasons.join('; ')}`)
    })
  }

  /** Bodies of dead letters, decoded. */
  async #letters(): Promise<string> {
    const found: string[] = []
    for await (const line of this.#surehop.deadLetters(this.#targets.queue).exportTo()) {
      const { bodyBase64 = '' } = JSON.parse(line) as { bodyBase64?: string }
      found.push(`${markerIn(Buffer.from(bodyBase64, 'base64').toString('latin1')) ?? markerIn(line)}"`)
    }
    return found.join()
  }
}

function isPlain({ content }: Half): boolean {
  if (Buffer.isBuffer(content) || typeof content.head.items === 'string') return false
  return content.head.items.every(({ fields }) => fields.length === 0)
}

const VERDICT = Buffer.from('surehop-verdict')

/** With as many headers as fit into a frame. */
function fitting(message: RawMessage): RawMessage {
  if (headerFrameBytes(message) <= FRAME_MAX) return message
  const headers = message.properties.headers!.slice(0, -1)
  const properties: Properties = { ...message.properties, headers }
  return fitting({ ...message, properties })
}

function markerIn(text: string): string | undefined {
  return /fuzz:[0-9a-f]{8}:\d+:(?:commit|rollback|unknown)/.exec(text)?.[0]
}
