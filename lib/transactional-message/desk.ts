/**
 * What an operator does with the transactions of one sender that nobody could decide: look at the parked half messages, and send
 * them back with a verdict. The service's own instances take them up, and the service's own store decides: this desk writes no store.
 *
 * Promises: looking changes neither count nor order; a half message leaves the parked ones only when the broker has confirmed its
 * copy in the check queue; one at a time (a second inspector is told `ResourceBusy`, after 3 seconds: the service's own instances
 * look in now and then).
 * Does NOT promise that a verdict wins: the first decision is final, and an instance says so by transaction.warning. Nor that
 * anything happens before an instance of the service runs.
 */
import type { Connection } from '../connection/connection.ts'
import { countOf, Reader } from '../dead-letter/reader.ts'
import { userHeaders } from '../dead-letter/story.ts'
import { pause } from '../deadline.ts'
import { ResourceBusy, TransactionUnknown, textOf } from '../errors.ts'
import { HEADER, type RawDelivery } from '../message.ts'
import { checkOptions, flag, having, needed, oneOf } from '../options.ts'
import { plain } from '../outbox/rows.ts'
import type { Publisher } from '../producer/publisher.ts'
import type { Verdict } from './check-back.ts'
import { type Decision, type DecisionStore, type DecisionView, UNDECIDED } from './decisions.ts'
import { decodeHalf, type HalfItem, type HalfMessage } from './envelope.ts'
import { checkQueueOf, halfQueueOf, parkedQueueOf, senderName } from './half-queues.ts'
import { TRANSACTION_ID } from './options.ts'
import { backToCheck } from './parked-watch.ts'

/** Options of `surehop.transactions()`. */
export interface TransactionsOptions {
  /** The store of the service: only read, for how often was checked and what was decided meanwhile. */
  readonly decisions?: DecisionStore
}

/** One message of a parked transaction. */
export interface ParkedMessage {
  readonly messageId: string
  readonly type: string | undefined
  /** Undefined for a message straight to a queue. */
  readonly exchange: string | undefined
  readonly queue: string | undefined
  readonly routingKey: string
  readonly key: string | undefined
  /** From the prepare on, ms. */
  readonly delayMs: number | undefined
  readonly contentType: string | undefined
  readonly bodyBytes: number
}

/** A parked message with all of it. */
export interface FullParkedMessage extends ParkedMessage {
  /** The publisher's own headers. */
  readonly headers: Readonly<Record<string, unknown>>
  /** Only where asked for. */
  readonly body: Buffer | undefined
}

/** A transaction that was given up on. */
export interface ParkedTransaction<Message = ParkedMessage> {
  readonly transactionId: string
  /** Service that prepared it. */
  readonly service: string
  readonly preparedAt: Date
  /** Since the prepare, ms. */
  readonly ageMs: number
  /** How often `check` was asked; undefined without a store. */
  readonly checks: number | undefined
  /** What was decided meanwhile; undefined without a store, or while undecided. */
  readonly decision: Decision | undefined
  readonly messages: readonly Message[]
  /** Why it cannot be read, where it is no half message: its id is then the AMQP message id, and it can only be looked at. */
  readonly unreadable: string | undefined
}

/** How many half messages are where. Those that instances have in hand at the moment are not counted. */
export interface TransactionCounts {
  /** Not checked yet: most of these are long decided. */
  readonly waiting: number
  /** Ready to be checked, in nobody's hand. */
  readonly undecided: number
  /** For an operator. */
  readonly parked: number
}

/** Options of `sendMany()`. */
export interface SendManyOptions {
  /** Ends it early: what is at hand is still sent, the others stay parked. */
  readonly signal?: AbortSignal
  /** Told of every half message that was sent back. */
  readonly onSent?: (transactionId: string) => void
}

/** How `sendMany()` ended. */
export interface SentMany {
  /** Half messages sent back; normally one for each transaction. */
  readonly sent: number
  /** Ids that were not sent: nothing parked has them, it cannot be read, or `signal` fired before. */
  readonly unsent: readonly string[]
}

/** What the front door lends. */
export interface TransactionsParts {
  readonly connection: Connection
  readonly publisher: Publisher
}

