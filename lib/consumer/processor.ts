/**
 * Takes one delivery from the queue to its end: admission, attempt, verdict, and only then the ack. The table of what becomes
 * of what stands in `handler.ts`. Every step before the ack may be repeated after a crash at any point:
 *
 *     admitted ─▶ handler ─▶ recorded completed ─▶ ack
 *                        └─▶ recorded failed ─▶ next attempt published ─▶ ack
 *                        └─▶ letter published ─▶ recorded dead ─▶ ack
 *
 * A crash before a record repeats the run (one start more); between record and publish leaves the delivery unacked, and the
 * record tells the next reader that this attempt is over; between publish and ack leaves two copies, of which the record lets one run.
 * A delivery that is lost before its letter is confirmed records its last attempt failed: the next one writes the letter, unrun.
 * What cannot be published onwards, be it for a defect of ours that shows three times in a row, is rejected: the broker keeps it as it is.
 */

import { pause } from '../deadline.ts'
import { Closed, type MessageInvalid, textOf } from '../errors.ts'
import type { Message, RawDelivery } from '../message.ts'
import type { Events, EventTable } from '../observability/events.ts'
import type { Producer } from '../producer/producer.ts'
import { Active, type AttemptEnd } from './active.ts'
import { DeadlineWatch } from './deadline-watch.ts'
import type { Delivery } from './delivery.ts'
import type { Admission, FailurePolicy, Guard, Handler, Outlet, Run, RunEnding, Verdict } from './handler.ts'
import type { Slot } from './in-flight.ts'
import { cannotBeSent, DEFECTS_MAX, failureOf, isDefect } from './unsendable.ts'

/** What a processor is put together from. */
export interface ProcessorParts {
  readonly queue: string
  readonly handler: Handler
  readonly handlerTimeoutMs: number
  /** Repeats wait in place, so that the messages of a key stay in order. */
  readonly inPlace: boolean
  readonly guard: Guard | undefined
  readonly policy: FailurePolicy
  readonly outlet: Outlet
  readonly producer: Producer
  readonly events: Events
  /** Fires when the consumer begins to close. */
  readonly closing: AbortSignal
  /** A closing consumer gives back what it holds by closing its channel, in order: handed back one by one, messages change places. */
  readonly keepsOrder: boolean
  /** Reads a delivery anew, for a repeat in place: the handler may have changed what it was given. */
  readonly decode: (raw: RawDelivery) => Run
}

/** Put off a message that someone else owns, ms. */
const LOST_DELAY_MS = 1_000
const MOVE_PAUSE_BASE_MS = 250
const MOVE_PAUSE_CAP_MS = 15_000
/** Where a delivery meets an error that nobody foresaw, it goes back to the queue no faster than this, ms. */
const HAND_BACK_PAUSE_MS = 1_000
/** No wait in place is longer, ms: an unacked delivery must be settled before the broker's consumer timeout of 30 minutes. */
const LONGEST_REST_MS = 25 * 60_000
const ADMITTED: Admission = { admit: 'run' }
const HELD_HERE: Admission = { admit: 'later', delayMs: LOST_DELAY_MS, why: 'another copy of it is in work here' }

/** What is to be done next with a delivery: once more in place after so many ms, or nothing. */
type Next = number | 'ended'

/** Takes the deliveries of one consumer to their ends. */
export class Processor {
  readonly #parts: ProcessorParts
  /** The attempts whose handlers run now. */
  readonly #watch: DeadlineWatch<Active>
  /** Where messages are ordered by keys, which delivery holds a message id: a copy under another key must not run beside it. */
  readonly #holders = new Map<string, number>()
  readonly #stuck = new Map<Delivery, unknown>()

  constructor(parts: ProcessorParts) {
    this.#parts = parts
    this.#watch = new DeadlineWatch(parts.handlerTimeoutMs)
  }

