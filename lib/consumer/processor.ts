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
 */
import { pause } from '../deadline.ts'
import { Closed, type MessageInvalid, textOf } from '../errors.ts'
import type { Events } from '../observability/events.ts'
import type { Producer } from '../producer/producer.ts'
import { Active, type AttemptEnd } from './active.ts'
import type { Delivery } from './delivery.ts'
import type { Admission, FailurePolicy, Guard, Handler, Outlet, Run, RunEnding, Verdict } from './handler.ts'
import type { Rest } from './in-flight.ts'

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
}

/** Put off a message that someone else owns, ms. */
const LOST_DELAY_MS = 1_000
const MOVE_PAUSE_BASE_MS = 250
const MOVE_PAUSE_CAP_MS = 15_000
const ADMITTED: Admission = { admit: 'run' }

/** What is to be done next with a delivery: once more in place after so many ms, or nothing. */
type Next = number | 'ended'

export class Processor {
  readonly #parts: ProcessorParts
  readonly #active = new Set<Active>()

  constructor(parts: ProcessorParts) {
    this.#parts = parts
  }

  /** Fires the signals of all handlers that run now. */
  abort(reason: Error): void {
    for (const active of this.#active) active.abort(reason)
  }

  get running(): number {
    return this.#active.size
  }

  /** A delivery that could be read. Never rejects. */
  async process(delivery: Delivery, run: Run, rest: Rest): Promise<void> {
    try {
      let next: Next = 0
      while (next !== 'ended' && !delivery.stale) {
        if (next > 0 && !(await this.#waited(delivery, next, rest))) return
        next = await this.#once(delivery, run)
      }
    } catch (error) {
      this.#stale(run, error as Error)
      delivery.handBack()
    }
  }

  /** A delivery that could not be read. Never rejects. */
  async refuse(delivery: Delivery, error: MessageInvalid): Promise<void> {
    const moved = await this.#move(delivery, () =>
      this.#parts.outlet.bury(delivery.raw, undefined, 'invalid message', error),
    )
    if (!moved) return
    const messageId = String(delivery.raw.properties.messageId ?? '').slice(0, 255)
    const { queue, events } = this.#parts
    events.emit('message.dead-lettered', {
      messageId,
      transactionId: '',
      queue,
      type: undefined,
      attempt: 0,
      generation: 0,
      reason: 'invalid message',
      error,
    })
    delivery.ack()
  }

  async #once(delivery: Delivery, run: Run): Promise<Next> {
    const admission = await this.#admit(delivery, run)
    if (!admission) return 'ended'
    switch (admission.admit) {
      case 'run':
        return this.#attempt(delivery, run)
      case 'drop':
        return this.#drop(delivery, run, admission.why)
      case 'later':
        return this.#later(delivery, run, admission.delayMs, admission.why)
      case 'failed-before':
        run.attempt = admission.attempt - 1
        return this.#carryOut(delivery, run, this.#parts.policy.again(admission.attempt), undefined)
      case 'refuse':
        return this.#bury(delivery, run, admission.reason, admission.error)
    }
  }

  async #admit(delivery: Delivery, run: Run): Promise<Admission | undefined> {
    const { guard } = this.#parts
    if (!guard || !run.guarded) return ADMITTED
    const admission = await guard.admit(run, delivery.lost)
    if (admission?.admit === 'run' && delivery.stale) {
      await this.#end(run, { state: 'returned' })
      return undefined
    }
    return admission
  }

  async #attempt(delivery: Delivery, run: Run): Promise<Next> {
    const started = performance.now()
    const active = new Active(run, this.#parts.producer)
    this.#active.add(active)
    const end = await active.run(this.#parts.handler, this.#parts.handlerTimeoutMs)
    this.#active.delete(active)
    return this.#ended(delivery, run, end, performance.now() - started)
  }

  #ended(delivery: Delivery, run: Run, end: AttemptEnd, durationMs: number): Promise<Next> {
    if (end.ended === 'done') return this.#complete(delivery, run, durationMs)
    if (end.ended === 'interrupted') return this.#interrupted(delivery, run, end.error)
    this.#parts.events.emit('message.failed', { ...this.#facts(run), error: end.error, durationMs })
    run.firstFailedAt ??= Date.now()
    return this.#failed(delivery, run, end.error)
  }

  async #complete(delivery: Delivery, run: Run, durationMs: number): Promise<Next> {
    const recorded = await this.#end(run, { state: 'completed' })
    if (recorded === 'lost')
      return this.#later(delivery, run, LOST_DELAY_MS, 'another owner took the lease while the handler ran')
    if (recorded === undefined) return 'ended'
    const { events } = this.#parts
    if (events.wanted('message.completed')) events.emit('message.completed', { ...this.#facts(run), durationMs })
    this.#ack(delivery, run)
    return 'ended'
  }

  async #interrupted(delivery: Delivery, run: Run, reason: Error): Promise<Next> {
    await this.#end(run, { state: 'returned' })
    if (delivery.stale) this.#stale(run, reason)
    else if (this.#parts.closing.aborted) delivery.handBack()
    else return this.#later(delivery, run, LOST_DELAY_MS, textOf(reason))
    return 'ended'
  }

  async #failed(delivery: Delivery, run: Run, error: unknown): Promise<Next> {
    const verdict = this.#parts.policy.decide(error, run.attempt, run.firstFailedAt)
    if (verdict.verdict === 'retry') {
      const recorded = await this.#end(run, { state: 'failed', nextAttempt: run.attempt + 1 })
      if (recorded === 'lost')
        return this.#later(delivery, run, LOST_DELAY_MS, 'another owner took the lease while the handler ran')
      if (recorded === undefined) return 'ended'
    }
    return this.#carryOut(delivery, run, verdict, error)
  }