const VERDICT = needed(oneOf('commit', 'rollback', 'check'))
const RULES = { decisions: having('a decision store such as RedisDecisionStore', 'look') }
const PAGE = 100
/** So long somebody else's look is waited for, ms. */
const BUSY_MS = 3_000
const BUSY_PAUSE_MS = 50
const PUBLISH = { mandatory: true, deadlineMs: 30_000 } as const

interface Parked {
  readonly raw: RawDelivery
  readonly half: HalfMessage
  readonly unreadable: string | undefined
  ack(): boolean
}

/** The desk of one sender's parked transactions. Made by `surehop.transactions()`. */
export class Transactions {
  readonly name: string
  readonly #parts: TransactionsParts
  readonly #store: DecisionStore | undefined

  /** Use `surehop.transactions()`. */
  constructor(name: string, options: TransactionsOptions, parts: TransactionsParts) {
    checkOptions('transactions()', { name }, { name: needed(senderName) })
    checkOptions(`transactions("${name}")`, options, RULES)
    this.name = name
    this.#parts = parts
    this.#store = options.decisions
  }

  /**
   * The parked transactions, oldest first, read as they are asked for. Nobody else can look until the iteration ends.
   * @throws ResourceBusy, ResourceMissing, NotConnected; StoreUnavailable where a store was given
   */
  async *list(): AsyncGenerator<ParkedTransaction> {
    for await (const page of this.#pages()) {
      const views = await this.#look(page)
      for (const [i, parked] of page.entries()) yield told(parked, views?.[i], brief)
    }
  }

  /**
   * One transaction with its messages' headers, and their bodies where asked for. Normally one; more where it was prepared again.
   * @throws TransactionUnknown when no parked one has this id; see `list`
   */
  async show(
    transactionId: string,
    options: { readonly bodies?: boolean } = {},
  ): Promise<ParkedTransaction<FullParkedMessage>[]> {
    checkOptions('show()', options, { bodies: flag })
    const found: ParkedTransaction<FullParkedMessage>[] = []
    await this.#each(transactionId, async (parked) => {
      const views = await this.#look([parked])
      found.push(told(parked, views?.[0], (item) => full(item, options.bodies === true)))
    })
    return found
  }

  /**
   * Sends a transaction back to the service's instances: to be committed, rolled back, or checked once more.
   * @returns how many half messages were sent back; normally 1
   * @throws TransactionUnknown when no parked one has this id; PublishFailed: it stays parked; see `list`
   */
  async send(transactionId: string, verdict: Verdict): Promise<number> {
    checkOptions('send()', { verdict }, { verdict: VERDICT })
    let sent = 0
    await this.#each(transactionId, async (parked) => {
      if (parked.unreadable) throw this.#unknown(transactionId, ` (${parked.unreadable})`)
      await this.#sendBack(parked, verdict)
      sent++
    })
    return sent
  }

  /**
   * Sends many back with one verdict, in one pass over the parked ones. An id that nothing parked has hinders no other.
   * @throws PublishFailed: what was told by `onSent` is sent, the others stay parked; see `list`
   */
  async sendMany(
    transactionIds: Iterable<string>,
    verdict: Verdict,
    { signal, onSent }: SendManyOptions = {},
  ): Promise<SentMany> {
    checkOptions('sendMany()', { verdict }, { verdict: VERDICT })
    const wanted = new Set(transactionIds)
    const done = new Set<string>()
    let sent = 0
    const one = async (parked: Parked) => {
      await this.#sendBack(parked, verdict)
      sent++
      done.add(parked.half.transactionId)
      onSent?.(parked.half.transactionId)
    }
    for await (const page of this.#pages()) {
      if (signal?.aborted) break
      const meant = page.filter(({ half, unreadable }) => !unreadable && wanted.has(half.transactionId))
      await allOf(meant.map(one))
    }
    return { sent, unsent: [...wanted].filter((id) => !done.has(id)) }
  }

  /** @throws ResourceMissing for a name that no service has used yet; NotConnected */
  async counts(): Promise<TransactionCounts> {
    const { connection } = this.#parts
    const queues = [halfQueueOf(this.name), checkQueueOf(this.name), parkedQueueOf(this.name)]
    const [waiting = 0, undecided = 0, parked = 0] = await Promise.all(queues.map((q) => countOf(connection, q)))
    return { waiting, undecided, parked }
  }

  /** The copy is confirmed before the original goes. */
  async #sendBack({ raw, ack }: Parked, verdict: Verdict): Promise<void> {
    await this.#parts.publisher.publish(backToCheck(raw, this.name, verdict), PUBLISH)
    ack()
  }

  async *#pages(): AsyncGenerator<Parked[]> {
    const reader = await this.#reader()
    try {
      for (let some = await reader.nextMany(PAGE); some.length > 0; some = await reader.nextMany(PAGE))
        yield some.map(({ raw, ack }) => ({ raw, ...read(raw), ack }))
    } finally {
      await reader.close()
    }
  }

  /** Instances look in now and then, for a moment each: that is waited for, an operator is not. */
  async #reader(): Promise<Reader> {
    const until = performance.now() + BUSY_MS
    for (;;) {
      try {
        return await Reader.open(this.#parts.connection, parkedQueueOf(this.name))
      } catch (error) {
        if (!(error instanceof ResourceBusy) || performance.now() > until) throw error
      }
      await pause(BUSY_PAUSE_MS)
    }
  }

  async #each(transactionId: string, use: (parked: Parked) => Promise<void>): Promise<void> {
    checkOptions('transactions', { transactionId }, { transactionId: TRANSACTION_ID })
    let found = 0
    for await (const page of this.#pages())
      for (const parked of page)
        if (parked.half.transactionId === transactionId) {
          found++
          await use(parked)
        }
    if (found === 0) throw this.#unknown(transactionId, '')
  }

  /** Of what cannot be read nothing was ever decided, and its id may be one that the store refuses, with all others of the page. */
  async #look(page: readonly Parked[]): Promise<(DecisionView | undefined)[] | undefined> {
    if (!this.#store) return undefined
    const readable = page.filter(({ unreadable }) => unreadable === undefined)
    // Only the name counts for reading.
    const scope = { name: this.name, retentionMs: 1 }
    const ids = readable.map(({ half }) => half.transactionId)
    const views = ids.length === 0 ? [] : await this.#store.look(scope, ids)
    const found = new Map(readable.map((parked, i) => [parked, views[i]]))
    return page.map((parked) => found.get(parked))
  }

  #unknown(transactionId: string, why: string): TransactionUnknown {
    return new TransactionUnknown(
      `no parked transaction of "${this.name}" has the id ${transactionId}${why}: it was never prepared, is decided, or is still being checked`,
    )
  }
}