  /** Fires the signals of all handlers that run now. */
  abort(reason: Error): void {
    for (const active of this.#watch.items) active.abort(reason)
  }

  /** Why deliveries do not get on, if so. */
  get problem(): string | undefined {
    const [error] = this.#stuck.values()
    return error === undefined
      ? undefined
      : `${this.#stuck.size} messages cannot be moved on and are held: ${textOf(error)}`
  }

  /** A delivery that could be read. Never rejects. */
  process(delivery: Delivery, run: Run, slot: Slot): Promise<unknown> {
    return this.#parts.inPlace ? this.#inPlace(delivery, run, slot) : this.#once(delivery, run, slot)
  }

  async #inPlace(delivery: Delivery, first: Run, slot: Slot): Promise<void> {
    const { messageId } = first.message
    try {
      let run = first
      for (let next = await this.#once(delivery, run, slot); next !== 'ended'; ) {
        if (!(await this.#waited(delivery, next, slot))) return
        run = this.#anew(delivery, run)
        next = await this.#once(delivery, run, slot)
      }
    } catch (error) {
      await this.#strayed(delivery, first, error as Error)
    } finally {
      if (this.#holders.get(messageId) === delivery.serial) this.#holders.delete(messageId)
    }
  }

  /** An error that nobody foresaw. */
  async #strayed(delivery: Delivery, run: Run, error: Error): Promise<Next> {
    this.#stale(run, error)
    await pause(HAND_BACK_PAUSE_MS, delivery.lost)
    delivery.handBack()
    return 'ended'
  }

  #anew(delivery: Delivery, { message, attempt, firstFailedAt }: Run): Run {
    const fresh = this.#parts.decode(delivery.raw)
    const { messageId, transactionId } = message
    return { ...fresh, attempt, firstFailedAt, message: { ...fresh.message, messageId, transactionId } }
  }

  /** A delivery that was not begun. */
  drop(delivery: Delivery): void {
    this.#giveBack(delivery)
  }

  /** A delivery that could not be read. Never rejects. */
  async refuse(delivery: Delivery, error: MessageInvalid): Promise<void> {
    const { queue, events, outlet } = this.#parts
    const messageId = String(delivery.raw.properties.messageId ?? '').slice(0, 255)
    const facts = { messageId, transactionId: '', queue, type: undefined, attempt: 0, generation: 0 }
    const moved = await this.#move(delivery, facts, () =>
      outlet.bury(delivery.raw, undefined, 'invalid message', error),
    )
    if (!moved) return
    events.emit('message.dead-lettered', { ...facts, reason: 'invalid message', error })
    delivery.ack()
  }

  /** Never rejects. In one piece, since nearly all messages take this way: each async function more costs them 0.3 µs. */
  async #once(delivery: Delivery, run: Run, slot: Slot): Promise<Next> {
    try {
      const asked = this.#admit(delivery, run)
      const admission = asked instanceof Promise ? await asked : asked
      if (admission?.admit !== 'run') return await this.#unadmitted(delivery, run, admission)
      if (this.#unwanted(delivery)) return await this.#unwantedNow(delivery, run)
      const active = new Active(run, this.#parts.producer)
      const end = await active.run(this.#parts.handler, this.#watch)
      if (end.ended !== 'done') return await this.#unfinished(delivery, run, end, active.ranMs)
      const recording = this.#end(run, { state: 'completed' })
      // The record is on its way, ahead of the next message's claim, which needs the slot more than we do.
      if (recording !== 'recorded') slot.leave()
      const recorded = recording === 'recorded' ? recording : await recording
      if (recorded === 'recorded') return this.#completed(delivery, run, active.ranMs)
      return recorded === 'lost' ? await this.#overtaken(delivery, run) : 'ended'
    } catch (error) {
      return await this.#strayed(delivery, run, error as Error)
    }
  }

  #completed(delivery: Delivery, run: Run, durationMs: number): 'ended' {
    const { events } = this.#parts
    if (events.wanted('message.completed')) events.emit('message.completed', { ...this.#facts(run), durationMs })
    return this.#ack(delivery, run)
  }

  /** A claim is waited for even when the delivery is lost meanwhile: what was granted must be returned. */
  #admit(delivery: Delivery, run: Run): Promise<Admission | undefined> | Admission {
    const { guard, inPlace } = this.#parts
    if (!guard || !run.guarded) return ADMITTED
    if (inPlace && !this.#hold(delivery, run.message)) return HELD_HERE
    return guard.admit(run)
  }

  /** @returns false when another delivery of this message is in work here */
  #hold({ serial }: Delivery, { messageId }: Message): boolean {
    if ((this.#holders.get(messageId) ?? serial) !== serial) return false
    this.#holders.set(messageId, serial)
    return true
  }

  #unwanted(delivery: Delivery): boolean {
    return this.#parts.closing.aborted || delivery.stale
  }

  async #unwantedNow(delivery: Delivery, run: Run): Promise<Next> {
    await this.#end(run, { state: 'returned' })
    return this.#giveBack(delivery)
  }

  async #unadmitted(
    delivery: Delivery,
    run: Run,
    admission: Exclude<Admission, { admit: 'run' }> | undefined,
  ): Promise<Next> {
    switch (admission?.admit) {
      case undefined:
        return this.#giveBack(delivery)
      case 'drop':
        return this.#drop(delivery, run, admission.why)
      case 'later':
        return this.#later(delivery, run, admission.delayMs, admission.why)
      case 'failed-before':
        run.attempt = admission.attempt - 1
        run.firstFailedAt ??= Date.now()
        return this.#carryOut(delivery, run, this.#parts.policy.again(admission.attempt), undefined)
      case 'refuse':
        return this.#bury(delivery, run, admission.reason, admission.error, { state: 'returned' })
    }
  }

  #unfinished(
    delivery: Delivery,
    run: Run,
    end: Exclude<AttemptEnd, { ended: 'done' }>,
    durationMs: number,
  ): Promise<Next> {
    if (end.ended === 'interrupted') return this.#interrupted(delivery, run, end.error)
    this.#parts.events.emit('message.failed', { ...this.#facts(run), error: end.error, durationMs })
    run.firstFailedAt ??= Date.now()
    return this.#failed(delivery, run, end.error)
  }

