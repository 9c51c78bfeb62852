/**
 * Publishes encoded messages on a confirm channel that is rebuilt when lost. Resolves only when confirmed and routed.
 * Promises: nacked and unknown sends are repeated with the same id until the deadline; nothing waits beyond its deadline, and
 * no more than `maxWaiting` messages of `maxWaitingBytes` wait; while disconnected or blocked nothing is written; a message the
 * broker refuses by closing the channel (missing exchange, no permission, too large) fails alone.
 * Does NOT promise that an `unknown` was not delivered. Emits publish.confirmed, publish.failed, publish.resent.
 */
import type { ConfirmChannel } from 'amqplib'
import { ChannelKeeper } from '../connection/channel-keeper.ts'
import type { Connection } from '../connection/connection.ts'
import { refusedExchange } from '../connection/refusal.ts'
import { deferred, MAX_TIMER_MS, pause, within } from '../deadline.ts'
import { ChannelLost, Closed, PermissionRefused, PublishFailed, ResourceMissing } from '../errors.ts'
import { HEADER } from '../message.ts'
import { publishOn } from './channel-publish.ts'
import { type Asked, Confirms, Pending, type PublishEnd } from './confirms.ts'
import type { Encoded } from './encode.ts'
import { Refusals } from './refusals.ts'

/** Bounds of one publisher. */
export interface PublisherOptions {
  readonly windowMessages: number
  readonly windowBytes: number
  /** Publishes that may wait for the window or the broker; the next is refused at once. */
  readonly maxWaiting: number
  /** Bytes of bodies that may wait. Default no limit. */
  readonly maxWaitingBytes?: number
}

/** How one publish goes. */
export interface SendOptions {
  /** Fail when no queue takes it. */
  readonly mandatory: boolean
  /** Milliseconds from now. */
  readonly deadlineMs: number
  readonly signal?: AbortSignal | undefined
  /** A nack (a full queue) ends it at once, for a caller who tries again in his own time. Default: it is sent again until the deadline. */
  readonly failsOnNack?: boolean
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

/** The publishes that end with one signal. */
interface Abortable {
  readonly pending: Set<Pending>
  readonly end: () => void
}

/** A publish, and who asked for it. */
class Publish extends Pending {
  readonly asker: Asker
  abortable: Abortable | undefined = undefined
  readonly #settled: (publish: Publish, end: PublishEnd) => void

  constructor(asked: Asked, asker: Asker, settled: (publish: Publish, end: PublishEnd) => void) {
    super(asked)
    this.asker = asker
    this.#settled = settled
  }

  settle(end: PublishEnd): void {
    this.#settled(this, end)
  }
}

type Failure = Exclude<PublishEnd, { outcome: 'confirmed' }>

const NACK_PAUSE_BASE_MS = 25
const NACK_PAUSE_CAP_MS = 2_000
/** Between two questions for an exchange that had no answer. */
const CHECK_PAUSE_MS = 250
/** A refused exchange is not tried again for so long: each try costs the channel. */
const REFUSED_MS = 5_000
const NACKED = 'the broker refused it (nack); the queue may be full'
/** How long nothing is sent, so that the channel can be renewed while nothing is on the wire, ms. */
const RENEW_WITHIN_MS = 1_000
/** Class and method of basic.publish in AMQP 0-9-1. */
const BASIC_PUBLISH = { classId: 60, methodId: 40 }

/** The engine under a producer: one confirm channel, rebuilt when lost. */
export class Publisher {
  readonly #connection: Connection
  readonly #options: PublisherOptions
  readonly #keeper: ChannelKeeper<ConfirmChannel>
  readonly #confirms: Confirms
  readonly #refusals = new Refusals()
  /** Set while a channel that only refuses is about to be renewed: nothing new goes out on it until then. */
  #renewal: NodeJS.Timeout | undefined
  readonly #checking = new Set<string>()
  readonly #refused = new Map<string, { readonly until: number; readonly error: Error }>()
  readonly #abortable = new Map<AbortSignal, Abortable>()
  readonly #changes = new Set<() => void>()
  readonly #unwatch: () => void
  #preparing = 0
  #closing = false
  #sweeper: NodeJS.Timeout | undefined
  #sweepAt = Number.POSITIVE_INFINITY
  #started = false

