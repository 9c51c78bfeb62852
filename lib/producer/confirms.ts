/**
 * The bookkeeping of publishes on one confirm channel after another. Knows no broker and no clock.
 *
 *     waiting ──sent──▶ sent ──ack──▶ confirmed                        settled, window slot freed
 *        ▲               ├──return, then ack──▶ returned               settled
 *        │               ├──nack──▶ backing off ──▶ waiting
 *        └───────────────┴──channel lost──▶ waiting (in doubt)
 *     any ──deadline or abort──▶ given up: not-sent | nacked | unknown  settled; a slot stays taken until the broker answers
 *
 * Promises: every publish is settled exactly once; at most `windowMessages` and `windowBytes` are on the wire (one message
 * larger than the window goes alone); publishes of one message id never overlap on the wire, so that a return, which names
 * only the message, is never taken for another publish's.
 */
import type { FailedOutcome } from '../errors.ts'
import type { Encoded } from './encode.ts'

/** One publish from the call to its end. */
export interface Pending {
  readonly message: Encoded
  readonly mandatory: boolean
  readonly startedAt: number
  readonly deadlineAt: number
  /** Called exactly once. */
  settle: (end: PublishEnd) => void
  /** How often it was handed to a channel. */
  sends: number
  phase: 'waiting' | 'sent' | 'backing-off' | 'settled'
  /** A send ended without an answer: the message may be stored. */
  inDoubt: boolean
  nacked: boolean
  returned: ReturnReason | undefined
}

/** What the broker says with a return, e.g. 312 NO_ROUTE. */
export interface ReturnReason {
  readonly code: number
  readonly text: string
}

export type PublishEnd =
  | { readonly outcome: 'confirmed' }
  | { readonly outcome: FailedOutcome; readonly why: string; readonly retryable: boolean; readonly cause?: unknown }

export interface Window {
  readonly windowMessages: number
  readonly windowBytes: number
}

export class Confirms {
  readonly #window: Window
  readonly #open = new Map<string, Pending>()
  #waiting: Pending[] = []
  #head = 0
  #waitingCount = 0
  #onWire = 0
  #bytesOnWire = 0

  constructor(window: Window) {
    this.#window = window
  }

  /** Publishes not settled yet. */
  get open(): Iterable<Pending> {
    return this.#open.values()
  }

  get openCount(): number {
    return this.#open.size
  }

  /** Publishes that wait to be sent (given up ones not counted). */
  get waitingCount(): number {
    return this.#waitingCount
  }

  get onWire(): number {
    return this.#onWire
  }

  /** Is a publish of this message id under way? Then the next must wait for its end. */
  has(messageId: string): boolean {
    return this.#open.has(messageId)
  }

  add(pending: Pending): void {
    this.#open.set(pending.message.messageId, pending)
    this.#queue(pending)
  }

  /** The next publish that may go on the wire now, or undefined. Takes its window slot. */
  next(): Pending | undefined {
    while (this.#head < this.#waiting.length) {
      const pending = this.#waiting[this.#head]!
      if (pending.phase === 'waiting' && !this.#fits(pending)) return undefined
      this.#shift()
      if (pending.phase !== 'waiting') continue
      pending.phase = 'sent'
      this.#waitingCount--
      pending.sends++
      this.#onWire++
      this.#bytesOnWire += pending.message.content.length
      return pending
    }
    return undefined
  }

  /** The broker (or the loss of its channel) has answered a send. Answers true where it should be sent again, after a pause for `nacked`. */
  answered(pending: Pending, answer: 'ack' | 'nack' | 'lost'): boolean {
    this.#onWire--
    this.#bytesOnWire -= pending.message.content.length
    if (pending.phase === 'settled') {
      this.#forget(pending)
      return false
    }
    if (answer === 'ack') this.#acked(pending)
    if (answer === 'nack') {
      pending.nacked = true
      pending.phase = 'backing-off'
    }
    if (answer === 'lost') {
      pending.inDoubt = true
      this.wait(pending)
    }
    return answer !== 'ack'
  }

  /** A send that never reached the channel (it was already closed) does not count. */
  notSent(pending: Pending): void {
    pending.sends--
    this.#onWire--
    this.#bytesOnWire -= pending.message.content.length
    this.wait(pending)
  }

  /** Queues it (again). */
  wait(pending: Pending): void {
    if (pending.phase === 'settled') return
    pending.phase = 'waiting'
    pending.returned = undefined
    this.#queue(pending)
  }

  /** The broker returned a message of this id; its ack follows. */
  markReturned(messageId: string, reason: ReturnReason): void {
    const pending = this.#open.get(messageId)
    if (pending) pending.returned = reason
  }

  /** Gives up on a publish: deadline, abort, close, or a message that cannot be sent. Honest about what is known. */
  giveUp(pending: Pending, why: string, retryable: boolean, cause?: unknown): void {
    if (pending.phase === 'settled') return
    const onWire = pending.phase === 'sent'
    if (pending.phase === 'waiting') this.#waitingCount--
    const outcome = onWire || pending.inDoubt ? 'unknown' : pending.nacked ? 'nacked' : 'not-sent'
    pending.phase = 'settled'
    if (!onWire) this.#forget(pending)
    this.#compact()
    pending.settle({ outcome, why, retryable, ...(cause === undefined ? {} : { cause }) })
  }

  #acked(pending: Pending): void {
    pending.phase = 'settled'
    this.#forget(pending)
    const { code, text } = pending.returned ?? { code: 0, text: '' }
    const why = `no queue took it: ${code} ${text}`
    if (!pending.returned) pending.settle({ outcome: 'confirmed' })
    else if (pending.inDoubt)
      pending.settle({ outcome: 'unknown', why: `${why}; an earlier send of it had no answer`, retryable: true })
    else pending.settle({ outcome: 'returned', why, retryable: false })
  }

  #forget(pending: Pending): void {
    if (this.#open.get(pending.message.messageId) === pending) this.#open.delete(pending.message.messageId)
  }

  #fits(pending: Pending): boolean {
    if (this.#onWire === 0) return true
    const { windowMessages, windowBytes } = this.#window
    return this.#onWire < windowMessages && this.#bytesOnWire + pending.message.content.length <= windowBytes
  }

  #queue(pending: Pending): void {
    this.#waiting.push(pending)
    this.#waitingCount++
  }

  #shift(): void {
    this.#head++
    this.#compact()
  }

  /** Drops what was sent or given up, so that nothing dead is held while disconnected. */
  #compact(): void {
    if (this.#waiting.length <= 1_024 || this.#waiting.length < 2 * this.#waitingCount) return
    this.#waiting = this.#waiting.slice(this.#head).filter((pending) => pending.phase === 'waiting')
    this.#head = 0
  }
}
