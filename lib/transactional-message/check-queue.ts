/**
 * Consumes the check queue of one sender: looks up what has been decided, and brings what has not to a decision.
 *
 *     starting ──▶ consuming ──channel lost──▶ (rebuilt by itself) ... ──close──▶ closed
 *     one delivery: arrived ──turn──▶ acked | parked | held ──its time──▶ due ──turn──▶ ... ──25 min──▶ handed back, and comes again
 *
 * Undecided half messages are held unacked, with a timer and without their bodies: nothing is written or published to wait, and
 * a thousand of them take little memory. The price: where a check answers "commit", the broker delivers that one again.
 *
 * Promises: at most `maxUndecided` are in hand, and `concurrency` at work; turns of one transaction never overlap here; a store that
 * cannot be reached is waited for; nothing is acked that is not decided; close() hands back what is held.
 * Does NOT promise that a check is asked once, nor by one instance at a time: after a lost channel another one may ask too.
 * Emits consumer.state, store.unavailable, store.available, transaction.decided, .checked, .published, .parked, .warning.
 */
import { Batcher } from '../batcher.ts'
import { ChannelKeeper } from '../connection/channel-keeper.ts'
import type { Connection } from '../connection/connection.ts'
import { Delivery, Epoch } from '../consumer/delivery.ts'
import { InFlight } from '../consumer/in-flight.ts'
import { within } from '../deadline.ts'
import { ChannelLost, Closed, textOf } from '../errors.ts'
import { HEADER, type RawDelivery } from '../message.ts'
import type { Declarer } from '../topology/declarer.ts'
import type { Topology } from '../topology/topology.ts'
import { type End, type Limits, type Phase, takeTurn, type Verdict } from './check-back.ts'
import type { Decider, Decision, DecisionView } from './decisions.ts'
import { decodeHalf, type HalfMessage } from './envelope.ts'
import type { Ledger } from './ledger.ts'
import type { Outlet } from './outlet.ts'

type StateName = 'starting' | 'consuming' | 'recovering' | 'closed'
type Channel = Awaited<ReturnType<Connection['openChannel']>>

/** What a check queue is put together from. */
export interface CheckQueueParts {
  readonly connection: Connection
  readonly declarer: Declarer
  readonly topology: Topology
  readonly queue: string
  readonly ledger: Ledger
  readonly outlet: Outlet
  readonly limits: Limits
  readonly maxUndecided: number
  readonly concurrency: number
  readonly drainMs: number
  /** Unacked no longer than this, ms: below the broker's consumer timeout (30 minutes unless changed). */
  readonly holdMs: number
  /** A half message has come to its end. */
  readonly ended: (transactionId: string) => void
}

/** A delivery in hand, without its bodies. */
interface Held {
  readonly half: Omit<HalfMessage, 'messages'>
  readonly count: number
  readonly verdict: Verdict | undefined
  readonly delivery: Delivery
  /** Hands it back when it was held too long. */
  readonly limit: NodeJS.Timeout
  /** Set once it was found undecided, or could not be settled. */
  timer: NodeJS.Timeout | undefined
}

const MAX_BATCH = 256
const PUBLISH_MS = 30_000
/** After a store or broker that failed: first pause, ms; doubles to the cap of checks. */
const TROUBLE_MS = 1_000
/** What is stuck and was not seen again for so long after its time is in another instance's hands, ms. */
const STUCK_KEPT_MS = 60_000
const EMPTY = Buffer.alloc(0)

/** The consumer of one check queue. */
export class CheckQueue {
  readonly #parts: CheckQueueParts
  readonly #keeper: ChannelKeeper<Channel>
  readonly #inFlight: InFlight
  readonly #looks: Batcher<string, DecisionView>
  readonly #held = new Set<Held>()
  /** Committed, and could not be published so often. Of what is in hand, or will be in a moment. */
  readonly #stuck = new Map<string, { readonly count: number; readonly error: Error; readonly until: number }>()
  #epoch: Epoch | undefined
  #consumerTag: string | undefined
  #storeError: { readonly error: Error; readonly since: number } | undefined
  #state: StateName = 'starting'
  #closing = false
  #closed: Promise<void> | undefined