  constructor(connection: Connection, options: PublisherOptions) {
    this.#connection = connection
    this.#options = options
    this.#confirms = new Confirms(options)
    this.#keeper = new ChannelKeeper<ConfirmChannel>({
      connection,
      role: 'publish',
      open: () => connection.openConfirmChannel(),
      setup: async (channel) => this.#listen(channel),
      onLost: () => {
        this.#refusals.forget()
        clearTimeout(this.#renewal)
        this.#renewal = undefined
        this.#confirms.forgetExchanges()
      },
    })
    this.#unwatch = connection.onChange(() => this.#pump())
    this.#keeper.onChange(() => this.#pump())
  }

  /** Starts opening the channel, without waiting for it. */
  start(): void {
    if (this.#started) return
    this.#started = true
    this.#keeper.keep()
  }

  get problem(): string | undefined {
    return this.#started ? this.#keeper.problem : undefined
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

  #taken(): Taken {
    this.start()
    return { at: performance.now(), late: this.#closing }
  }

  async #enqueueLater(asker: Asker, message: Promise<Encoded>, options: SendOptions, taken: Taken): Promise<void> {
    this.#preparing++
    try {
      this.#enqueue(asker, await message, options, taken)
    } catch (error) {
      asker.failed(error)
    }
    this.#preparing--
    this.#tell()
  }

  /** Waits until less than a window's messages wait to be sent; for callers who publish many. */
  async room(): Promise<void> {
    while (this.crowded && !this.#closing) await new Promise<void>((resolve) => this.#changes.add(resolve))
  }

  /** A window's messages wait to be sent. */
  get crowded(): boolean {
    const { windowMessages, windowBytes, maxWaiting } = this.#options
    const { waitingCount, waitingBytes } = this.#confirms
    return waitingCount >= Math.min(windowMessages, maxWaiting) || waitingBytes >= windowBytes
  }

  /** Stops taking, waits for answers at most `drainMs`, gives up on the rest, closes the channel. */
  async close(drainMs: number): Promise<void> {
    this.#closing = true
    const until = performance.now() + drainMs
    while (this.#preparing + this.#confirms.openCount > 0 && performance.now() < until) await this.#change(until)
    this.#giveUpAll(() => true, 'the producer was closed', true)
    clearTimeout(this.#sweeper)
    clearTimeout(this.#renewal)
    this.#unwatch()
    await this.#keeper.close()
    this.#tell()
  }

  #enqueue(asker: Asker, message: Encoded, options: SendOptions, { at, late }: Taken): void {
    const { mandatory, deadlineMs, signal, failsOnNack } = options
    const asked = { message, mandatory, startedAt: at, deadlineAt: at + deadlineMs, failsOnNack }
    const publish = new Publish(asked, asker, this.#settled)
    const refusal = this.#refusal(publish, late, signal)
    if (refusal) {
      publish.settle(refusal)
      return
    }
    this.#confirms.add(publish)
    if (signal) this.#abortWith(publish, signal)
    if (publish.deadlineAt < this.#sweepAt) this.#sweepBy(publish.deadlineAt)
    this.#pump()
  }

  #refusal({ message, deadlineAt }: Pending, late: boolean, signal: AbortSignal | undefined): Failure | undefined {
    const { fatal } = this.#connection
    if (late) return { outcome: 'not-sent', why: 'the producer is closed', retryable: false }
    if (fatal) return { outcome: 'not-sent', why: fatal.message, retryable: false, cause: fatal }
    if (signal?.aborted)
      return { outcome: 'not-sent', why: 'its signal was aborted', retryable: true, cause: signal.reason }
    if (performance.now() >= deadlineAt)
      return { outcome: 'not-sent', why: 'the deadline passed before it could be sent', retryable: true }
    const full = this.#full(message.content.length)
    return full ? { outcome: 'not-sent', why: full, retryable: true } : undefined
  }

  #full(bytes: number): string | undefined {
    const { maxWaiting, maxWaitingBytes = Number.POSITIVE_INFINITY } = this.#options
    const { waitingCount, waitingBytes } = this.#confirms
    if (waitingCount >= maxWaiting)
      return `${maxWaiting} publishes wait already (maxWaiting): slow down, or use publishMany()`
    if (waitingCount > 0 && waitingBytes + bytes > maxWaitingBytes)
      return `publishes of ${waitingBytes} bytes wait already (maxWaitingBytes): slow down, or use publishMany()`
    return undefined
  }

  /** Waits until something was sent or settled, at most until the given time. */
  async #change(until: number): Promise<void> {
    const change = deferred()
    this.#changes.add(() => change.resolve())
    await within(change.promise, until - performance.now(), () => new Closed('')).catch(() => {})
  }

  /** Writes whatever may be written now. */
  #pump(): void {
    const { fatal, blockedReason } = this.#connection
    if (fatal) this.#giveUpAll((p) => p.phase !== 'sent', fatal.message, false, fatal)
    const channel = this.#keeper.channel
    if (fatal || !channel || blockedReason !== undefined || this.#renews()) return
    for (let pending = this.#confirms.next(); pending; pending = this.#confirms.next()) {
      if (!this.#send(channel, pending)) return
    }
    for (const exchange of this.#confirms.heldExchanges) void this.#ask(exchange, channel)
    if (this.#changes.size > 0) this.#tell()
  }

  /** A publish to a missing exchange closes the channel and voids the confirms of its neighbours: ask first. */
  async #ask(exchange: string, channel: ConfirmChannel): Promise<void> {
    if (this.#checking.has(exchange)) return
    this.#checking.add(exchange)
    try {
      await this.#check(exchange)
      if (channel === this.#keeper.channel) this.#confirms.exchangeKnown(exchange)
    } catch (cause) {
      const final = cause instanceof ResourceMissing || cause instanceof PermissionRefused
      if (final) this.#confirms.exchangeRefused(exchange, cause.message, cause)
      else await pause(CHECK_PAUSE_MS, undefined, true)
    }
    this.#checking.delete(exchange)
    this.#pump()
  }

  async #check(exchange: string): Promise<void> {
    const refused = this.#refused.get(exchange)
    if (refused && performance.now() < refused.until) throw refused.error
    this.#refused.delete(exchange)
    const doing = `publish to exchange "${exchange}"`
    await this.#connection.withChannel((channel) => this.#connection.rpc(doing, () => channel.checkExchange(exchange)))
  }

  /** @returns false when the channel turned out to be closed: a new one is built, and the pump runs again then */
  #send(channel: ConfirmChannel, pending: Pending): boolean {
    try {
      const { message, mandatory } = pending
      publishOn(channel, { message, mandatory, headers: headersOf(message) }, (error) => this.#answered(pending, error))
      return true
    } catch (error) {
      const closed = (error as Error).name === 'IllegalOperationError'
      this.#confirms.notSent(pending)
      if (closed) this.#keeper.rebuild(error as Error)
      else this.#confirms.giveUp(pending, `it cannot be encoded: ${(error as Error).message}`, false, error)
      return !closed
    }
  }

  #answered(pending: Pending, error: Error | null): void {
    const answer = error === null ? 'ack' : error.message === 'message nacked' ? 'nack' : 'lost'
    const again = this.#confirms.answered(pending, answer)
    const { exchange, routingKey } = pending.message
    if (answer === 'ack') this.#refusals.acked(exchange, routingKey)
    else if (answer === 'nack' && this.#refusals.nacked(exchange, routingKey, performance.now())) this.#renewSoon()
    if (again && answer === 'nack' && pending.failsOnNack) this.#confirms.giveUp(pending, NACKED, true)
    else if (again) this.#resend(pending, answer)
    if (answer !== 'lost') this.#pump()
  }

  /** To renew the channel with publishes on the wire would void their confirms: when there are none, or not now. */
  #renewSoon(): void {
    this.#renewal ??= setTimeout(() => {
      this.#renewal = undefined
      this.#pump()
    }, RENEW_WITHIN_MS).unref()
  }

  /** @returns true while nothing may be sent: the channel is about to be another one */
  #renews(): boolean {
    if (!this.#renewal) return false
    // Until the keeper tells that the old channel is gone, nothing goes out on it, a publish of this very moment included.
    if (this.#confirms.onWire === 0)
      this.#keeper.rebuild(
        new ChannelLost('the broker refused all publishes to a target for long: a new channel may be heard'),
      )
    return true
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

  #listen(channel: ConfirmChannel): void {
    channel.on('error', (error) => this.#blame(error))
    channel.on('return', ({ properties, fields }) => {
      const { replyCode, replyText } = fields as unknown as { replyCode: number; replyText: string }
      const ours = this.#confirms.markReturned(idOf(properties), { code: replyCode, text: replyText })
      if (!ours) this.#keeper.rebuild(new Error(`the broker returned a message that is not ours: ${replyText}`))
    })
  }

  /** The broker closes the channel over one publish; find out which. */
  #blame(error: Error & { readonly classId?: number; readonly methodId?: number }): void {
    if (error.classId !== BASIC_PUBLISH.classId || error.methodId !== BASIC_PUBLISH.methodId) return
    const { exchange, cause } = refusedExchange(error)
    if (exchange !== undefined && cause instanceof PermissionRefused)
      this.#refused.set(exchange, { until: performance.now() + REFUSED_MS, error: cause })
    this.#confirms.blame(cause, exchange)
  }

  /** One listener per signal, however many publishes share it: Node warns of a leak from the eleventh. */
  #abortWith(publish: Publish, signal: AbortSignal): void {
    publish.abortable = this.#abortable.get(signal) ?? this.#watch(signal)
    publish.abortable.pending.add(publish)
  }

  #watch(signal: AbortSignal): Abortable {
    const pending = new Set<Pending>()
    const abort = () => {
      for (const one of [...pending]) this.#confirms.giveUp(one, 'its signal was aborted', true, signal.reason)
      this.#pump()
    }
    const end = () => {
      signal.removeEventListener('abort', abort)
      this.#abortable.delete(signal)
    }
    signal.addEventListener('abort', abort, { once: true })
    const group = { pending, end }
    this.#abortable.set(signal, group)
    return group
  }

  #giveUpAll(which: (pending: Pending) => boolean, why: string, retryable: boolean, cause?: unknown): void {
    for (const pending of this.#confirms.open.filter(which)) this.#confirms.giveUp(pending, why, retryable, cause)
  }

  /** One timer for all deadlines. */
  #sweepBy(at: number): void {
    clearTimeout(this.#sweeper)
    this.#sweepAt = at
    this.#sweeper = setTimeout(() => this.#sweep(), Math.min(MAX_TIMER_MS, Math.max(0, at - performance.now())))
    this.#sweeper.unref()
  }

  #sweep(): void {
    const now = performance.now()
    let next = Number.POSITIVE_INFINITY
    for (const pending of this.#confirms.open) {
      if (pending.deadlineAt <= now) this.#confirms.giveUp(pending, this.#whyLate(pending), true)
      else next = Math.min(next, pending.deadlineAt)
    }
    this.#sweepAt = Number.POSITIVE_INFINITY
    if (Number.isFinite(next)) this.#sweepBy(next)
    this.#pump()
  }