  async #interrupted(delivery: Delivery, run: Run, reason: Error): Promise<Next> {
    await this.#end(run, { state: 'returned' })
    if (delivery.stale) this.#stale(run, reason)
    else if (!this.#parts.closing.aborted) return this.#later(delivery, run, LOST_DELAY_MS, textOf(reason))
    return this.#giveBack(delivery)
  }

  async #failed(delivery: Delivery, run: Run, error: unknown): Promise<Next> {
    const verdict = this.#parts.policy.decide(error, run.attempt, run.firstFailedAt)
    if (verdict.verdict === 'retry') {
      const recorded = await this.#end(run, { state: 'failed', nextAttempt: run.attempt + 1 })
      if (recorded === 'lost') return this.#overtaken(delivery, run)
      if (recorded === undefined) return 'ended'
    }
    return this.#carryOut(delivery, run, verdict, error)
  }

  #overtaken(delivery: Delivery, run: Run): Promise<Next> {
    return this.#later(delivery, run, LOST_DELAY_MS, 'another owner took the lease while the handler ran')
  }

  async #carryOut(delivery: Delivery, run: Run, verdict: Verdict, error: unknown): Promise<Next> {
    if (verdict.verdict === 'dead')
      return this.#bury(delivery, run, verdict.reason, error, { state: 'failed', nextAttempt: run.attempt + 1 })
    const { delayMs } = verdict
    const { inPlace, outlet, events } = this.#parts
    const facts = this.#facts(run)
    if (inPlace) {
      run.attempt++
      events.emit('message.retried', { ...facts, delayMs, error })
      return delayMs
    }
    const moved = await this.#move(delivery, facts, () =>
      outlet.retry(delivery.raw, run, run.attempt + 1, delayMs, error),
    )
    if (!moved) return 'ended'
    events.emit('message.retried', { ...facts, delayMs, error })
    return this.#ack(delivery, run)
  }

  /** `unburied`: how a lease ends when the letter could not be written, so that whoever gets the next delivery may have it. */
  async #bury(delivery: Delivery, run: Run, reason: string, error: unknown, unburied: RunEnding): Promise<Next> {
    const moved = await this.#move(delivery, this.#facts(run), () =>
      this.#parts.outlet.bury(delivery.raw, run, reason, error),
    )
    const ending: RunEnding = moved ? { state: 'dead', generation: run.generation } : unburied
    if (run.fencingToken !== undefined) await this.#end(run, ending)
    if (!moved) return 'ended'
    this.#parts.events.emit('message.dead-lettered', { ...this.#facts(run), reason, error })
    return this.#ack(delivery, run)
  }

  async #later(delivery: Delivery, run: Run, delayMs: number, why: string): Promise<Next> {
    const { inPlace, outlet, events } = this.#parts
    events.emit('message.put-off', { ...this.#facts(run), delayMs, why })
    if (inPlace) return delayMs
    const moved = await this.#move(delivery, this.#facts(run), () =>
      outlet.retry(delivery.raw, run, run.attempt, delayMs, undefined),
    )
    if (moved) this.#ack(delivery, run)
    return 'ended'
  }

  #drop(delivery: Delivery, run: Run, why: 'completed' | 'superseded'): Next {
    const { events } = this.#parts
    if (events.wanted('message.duplicate')) events.emit('message.duplicate', { ...this.#facts(run), why })
    return this.#ack(delivery, run)
  }

  /** Waits in place, without a slot. @returns false when the delivery was lost meanwhile, or given back because the consumer closes */
  async #waited(delivery: Delivery, delayMs: number, slot: Slot): Promise<boolean> {
    const { closing } = this.#parts
    const { lost } = delivery
    const stop = new AbortController()
    const end = () => stop.abort()
    for (const signal of [lost, closing]) {
      if (signal.aborted) end()
      signal.addEventListener('abort', end, { once: true })
    }
    await slot.rest(() => pause(Math.min(delayMs, LONGEST_REST_MS), stop.signal))
    for (const signal of [lost, closing]) signal.removeEventListener('abort', end)
    if (stop.signal.aborted) this.#giveBack(delivery)
    return !stop.signal.aborted
  }

  /** Back to the queue, unless the channel's end will do that, or has done it. */
  #giveBack(delivery: Delivery): 'ended' {
    if (!this.#parts.keepsOrder) delivery.handBack()
    return 'ended'
  }

  /** Each ending is an object of its own: it goes to a store that may be anybody's, to keep and to change. */
  #end(run: Run, ending: RunEnding): Promise<'recorded' | 'lost' | undefined> | 'recorded' {
    const { guard } = this.#parts
    if (!guard || !run.guarded) return 'recorded'
    return guard.end(run, ending)
  }

  /**
   * Publishes the message onwards, as often as it takes while the delivery is ours. A message that cannot be published by us at all
   * (headers too large for a client, a defect of ours) is left to the broker's own dead-lettering, which keeps it as it is.
   * @returns false when it was not published: the delivery was lost first, or the broker keeps it. A delivery that was lost before the
   *   confirm came is moved all the same, and its next one must know
   */
  async #move(delivery: Delivery, facts: Facts, publish: () => Promise<void>): Promise<boolean> {
    try {
      for (let failures = 0, defects = 0; !delivery.stale; failures++) {
        const error = await failureOf(publish)
        if (error === undefined) return true
        defects = isDefect(error) ? defects + 1 : 0
        if (cannotBeSent(error) || defects === DEFECTS_MAX) return this.#reject(delivery, facts, error)
        this.#stuck.set(delivery, error)
        const ceiling = Math.min(MOVE_PAUSE_CAP_MS, MOVE_PAUSE_BASE_MS * 2 ** Math.min(failures, 16))
        await pause(ceiling * (0.5 + Math.random() / 2), delivery.lost)
      }
      return false
    } finally {
      this.#stuck.delete(delivery)
    }
  }

  /** Records nothing: should the rejection be lost with the channel, the next delivery must not be taken for a leftover. */
  #reject(delivery: Delivery, facts: Facts, error: Error): false {
    const reason = 'cannot be published again; the broker keeps it as it is'
    if (delivery.reject()) this.#parts.events.emit('message.dead-lettered', { ...facts, reason, error })
    return false
  }

  #ack(delivery: Delivery, run: Run): 'ended' {
    if (!delivery.ack())
      this.#stale(
        run,
        new Closed('the channel was lost before the ack; the broker delivers it again, and it is dropped then'),
      )
    return 'ended'
  }

  #stale(run: Run, error: Error): void {
    this.#parts.events.emit('message.stale', { ...this.#facts(run), error })
  }

  #facts(run: Run): Facts {
    const { messageId, transactionId, type, queue } = run.message
    return { messageId, transactionId, queue, type, attempt: run.attempt, generation: run.generation }
  }
}

type Facts = Omit<EventTable['message.put-off'], 'delayMs' | 'why'>