  constructor(parts: CheckQueueParts) {
    this.#parts = parts
    this.#inFlight = new InFlight(parts.concurrency)
    this.#looks = new Batcher({
      maxBatch: MAX_BATCH,
      send: (ids) => this.#look(ids),
      onFailure: (error) => this.#storeDown(error),
    })
    this.#keeper = new ChannelKeeper<Channel>({
      connection: parts.connection,
      role: `check ${parts.queue}`,
      open: () => parts.connection.openChannel(),
      setup: (channel) => this.#setup(channel),
      onLost: (_, reason) => this.#lost(reason),
    })
  }

  /** Sentences for an operator; empty when all is well. */
  get problems(): readonly string[] {
    if (this.#closing) return []
    const { maxUndecided } = this.#parts
    const undecided = [...this.#held].filter((held) => held.timer !== undefined)
    const full =
      undecided.length >= maxUndecided
        ? `${undecided.length} undecided transactions are in hand, the most there may be (maxUndecided): the others wait unchecked`
        : undefined
    const store = this.#storeError && `the decisions cannot be reached: ${textOf(this.#storeError.error)}`
    for (const [halfId, { until }] of this.#stuck) if (until < performance.now()) this.#stuck.delete(halfId)
    const [stuck] = this.#stuck.values()
    const unsent = stuck && `${this.#stuck.size} committed transactions cannot be published: ${textOf(stuck.error)}`
    return [this.#keeper.problem, store, full, unsent].flatMap((p) => (p ? [`queue "${this.#parts.queue}": ${p}`] : []))
  }

  /** Half messages in hand, undecided but for a moment. */
  get held(): number {
    return this.#held.size
  }

  /** @throws what declaring or the first consume failed with; nothing is left open then */
  async start(): Promise<void> {
    try {
      await this.#keeper.start()
    } catch (error) {
      await this.close()
      throw error
    }
  }

  /** Takes no more, lets turns end within `drainMs`, hands back what is held. Harmless when repeated. */
  close(): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  async #close(): Promise<void> {
    this.#closing = true
    this.#inFlight.halt()
    this.#looks.giveUp()
    const channel = this.#keeper.channel
    const { connection, drainMs } = this.#parts
    if (channel && this.#consumerTag !== undefined)
      await connection.rpc('cancel the consumer', () => channel.cancel(this.#consumerTag!)).catch(() => {})
    this.#inFlight.dropWaiting()
    await within(this.#inFlight.drained(), drainMs, () => new Closed('')).catch(() => {})
    for (const held of [...this.#held]) this.#handBack(held)
    this.#epoch?.end(new Closed(`the consumer of "${this.#parts.queue}" is closed`))
    await this.#keeper.close()
    this.#become('closed')
  }

  async #setup(channel: Channel): Promise<void> {
    const { connection, declarer, topology, queue, maxUndecided } = this.#parts
    const epoch = new Epoch(channel)
    this.#epoch = epoch
    try {
      await declarer.declare(topology)
      await connection.rpc('set the prefetch', () => channel.prefetch(maxUndecided))
      const { consumerTag } = await connection.rpc(`consume from queue "${queue}"`, () =>
        channel.consume(queue, (raw) => this.#arrived(raw as RawDelivery | null, epoch), { noAck: false }),
      )
      this.#consumerTag = consumerTag
      this.#become('consuming')
    } catch (error) {
      declarer.forget()
      throw error
    }
  }

  #arrived(raw: RawDelivery | null, epoch: Epoch): void {
    if (raw === null) {
      this.#parts.declarer.forget()
      const why = 'its queue was deleted, its node went down, or a delivery was not acked in time'
      this.#keeper.rebuild(new ChannelLost(`the broker cancelled the consumer: ${why}`))
    } else this.#read(raw, new Delivery({ ...raw, content: EMPTY }, epoch))
  }

  #read(raw: RawDelivery, delivery: Delivery): void {
    let half: HalfMessage
    try {
      half = decodeHalf(raw)
    } catch (error) {
      const { ledger, queue } = this.#parts
      ledger.warn(undefined, `a message in "${queue}" is no half message and was parked: ${textOf(error)}`)
      delivery.reject()
      return
    }
    void this.#take(this.#hold(half, raw, delivery), 'arrived', half)
  }

  #hold({ messages, ...half }: HalfMessage, raw: RawDelivery, delivery: Delivery): Held {
    const held: Held = {
      half,
      count: messages.length,
      verdict: verdictOf(raw),
      delivery,
      limit: setTimeout(() => this.#handBack(held), this.#parts.holdMs),
      timer: undefined,
    }
    this.#held.add(held)
    return held
  }

  /** Looks first, many at once; what is decided and done needs no more. */
  async #take(held: Held, phase: Phase, half: HalfMessage | undefined): Promise<void> {
    const { transactionId, halfId } = held.half
    const record = await this.#looks.ask(transactionId)
    if (!record || !this.#held.has(held)) return
    this.#contradicted(held, record)
    if (record.decision === 'rolled-back' || record.published === halfId) this.#end(held, { do: 'ack' })
    else this.#inFlight.add({ key: transactionId, run: () => this.#turn(held, { phase, record, half }) })
  }

  async #turn(
    held: Held,
    at: { readonly phase: Phase; readonly record: DecisionView; readonly half: HalfMessage | undefined },
  ): Promise<void> {
    if (!this.#held.has(held)) return
    const { half, ...standing } = at
    const { halfId, preparedAt } = held.half
    const publish = half && (() => this.#parts.outlet.publish(half, PUBLISH_MS))
    const turn = { ...standing, halfId, verdict: held.verdict, ageMs: Date.now() - preparedAt, publish }
    try {
      this.#end(held, await takeTurn(turn, this.#surroundings(held)))
    } catch (error) {
      // Whether the store is down, the next look will tell; it may be that somebody just decides this one.
      this.#parts.ledger.warn(held.half.transactionId, `it could not be settled now: ${textOf(error)}`)
      this.#later(held, TROUBLE_MS * (1 + Math.random()))
    }
  }

  #surroundings(held: Held) {
    const { ledger, limits } = this.#parts
    const { transactionId, halfId, preparedAt } = held.half
    return {
      limits,
      look: async () => (await ledger.look([transactionId]))[0]!,
      decide: (decision: Decision, by: Decider) => ledger.decide(transactionId, decision, by),
      checked: () => ledger.checked(transactionId),
      published: () => ledger.published(transactionId, { halfId, messages: held.count }),
      ask: (check: number) => ledger.ask(transactionId, { check, preparedAt }),
      random: Math.random,
    }
  }

  #end(held: Held, end: End): void {
    if (end.do === 'ack' || end.do === 'park') this.#stuck.delete(held.half.halfId)
    if (end.do === 'hold') this.#later(held, end.ms)
    else if (end.do === 'fetch') this.#handBack(held)
    else if (end.do === 'stuck') this.#stick(held, end.error)
    else if (end.do === 'park') this.#park(held)
    else {
      this.#forget(held)
      held.delivery.ack()
      this.#parts.ended(held.half.transactionId)
    }
  }

  /** Committed, and its messages cannot go out: a queue is missing, the broker refuses. Again later, for ever: there is nothing left to decide. */
  #stick(held: Held, error: Error): void {
    const { halfId, transactionId } = held.half
    const { limits, ledger } = this.#parts
    const count = (this.#stuck.get(halfId)?.count ?? 0) + 1
    const ms = Math.min(limits.checkCapMs, TROUBLE_MS * 2 ** (count - 1)) * (0.75 + Math.random() / 4)
    this.#stuck.set(halfId, { count, error, until: performance.now() + ms + STUCK_KEPT_MS })
    const warning = `committed, and its messages could not all be published (try ${count}): ${textOf(error)}`
    if (!this.#closing) ledger.warn(transactionId, warning)
    // Where the store is down now, a later try finds it.
    ledger.stillCommitted(transactionId).catch(() => {})
    this.#later(held, ms)
  }

  #park(held: Held): void {
    const { transactionId, preparedAt } = held.half
    this.#forget(held)
    if (!held.delivery.reject()) return
    void this.#parts.ledger.parked(transactionId, Date.now() - preparedAt)
  }

  #later(held: Held, ms: number): void {
    if (!this.#held.has(held) || this.#closing) return
    clearTimeout(held.timer)
    held.timer = setTimeout(() => void this.#take(held, 'due', undefined), ms)
  }

  #handBack(held: Held): void {
    this.#forget(held)
    held.delivery.handBack()
  }

  #forget(held: Held): void {
    clearTimeout(held.timer)
    clearTimeout(held.limit)
    this.#held.delete(held)
  }

  #lost(reason: Error): void {
    this.#epoch?.end(reason)
    this.#inFlight.dropWaiting()
    for (const held of [...this.#held]) this.#forget(held)
    this.#stuck.clear()
    if (this.#state === 'consuming' && !this.#closing) this.#become('recovering', reason)
  }

  async #look(ids: readonly string[]): Promise<DecisionView[]> {
    const views = await this.#parts.ledger.look(ids)
    const { queue } = this.#parts
    if (this.#storeError) this.#emit('store.available', { queue, outageMs: performance.now() - this.#storeError.since })
    this.#storeError = undefined
    return views
  }

  #storeDown(error: Error): void {
    if (!this.#storeError) this.#emit('store.unavailable', { queue: this.#parts.queue, error })
    this.#storeError = { error, since: this.#storeError?.since ?? performance.now() }
  }

  /** The operator's word came after the decision: that stands, and the operator must hear of it. */
  #contradicted({ half, verdict }: Held, { decision, by }: DecisionView): void {
    const wanted = verdict === 'commit' ? 'committed' : verdict === 'rollback' ? 'rolled-back' : undefined
    if (!wanted || !decision || decision === wanted) return
    this.#parts.ledger.contradicted(half.transactionId, { wanted, by: 'operator' }, { decision, by })
  }

  #become(to: StateName, error?: Error): void {
    const from = this.#state
    this.#state = to
    if (from !== to) this.#emit('consumer.state', { queue: this.#parts.queue, from, to, error })
  }

  readonly #emit: Connection['options']['events']['emit'] = (name, data) =>
    this.#parts.connection.options.events.emit(name, data)
}

function verdictOf({ properties }: RawDelivery): Verdict | undefined {
  const verdict = properties.headers?.[HEADER.verdict]
  return verdict === 'commit' || verdict === 'rollback' || verdict === 'check' ? verdict : undefined
}
