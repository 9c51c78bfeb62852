/**
 * The bookkeeping of publishes on one confirm channel after another. Knows no broker and no clock.
 *
 *     behind ──the same id is free──▶ waiting ⇄ held (its exchange must be asked for first)
 *     waiting ──next()──▶ sent ──ack──▶ confirmed                     settled, window slot freed
 *        ▲                 ├──return, then ack──▶ returned            settled
 *        │                 ├──nack──▶ backing off ──▶ waiting
 *        ├──channel lost───┤
 *        │                 └──refused by closing the channel──▶ nacked   settled
 *     any ──deadline, abort, close──▶ given up: not-sent | nacked | returned | unknown
 *                                     settled; a slot stays taken until the broker answers
 *
 * Promises: every publish is settled exactly once, with what is known and no more; at most `windowMessages` and `windowBytes`
 * are on the wire (one message larger than the window goes alone); first published, first sent, repeats included;
 * publishes of one message id never overlap on the wire, so that a return, which names only the message, is never taken for
 * another publish's; a message that closes the channel is found out by sending its companions one at a time, and fails alone.
 */
import { Chain } from '../chain.ts'
import { Line } from './line.ts'
import { acked, givenUp, type Pending, type Phase, type PublishEnd, type ReturnReason, refused } from './pending.ts'

/** How much may be on the wire unanswered. */
export interface Window {
  readonly windowMessages: number
  readonly windowBytes: number
}

const NONE: readonly string[] = []

/** The books of all open publishes of one publisher. */
export class Confirms {
  readonly #window: Window
  readonly #line = new Line<Pending>()
  /** Not settled, or on the wire, or both. */
  readonly #books = new Chain<Pending>()
  /** Whose turn it is, by message id; the rest of that id stands behind. */
  readonly #turn = new Map<string, Pending>()
  readonly #behind = new Map<string, Set<Pending>>()
  readonly #known = new Set<string>([''])
  readonly #held = new Map<string, Set<Pending>>()
  /** The latest suspect sent; while it is on the wire, nothing else is. */
  #alone: Pending | undefined
  #openCount = 0
  #wireCount = 0
  #waitingCount = 0
  #waitingBytes = 0
  #bytesOnWire = 0

  constructor(window: Window) {
    this.#window = window
  }

  /** Publishes not settled yet, first published first. */
  get open(): readonly Pending[] {
    return this.#books.items.filter(({ phase }) => phase !== 'settled')
  }

  get openCount(): number {
    return this.#openCount
  }

  /** Publishes that wait to be sent, for whatever reason. */
  get waitingCount(): number {
    return this.#waitingCount
  }

  get waitingBytes(): number {
    return this.#waitingBytes
  }

  get onWire(): number {
    return this.#wireCount
  }

  /** Exchanges that must be asked for before the publishes held for them can go. */
  get heldExchanges(): readonly string[] {
    return this.#held.size === 0 ? NONE : [...this.#held.keys()]
  }