/** Waits for all of them to end before it tells of the first that failed: none may go on behind a closed reader. */
async function allOf(tasks: readonly Promise<void>[]): Promise<void> {
  const ends = await Promise.allSettled(tasks)
  const failed = ends.find((end) => end.status === 'rejected')
  if (failed) throw failed.reason
}

function read(raw: RawDelivery): { readonly half: HalfMessage; readonly unreadable: string | undefined } {
  try {
    return { half: decodeHalf(raw), unreadable: undefined }
  } catch (error) {
    const { messageId, appId } = raw.properties
    const told = raw.properties.headers?.[HEADER.transactionId]
    const transactionId = (typeof told === 'string' ? told : String(messageId ?? '')).slice(0, 255)
    const half = { halfId: transactionId, transactionId, preparedAt: 0, service: String(appId ?? ''), messages: [] }
    return { half, unreadable: textOf(error) }
  }
}

function told<Message>(
  { half, unreadable }: Parked,
  view: DecisionView | undefined,
  message: (item: HalfItem) => Message,
): ParkedTransaction<Message> {
  const { transactionId, service, preparedAt, messages } = half
  const { decision } = view ?? UNDECIDED
  return {
    transactionId,
    service,
    preparedAt: new Date(preparedAt),
    ageMs: Math.max(0, Date.now() - preparedAt),
    checks: view?.checks,
    decision,
    messages: messages.map(message),
    unreadable,
  }
}

function brief({ encoded, key, delayMs }: HalfItem): ParkedMessage {
  const { messageId, exchange, routingKey, properties, content } = encoded
  const { type, contentType } = properties
  const target = exchange === '' ? { exchange: undefined, queue: routingKey } : { exchange, queue: undefined }
  return { messageId, type, ...target, routingKey, key, delayMs, contentType, bodyBytes: content.length }
}

function full(item: HalfItem, withBody: boolean): FullParkedMessage {
  const { properties, content } = item.encoded
  return {
    ...brief(item),
    headers: userHeaders(plain(properties.headers) as Record<string, unknown>),
    body: withBody ? Buffer.from(content) : undefined,
  }
}
