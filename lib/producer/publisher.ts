/**
 * Publishes encoded messages on a confirm channel that is rebuilt when lost. Resolves only when confirmed and routed.
 * Promises: nacked and unknown sends are repeated with the same id until the deadline; nothing waits beyond its deadline, and
 * no more than `maxWaiting` messages of `maxWaitingBytes` wait; while disconnected or blocked nothing is written; a message the
 * broker refuses by closing the channel (missing exchange, no permission, too large) fails alone.
 * Does NOT promise that an `unknown` was not delivered. Emits publish.confirmed, publish.failed, publish.resent.
 */
import type { ConfirmChannel } from 'amqplib'
import type { Connection } from '../connection/connection.ts'
import { pause, unlessAborted } from '../deadline.ts'
import { type AbortGroup, Aborts } from './aborts.ts'
import { Backpressure, type Bounds } from './backpressure.ts'
import { Confirms } from './confirms.ts'
import { Deadlines } from './deadlines.ts'
import type { Encoded } from './encode.ts'
import { ExchangeCheck } from './exchange-check.ts'
import { type Asked, type Failure, named, Pending, type PublishEnd } from './pending.ts'
import { isTooLarge, NACKED, publishFailed, whyLate } from './publish-failure.ts'
import { PublisherChannel } from './publisher-channel.ts'

/** How one publish goes. */
export interface SendOptions {
  /** Fail when no queue takes it. */
  readonly mandatory: boolean
  /** Milliseconds from now. */
  readonly deadlineMs: number
  readonly signal?: AbortSignal | undefined
  /** A nack (a full queue) ends it at once, for a caller who tries again in his own time. Default: it is sent again until the deadline. */
  readonly failsOnNack?: boolean
  /** Headers too large to be sent are told to the caller alone, who tries a shorter copy. Default: as any failure. */
  readonly hasShorter?: boolean | undefined
}

/** A confirmed and routed publish. */
export interface Receipt {
  readonly outcome: 'confirmed'
  readonly messageId: string
  readonly transactionId: string
  /** How often it was handed to the broker: more than 1 where answers were lost, and a copy may exist. */
  readonly sends: number
}

/** Whoever asked for a publish hears once how it ended. */
export interface Asker {
  confirmed(receipt: Receipt): void
  /** @param error a PublishFailed, or what the preparation threw */
  failed(error: unknown): void
}

/** When a publish was asked for, and whether that was after `close()`. */
interface Taken {
  readonly at: number
  readonly late: boolean
}

/** A publish, and who asked for it. */
class Publish extends Pending {
  readonly asker: Asker
  readonly hasShorter: boolean
  abortGroup: AbortGroup | undefined = undefined
  readonly #settled: (publish: Publish, end: PublishEnd) => void

  constructor(
    asked: Asked & Pick<SendOptions, 'hasShorter'>,
    asker: Asker,
    settled: (publish: Publish, end: PublishEnd) => void,
  ) {
    super(asked)
    this.asker = asker
    this.hasShorter = asked.hasShorter === true
    this.#settled = settled
  }

  settle(end: PublishEnd): void {
    this.#settled(this, end)
  }
}

const CLOSED = 'the producer was closed'
const NACK_PAUSE_BASE_MS = 25
const NACK_PAUSE_CAP_MS = 2_000

/** The engine under a producer: one confirm channel, rebuilt when lost. */
export class Publisher {
  readonly #connection: Connection
  readonly #confirms: Confirms
  readonly #backpressure: Backpressure
  readonly #exchanges: ExchangeCheck
  readonly #channel: PublisherChannel
  readonly #deadlines: Deadlines<Pending>
  readonly #aborts: Aborts
  readonly #unwatch: () => void
  readonly #closing = new AbortController()
  #preparing = 0
  /** What `close()` waited for has ended, or was given up. */
  #drained = false
  #started = false