  async #carryOut(delivery: Delivery, run: Run, verdict: Verdict, error: unknown): Promise<Next> {
    if (verdict.verdict === 'dead') return this.#bury(delivery, run, verdict.reason, error)
    const { delayMs } = verdict
    const { inPlace, outlet, events } = this.#parts
    const facts = this.#facts(run)
    if (inPlace) {
      run.attempt++
      events.emit('message.retried', { ...facts, delayMs, error })
      return delayMs
    }
    const moved = await this.#move(delivery, () => outlet.retry(delivery.raw, run, run.attempt + 1, delayMs, error))
    if (!moved) return 'ended'
    events.emit('message.retried', { ...facts, delayMs, error })
    this.#ack(delivery, run)
    return 'ended'
  }

  async #bury(delivery: Delivery, run: Run, reason: string, error: unknown): Promise<Next> {
    const moved = await this.#move(delivery, () => this.#parts.outlet.bury(delivery.raw, run, reason, error))
    if (!moved) return 'ended'
    if (run.fencingToken !== undefined) await this.#end(run, { state: 'dead', generation: run.generation })
    this.#parts.events.emit('message.dead-lettered', { ...this.#facts(run), reason, error })
    this.#ack(delivery, run)
    return 'ended'
  }

  async #later(delivery: Delivery, run: Run, delayMs: number, why: string): Promise<Next> {
    const { inPlace, outlet, events } = this.#parts
    events.emit('message.put-off', { ...this.#facts(run), delayMs, why })
    if (inPlace) return delayMs
    const moved = await this.#move(delivery, () => outlet.retry(delivery.raw, run, run.attempt, delayMs, undefined))
    if (moved) this.#ack(delivery, run)
    return 'ended'
  }

  #drop(delivery: Delivery, run: Run, why: 'completed' | 'superseded'): Next {
    const { events } = this.#parts
    if (events.wanted('message.duplicate')) events.emit('message.duplicate', { ...this.#facts(run), why })
    this.#ack(delivery, run)
    return 'ended'
  }

  /** Waits in place, without a slot; a consumer that closes meanwhile hands the delivery back. */
  async #waited(delivery: Delivery, delayMs: number, rest: Rest): Promise<boolean> {
    const stop = AbortSignal.any([delivery.lost, this.#parts.closing])
    await rest(() => pause(delayMs, stop))
    if (stop.aborted) delivery.handBack()
    return !stop.aborted
  }

  #end(run: Run, ending: RunEnding): Promise<'recorded' | 'lost' | undefined> {
    const { guard } = this.#parts
    if (!guard || !run.guarded) return Promise.resolve('recorded')
    return guard.end(run, ending)
  }

  /**
   * Publishes the message onwards, as often as it takes while the delivery is ours. A message that cannot be published by us at all
   * (headers too large for a client) is left to the broker's own dead-lettering, which keeps it as it is.
   * @returns false when the delivery was lost or settled meanwhile
   */
  async #move(delivery: Delivery, publish: () => Promise<void>): Promise<boolean> {
    for (let failures = 0; !delivery.stale; failures++) {
      try {
        await publish()
        return !delivery.stale
      } catch (error) {
        if (cannotBeSent(error)) {
          delivery.reject()
          return false
        }
        const ceiling = Math.min(MOVE_PAUSE_CAP_MS, MOVE_PAUSE_BASE_MS * 2 ** Math.min(failures, 16))
        await pause(ceiling * (0.5 + Math.random() / 2), delivery.lost)
      }
    }
    return false
  }

  #ack(delivery: Delivery, run: Run): void {
    if (!delivery.ack())
      this.#stale(
        run,
        new Closed('the channel was lost before the ack; the broker delivers it again, and it is dropped then'),
      )
  }

  #stale(run: Run, error: Error): void {
    this.#parts.events.emit('message.stale', { ...this.#facts(run), error })
  }

  #facts(run: Run) {
    const { messageId, transactionId, type, queue } = run.message
    return { messageId, transactionId, queue, type, attempt: run.attempt, generation: run.generation }
  }
}

/** Nothing about this message will be different the next time. */
function cannotBeSent(error: unknown): boolean {
  const { outcome, retryable, cause } = error as { outcome?: string; retryable?: boolean; cause?: Error }
  return (
    outcome === 'not-sent' &&
    retryable === false &&
    (cause?.name === 'RangeError' || cause?.name === 'TypeError' || cause?.name === 'MessageInvalid')
  )
}