  #whyLate(pending: Pending): string {
    const waited = `the deadline passed after ${Math.round(performance.now() - pending.startedAt)} ms`
    const problems = [...this.#connection.problems, ...(this.#keeper.problem ? [this.#keeper.problem] : [])]
    if (problems.length > 0) return `${waited}: ${problems[0]}`
    if (pending.nacked) return `${waited}: the broker refused it (nack) each time; the queue may be full`
    return pending.phase === 'sent'
      ? `${waited} without an answer from the broker`
      : `${waited} ${WAITED_FOR[pending.phase]}`
  }

  readonly #settled = (publish: Publish, end: PublishEnd): void => {
    leave(publish)
    const { events } = this.#connection.options
    if (end.outcome === 'confirmed') {
      if (events.wanted('publish.confirmed'))
        events.emit('publish.confirmed', { ...named(publish), durationMs: performance.now() - publish.startedAt })
      const { messageId, transactionId } = publish.message
      publish.asker.confirmed({ outcome: 'confirmed', messageId, transactionId, sends: publish.sends })
    } else {
      const error = failure(publish, end)
      events.emit('publish.failed', { ...named(publish), outcome: end.outcome, error })
      publish.asker.failed(error)
    }
    if (this.#changes.size > 0) this.#tell()
  }