  constructor(connection: Connection, bounds: Bounds) {
    const pump = () => this.#pump()
    const confirms = new Confirms(bounds)
    const exchanges = new ExchangeCheck({ connection, confirms, asked: pump })
    this.#connection = connection
    this.#confirms = confirms
    this.#backpressure = new Backpressure(bounds, confirms)
    this.#exchanges = exchanges
    this.#channel = new PublisherChannel({ connection, confirms, exchanges, changed: pump })
    this.#deadlines = new Deadlines(
      () => confirms.open,
      (late) => this.#late(late),
    )
    this.#aborts = new Aborts((publishes, reason) => this.#aborted(publishes, reason))
    this.#unwatch = connection.onChange(pump)
  }

  /** Starts opening the channel, without waiting for it. */
  start(): void {
    if (this.#started) return
    this.#started = true
    this.#channel.start()
  }

  get problem(): string | undefined {
    return this.#started ? (this.#channel.problem ?? this.#exchanges.problem) : undefined
  }

  /** Publishes not ended yet. */
  get openCount(): number {
    return this.#confirms.openCount
  }

  /**
   * Publishes one message. Time for its preparation counts; what was taken before `close()` is still sent.
   * @throws PublishFailed, and what the preparation throws
   */
  publish(message: Encoded | Promise<Encoded>, options: SendOptions): Promise<Receipt> {
    return new Promise((confirmed, failed) => {
      const taken = this.#taken()
      const asker = { confirmed, failed }
      if (message instanceof Promise) void this.#enqueueLater(asker, message, options, taken)
      else this.#enqueue(asker, message, options, taken)
    })
  }

  /** The same without a promise, which costs more than the bookkeeping of a message; for callers who have many. */
  publishFor(asker: Asker, message: Encoded, options: SendOptions): void {
    this.#enqueue(asker, message, options, this.#taken())
  }

  /** Waits until less than a window's messages wait to be sent; for callers who publish many. Ends with the signal, too. */
  room(signal: AbortSignal | undefined): Promise<void> {
    return this.#while(() => this.crowded, signal)
  }

  /** A window's messages wait to be sent. */
  get crowded(): boolean {
    return this.#backpressure.crowded
  }

  /** Fires when it begins to close: nothing is taken from then on. */
  get closing(): AbortSignal {
    return this.#closing.signal
  }

  /** Whatever is published now with this signal fails, and so does all that comes after it. */
  isOver(signal: AbortSignal | undefined): boolean {
    return this.closing.aborted || signal?.aborted === true || this.#connection.fatal !== undefined
  }

  /** A publish of so many bytes would be refused now, whoever it is that fills the bounds. */
  full(bytes: number): boolean {
    return this.#backpressure.refusal(bytes) !== undefined
  }

  /** Waits until it would not be. Ends with the signal, too. */
  roomFor(bytes: number, signal: AbortSignal | undefined): Promise<void> {
    return this.#while(() => this.full(bytes), signal)
  }

  async #while(isSo: () => boolean, signal: AbortSignal | undefined): Promise<void> {
    while (isSo() && !this.closing.aborted && !signal?.aborted)
      await unlessAborted(this.#backpressure.change(), signal).catch(() => {})
  }

  /** Stops taking, waits for answers at most `drainMs`, gives up on the rest, closes the channel. */
  async close(drainMs: number): Promise<void> {
    this.#closing.abort()
    const until = performance.now() + drainMs
    while (this.#preparing + this.#confirms.openCount > 0 && performance.now() < until)
      await this.#backpressure.changeBy(until)
    this.#drained = true
    for (const pending of this.#confirms.open) this.#confirms.giveUp(pending, CLOSED, true)
    this.#deadlines.stop()
    this.#unwatch()
    await this.#channel.close()
    this.#backpressure.changed()
  }

  #taken(): Taken {
    this.start()
    return { at: performance.now(), late: this.closing.aborted }
  }

  async #enqueueLater(asker: Asker, message: Promise<Encoded>, options: SendOptions, taken: Taken): Promise<void> {
    this.#preparing++
    try {
      this.#enqueue(asker, await message, options, taken)
    } catch (error) {
      asker.failed(error)
    }
    this.#preparing--
    this.#backpressure.changed()
  }

  #enqueue(asker: Asker, message: Encoded, options: SendOptions, { at, late }: Taken): void {
    const { mandatory, deadlineMs, signal, failsOnNack, hasShorter } = options
    const asked = { message, mandatory, startedAt: at, deadlineAt: at + deadlineMs, failsOnNack, hasShorter }
    const publish = new Publish(asked, asker, this.#settled)
    const refusal = this.#refusal(publish, late, signal)
    if (refusal) {
      publish.settle(refusal)
      return
    }
    this.#confirms.add(publish)
    if (signal) this.#aborts.add(publish, signal)
    this.#deadlines.add(publish)
    this.#pump()
  }

  #refusal({ message, deadlineAt }: Pending, late: boolean, signal: AbortSignal | undefined): Failure | undefined {
    const { fatal } = this.#connection
    if (late) return { outcome: 'not-sent', why: 'the producer is closed', retryable: false }
    // Its preparation took longer than `close()` waits: no channel and no timer would end it any more.
    if (this.#drained) return { outcome: 'not-sent', why: CLOSED, retryable: true }
    if (fatal) return { outcome: 'not-sent', why: fatal.message, retryable: false, cause: fatal }
    if (signal?.aborted)
      return { outcome: 'not-sent', why: 'its signal was aborted', retryable: true, cause: signal.reason }
    if (performance.now() >= deadlineAt)
      return { outcome: 'not-sent', why: 'the deadline passed before it could be sent', retryable: true }
    const full = this.#backpressure.refusal(message.content.length)
    return full ? { outcome: 'not-sent', why: full, retryable: true } : undefined
  }

  /** Writes whatever may be written now. */
  #pump(): void {
    if (this.#fatal()) return
    const channel = this.#channel.ready()
    if (!channel) return
    for (let pending = this.#confirms.next(); pending; pending = this.#confirms.next()) {
      if (!this.#send(channel, pending)) return
    }
    this.#exchanges.askForHeld()
    this.#backpressure.changed()
  }

  /** @returns true when the connection will never open (again): what is not on the wire has failed then */
  #fatal(): boolean {
    const { fatal } = this.#connection
    if (!fatal) return false
    for (const pending of this.#confirms.open)
      if (pending.phase !== 'sent') this.#confirms.giveUp(pending, fatal.message, false, fatal)
    return true
  }

  /** @returns false when the channel turned out to be closed: a new one is built, and the pump runs again then */
  #send(channel: ConfirmChannel, pending: Pending): boolean {
    try {
      this.#channel.send(channel, pending, (error) => this.#answered(pending, error))
      return true
    } catch (error) {
      const closed = (error as Error).name === 'IllegalOperationError'
      this.#confirms.notSent(pending)
      if (closed) this.#channel.rebuild(error as Error)
      else this.#confirms.giveUp(pending, `it cannot be encoded: ${(error as Error).message}`, false, error)
      return !closed
    }
  }

  #answered(pending: Pending, error: Error | null): void {
    const answer = error === null ? 'ack' : error.message === 'message nacked' ? 'nack' : 'lost'
    const again = this.#confirms.answered(pending, answer)
    if (answer === 'ack') this.#channel.acked(pending.message)
    else if (answer === 'nack') this.#channel.nacked(pending.message)
    if (again && answer === 'nack' && pending.failsOnNack) this.#confirms.giveUp(pending, NACKED, true)
    else if (again) this.#resend(pending, answer)
    if (answer !== 'lost') this.#pump()
  }

  #resend(pending: Pending, answer: string): void {
    const outcome = answer === 'nack' ? 'nacked' : 'unknown'
    this.#connection.options.events.emit('publish.resent', { ...named(pending), outcome })
    if (answer !== 'nack') return
    const ceiling = Math.min(NACK_PAUSE_CAP_MS, NACK_PAUSE_BASE_MS * 2 ** Math.min(pending.sends, 16))
    void pause(ceiling * (0.5 + Math.random() / 2), undefined, true).then(() => {
      this.#confirms.wait(pending)
      this.#pump()
    })
  }

  #aborted(publishes: readonly Pending[], reason: unknown): void {
    for (const pending of publishes) this.#confirms.giveUp(pending, 'its signal was aborted', true, reason)
    this.#pump()
  }

  #late(publishes: readonly Pending[]): void {
    const problem = this.#connection.problems[0] ?? this.#channel.problem
    for (const pending of publishes) {
      const unasked = pending.phase === 'held' ? this.#exchanges.problemOf(pending.message.exchange) : undefined
      this.#confirms.giveUp(pending, whyLate(pending, problem ?? unasked), true)
    }
    this.#pump()
  }

  readonly #settled = (publish: Publish, end: PublishEnd): void => {
    this.#aborts.leave(publish)
    const { events } = this.#connection.options
    if (end.outcome === 'confirmed') {
      if (events.wanted('publish.confirmed'))
        events.emit('publish.confirmed', { ...named(publish), durationMs: performance.now() - publish.startedAt })
      const { messageId, transactionId } = publish.message
      publish.asker.confirmed({ outcome: 'confirmed', messageId, transactionId, sends: publish.sends })
    } else {
      const error = publishFailed(publish, end)
      if (!publish.hasShorter || !isTooLarge(error))
        events.emit('publish.failed', { ...named(publish), outcome: end.outcome, error })
      publish.asker.failed(error)
    }
    this.#backpressure.changed()
  }
}