  add(pending: Pending): void {
    const { messageId } = pending.message
    pending.link = this.#books.add(pending)
    this.#openCount++
    if (this.#turn.has(messageId)) {
      this.#become(pending, 'behind')
      addTo(this.#behind, messageId, pending)
    } else this.#takeTurn(pending)
  }

  /** The next publish that may go on the wire now, or undefined. Takes its window slot. */
  next(): Pending | undefined {
    for (let pending = this.#line.first; pending; pending = this.#line.first) {
      const { exchange } = pending.message
      if (this.#known.has(exchange)) return this.#fits(pending) ? this.#send(pending) : undefined
      this.#line.remove(pending)
      this.#become(pending, 'held')
      addTo(this.#held, exchange, pending)
    }
    return undefined
  }

  /** The broker (or the loss of its channel) has answered a send. Answers true where it will be sent again: at once, or for `nack` after a pause and `wait()`. */
  answered(pending: Pending, answer: 'ack' | 'nack' | 'lost'): boolean {
    this.#leaveWire(pending)
    if (pending.phase === 'settled') this.#giveTurn(pending)
    else if (answer === 'ack' || (answer === 'lost' && pending.returned)) this.#settle(pending, acked(pending))
    else if (answer === 'lost' && pending.refused) this.#settle(pending, refused(pending, pending.refused))
    else if (answer === 'nack') {
      pending.nacked = true
      pending.suspect = false
      this.#become(pending, 'backing-off')
    } else {
      pending.inDoubt = true
      this.wait(pending)
    }
    return pending.phase !== 'settled'
  }

  /** A send that never reached the channel (it was already closed) does not count. */
  notSent(pending: Pending): void {
    pending.sends--
    this.#leaveWire(pending)
    if (pending.phase === 'settled') this.#giveTurn(pending)
    else this.wait(pending)
  }

  /** Queues it again, at its old place. */
  wait(pending: Pending): void {
    if (pending.phase === 'settled') return
    this.#become(pending, 'waiting')
    pending.returned = undefined
    this.#line.insert(pending)
  }

  /**
   * The broker returned a message of this id; its ack follows.
   * @returns false when no such message is on the wire
   */
  markReturned(messageId: string, reason: ReturnReason): boolean {
    const pending = this.#turn.get(messageId)
    if (!pending?.onWire) return false
    pending.returned = reason
    return true
  }

  /** The broker closes the channel over a publish: over the one that can be meant, else all of them are sent one at a time from now on. */
  blame(error: Error, exchange?: string): void {
    const isMeant = (p: Pending) => p.onWire && (exchange === undefined || p.message.exchange === exchange)
    const candidates = this.#books.items.filter(isMeant)
    if (candidates.length === 1) candidates[0]!.refused = error
    else if (exchange === undefined) for (const pending of candidates) pending.suspect = true
  }

  /** The exchange exists: what was held for it may go. */
  exchangeKnown(exchange: string): void {
    this.#known.add(exchange)
    const held = this.#held.get(exchange) ?? []
    this.#held.delete(exchange)
    for (const pending of held) this.wait(pending)
  }

  /** The exchange does not take our messages: what was held for it has failed. */
  exchangeRefused(exchange: string, why: string, cause: unknown): void {
    for (const pending of [...(this.#held.get(exchange) ?? [])]) this.giveUp(pending, why, false, cause)
  }

  /** Nothing is known of exchanges any more: the channel was lost, perhaps because one was deleted. */
  forgetExchanges(): void {
    this.#known.clear()
    this.#known.add('')
  }

  /** Gives up on a publish: deadline, abort, close, or a message that cannot be sent. Honest about what is known. */
  giveUp(pending: Pending, why: string, retryable: boolean, cause?: unknown): void {
    if (pending.phase !== 'settled') this.#settle(pending, givenUp(pending, { why, retryable, cause }))
  }

  #send(pending: Pending): Pending {
    this.#line.remove(pending)
    this.#become(pending, 'sent')
    pending.sends++
    if (pending.suspect) this.#alone = pending
    pending.onWire = true
    this.#wireCount++
    this.#bytesOnWire += sizeOf(pending)
    return pending
  }

  #leaveWire(pending: Pending): void {
    if (this.#alone === pending) this.#alone = undefined
    if (!pending.onWire) return
    pending.onWire = false
    this.#wireCount--
    this.#bytesOnWire -= sizeOf(pending)
    this.#strike(pending)
  }

  #settle(pending: Pending, end: PublishEnd): void {
    this.#line.remove(pending)
    removeFrom(this.#held, pending.message.exchange, pending)
    removeFrom(this.#behind, pending.message.messageId, pending)
    this.#become(pending, 'settled')
    this.#openCount--
    this.#strike(pending)
    if (!pending.onWire) this.#giveTurn(pending)
    pending.settle(end)
  }

  /** Out of the books, once it is settled and off the wire. */
  #strike(pending: Pending): void {
    if (pending.onWire || pending.phase !== 'settled' || !pending.link) return
    this.#books.remove(pending.link)
    pending.link = undefined
  }

  #takeTurn(pending: Pending): void {
    this.#turn.set(pending.message.messageId, pending)
    this.wait(pending)
  }

  #giveTurn(pending: Pending): void {
    const { messageId } = pending.message
    if (this.#turn.get(messageId) !== pending) return
    this.#turn.delete(messageId)
    const [heir] = this.#behind.get(messageId) ?? []
    if (!heir) return
    removeFrom(this.#behind, messageId, heir)
    this.#takeTurn(heir)
  }

  /** Nothing goes beside a suspect, so that a second closing tells who it was. */
  #fits(pending: Pending): boolean {
    if (this.#wireCount === 0) return true
    if (pending.suspect || this.#alone) return false
    const { windowMessages, windowBytes } = this.#window
    return this.#wireCount < windowMessages && this.#bytesOnWire + sizeOf(pending) <= windowBytes
  }

  #become(pending: Pending, phase: Phase): void {
    const change = Number(waits(phase)) - Number(waits(pending.phase))
    this.#waitingCount += change
    this.#waitingBytes += change * sizeOf(pending)
    pending.phase = phase
  }
}

function waits(phase: Phase): boolean {
  return phase === 'behind' || phase === 'held' || phase === 'waiting' || phase === 'backing-off'
}

function sizeOf(pending: Pending): number {
  return pending.message.content.length
}

function addTo(groups: Map<string, Set<Pending>>, name: string, pending: Pending): void {
  const group = groups.get(name)
  if (group) group.add(pending)
  else groups.set(name, new Set([pending]))
}

function removeFrom(groups: Map<string, Set<Pending>>, name: string, pending: Pending): void {
  const group = groups.get(name)
  if (group?.delete(pending) && group.size === 0) groups.delete(name)
}