  #tell(): void {
    const listeners = [...this.#changes]
    this.#changes.clear()
    for (const listener of listeners) listener()
  }
}

const WAITED_FOR: Readonly<Record<string, string>> = {
  behind: 'while another publish of the same id had no answer',
  held: 'while the broker did not say whether the exchange exists',
  waiting: 'while it waited for room in the window of unanswered publishes',
}

/** The last of a signal's publishes takes the listener with it. */
function leave(publish: Publish): void {
  const { abortable } = publish
  if (abortable?.pending.delete(publish) && abortable.pending.size === 0) abortable.end()
}

function named({ message, sends }: Pending) {
  const { messageId, transactionId, exchange, routingKey } = message
  return { messageId, transactionId, exchange, routingKey, sends }
}

function idOf({ messageId, headers }: { messageId?: unknown; headers?: Record<string, unknown> | undefined }): string {
  const own = headers?.[HEADER.publishId]
  return typeof own === 'string' ? own : String(messageId)
}

/** A message of a foreign producer may have no message id of its own: without a name its return would pass for a confirm. */
function headersOf({ messageId, properties }: Encoded): Record<string, unknown> {
  return properties.messageId === messageId
    ? properties.headers
    : { ...properties.headers, [HEADER.publishId]: messageId }
}

const ADVICE = {
  returned:
    'No copy was stored. Is there such a queue, or one bound to this exchange with this routing key? Only a producer may publish what nobody needs, with mandatory: false.',
  nacked: 'Other queues bound to the same key may hold a copy. Repeat it with the same messageId.',
  unknown: 'It may be stored. Repeat it with the same messageId: consumers drop the copy.',
  'not-sent': 'Nothing was sent.',
}

function failure(pending: Pending, end: Failure): PublishFailed {
  const advice = end.outcome === 'nacked' && !end.retryable ? 'No copy of this send was stored.' : ADVICE[end.outcome]
  const { messageId, transactionId, exchange, routingKey } = pending.message
  const target = exchange === '' ? `queue "${routingKey}"` : `exchange "${exchange}" with routing key "${routingKey}"`
  return new PublishFailed(
    {
      outcome: end.outcome,
      messageId,
      transactionId,
      exchange,
      routingKey,
      sends: pending.sends,
      retryable: end.retryable,
    },
    `message ${messageId} to ${target} was not published (${end.outcome}): ${end.why}. ${advice}`,
    end.cause === undefined ? undefined : { cause: end.cause },
  )
}
