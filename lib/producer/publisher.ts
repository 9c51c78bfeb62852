/**
 * Publishes encoded messages on a confirm channel that is rebuilt when lost. Resolves only when confirmed and routed.
 * Promises: nacked and unknown sends are repeated with the same id until the deadline; nothing waits beyond its deadline;
 * while disconnected or blocked nothing is written; a missing exchange fails its own messages only.
 * Does NOT promise that an `unknown` was not delivered. Emits publish.confirmed, publish.failed, publish.resent.
 */
import type { ConfirmChannel, Options } from 'amqplib'
import { ChannelKeeper } from '../connection/channel-keeper.ts'
import type { Connection } from '../connection/connection.ts'
import { deferred, MAX_TIMER_MS, within } from '../deadline.ts'
import { Closed, PublishFailed, ResourceMissing } from '../errors.ts'
import { Confirms, type Pending, type PublishEnd } from './confirms.ts'
import type { Encoded } from './encode.ts'

export interface PublisherOptions {
  readonly windowMessages: number
  readonly windowBytes: number
  /** Publishes that may wait for the window or the broker; the next is refused at once. */
  readonly maxWaiting: number
}

/** How one publish goes. */
export interface SendOptions {
  /** Fail when no queue takes it. */
  readonly mandatory: boolean
  /** Milliseconds from now. */
  readonly deadlineMs: number
  readonly signal?: AbortSignal | undefined
}

/** A confirmed and routed publish. */
export interface Receipt {
  readonly outcome: 'confirmed'
  readonly messageId: string
  readonly transactionId: string
  /** How often it was handed to the broker: more than 1 where answers were lost, and a copy may exist. */
  readonly sends: number
}

type Failure = Exclude<PublishEnd, { outcome: 'confirmed' }>

const NACK_PAUSE_BASE_MS = 25
const NACK_PAUSE_CAP_MS = 2_000

export class Publisher {
  readonly #connection: Connection
  readonly #options: PublisherOptions
  readonly #keeper: ChannelKeeper<ConfirmChannel>
  readonly #confirms: Confirms
  readonly #exchanges = new Set<string>([''])
  readonly #sameId = new Map<string, Promise<unknown>>()
  readonly #idle = new Set<() => void>()
  #closing = false
  #sweeper: NodeJS.Timeout | undefined
  #sweepAt = Number.POSITIVE_INFINITY
  #started: Promise<void> | undefined

  constructor(connection: Connection, options: PublisherOptions) {
    this.#connection = connection
    this.#options = options
    this.#confirms = new Confirms(options)
    this.#keeper = new ChannelKeeper<ConfirmChannel>({
      connection,
      role: 'publish',
      open: () => connection.openConfirmChannel(),
      setup: (channel) => this.#setup(channel),
      onLost: () => this.#exchanges.clear(),
    })
    connection.onChange(() => this.#pump())
    this.#keeper.onChange(() => this.#pump())
  }

  /** Starts opening the channel, without waiting for it. */
  start(): void {
    this.#started ??= this.#keeper.start().catch(() => {})
  }

  get problem(): string | undefined {
    return this.#started ? this.#keeper.problem : undefined
  }

  get openCount(): number {
    return this.#confirms.openCount
  }

  /**
   * Publishes one message.
   * @throws PublishFailed
   */
  publish(message: Encoded, options: SendOptions): Promise<Receipt> {
    this.start()
    if (this.#exchanges.has(message.exchange) && !this.#confirms.has(message.messageId))
      return this.#enqueue(message, options)
    return this.#enqueueLater(message, options)
  }

  /** Waits until fewer than the window's messages wait; for callers who publish many. */
  async room(): Promise<void> {
    while (this.#confirms.waitingCount > 0 && !this.#closing)
      await new Promise<void>((resolve) => this.#idle.add(resolve))
  }

  /** Stops taking, waits for answers at most `drainMs`, gives up on the rest, closes the channel. */
  async close(drainMs: number): Promise<void> {
    this.#closing = true
    const until = performance.now() + drainMs
    while (this.#confirms.openCount > 0 && performance.now() < until) await this.#change(until)
    for (const pending of [...this.#confirms.open]) this.#confirms.giveUp(pending, 'the producer was closed', true)
    clearTimeout(this.#sweeper)
    await this.#keeper.close()
    this.#signalIdle()
  }

  #enqueue(message: Encoded, options: SendOptions): Promise<Receipt> {
    return new Promise((resolve, reject) => {
      const startedAt = performance.now()
      const pending: Pending = {
        message,
        mandatory: options.mandatory,
        startedAt,
        deadlineAt: startedAt + options.deadlineMs,
        settle: (end) => this.#settled(pending, end, resolve, reject),
        sends: 0,
        phase: 'waiting',
        inDoubt: false,
        nacked: false,
        returned: undefined,
      }
      const refusal = this.#refusal(options.signal)
      if (refusal) return this.#settled(pending, refusal, resolve, reject)
      this.#confirms.add(pending)
      if (options.signal) this.#abortWith(pending, options.signal)
      if (pending.deadlineAt < this.#sweepAt) this.#sweepBy(pending.deadlineAt)
      this.#pump()
    })
  }

  #refusal(signal: AbortSignal | undefined): Failure | undefined {
    if (this.#closing) return { outcome: 'not-sent', why: 'the producer is closed', retryable: false }
    if (signal?.aborted)
      return { outcome: 'not-sent', why: 'its signal was aborted', retryable: true, cause: signal.reason }
    if (this.#confirms.waitingCount < this.#options.maxWaiting) return undefined
    return {
      outcome: 'not-sent',
      why: `${this.#options.maxWaiting} publishes wait already (maxWaiting): slow down, or use publishMany()`,
      retryable: true,
    }
  }

  /** The slow path: the exchange is not known to exist yet, or the same id is under way. */
  async #enqueueLater(message: Encoded, options: SendOptions): Promise<Receipt> {
    const started = performance.now()
    const left = () => ({ ...options, deadlineMs: Math.max(0, options.deadlineMs - (performance.now() - started)) })
    const before = this.#sameId.get(message.messageId)
    const turn = (before ?? Promise.resolve()).then(async () => {
      const failure = await this.#checkExchange(message.exchange, left().deadlineMs, options.signal)
      return failure ? this.#reject(message, failure) : this.#enqueueWhenFree(message, left())
    })
    const chained = turn.catch(() => {})
    this.#sameId.set(message.messageId, chained)
    void chained.then(() => this.#sameId.get(message.messageId) === chained && this.#sameId.delete(message.messageId))
    return turn
  }

  async #enqueueWhenFree(message: Encoded, options: SendOptions): Promise<Receipt> {
    const until = performance.now() + options.deadlineMs
    while (this.#confirms.has(message.messageId)) {
      if (performance.now() >= until)
        return this.#reject(message, {
          outcome: 'not-sent',
          why: 'another publish of the same id had no answer until the deadline',
          retryable: true,
        })
      await within(
        new Promise<void>((resolve) => this.#idle.add(resolve)),
        until - performance.now(),
        () => new Closed(''),
      ).catch(() => {})
    }
    return this.#enqueue(message, { ...options, deadlineMs: Math.max(0, until - performance.now()) })
  }

  /** Waits until something was sent or settled, at most until the given time. */
  async #change(until: number): Promise<void> {
    const change = deferred()
    this.#idle.add(() => change.resolve())
    await within(change.promise, until - performance.now(), () => new Closed('')).catch(() => {})
  }

  /** A publish to a missing exchange closes the channel and voids the confirms of its neighbours: ask first. */
  async #checkExchange(exchange: string, deadlineMs: number, signal?: AbortSignal): Promise<Failure | undefined> {
    if (this.#exchanges.has(exchange) || this.#closing) return undefined
    try {
      await this.#connection.ready(deadlineMs, signal)
      await this.#connection.withChannel((channel) =>
        this.#connection.rpc(`publish to exchange "${exchange}"`, () => channel.checkExchange(exchange)),
      )
      this.#exchanges.add(exchange)
      return undefined
    } catch (cause) {
      const gone = cause instanceof ResourceMissing
      return { outcome: 'not-sent', why: (cause as Error)?.message ?? String(cause), retryable: !gone, cause }
    }
  }

  #reject(message: Encoded, end: Failure): Promise<Receipt> {
    const pending = { message, sends: 0, startedAt: performance.now() } as Pending
    return new Promise((resolve, reject) => this.#settled(pending, end, resolve, reject))
  }

  /** Writes whatever may be written now. */
  #pump(): void {
    const channel = this.#keeper.channel
    if (!channel || this.#connection.blockedReason !== undefined) return
    for (let pending = this.#confirms.next(); pending; pending = this.#confirms.next()) {
      if (!this.#send(channel, pending)) return
    }
    if (this.#idle.size > 0) this.#signalIdle()
  }

  /** @returns false when the channel turned out to be closed: its loss is about to be told, and the pump runs again then */
  #send(channel: ConfirmChannel, pending: Pending): boolean {
    const { exchange, routingKey, content, properties } = pending.message
    const options = { ...properties, persistent: true, mandatory: pending.mandatory } as Options.Publish
    try {
      channel.publish(exchange, routingKey, content, options, (error: unknown) =>
        this.#answered(pending, error as Error | null),
      )
      return true
    } catch (error) {
      const closed = (error as Error).name === 'IllegalOperationError'
      this.#confirms.notSent(pending)
      if (!closed) this.#confirms.giveUp(pending, `it cannot be encoded: ${(error as Error).message}`, false, error)
      return !closed
    }
  }

  #answered(pending: Pending, error: Error | null): void {
    const answer = error === null ? 'ack' : error.message === 'message nacked' ? 'nack' : 'lost'
    const again = this.#confirms.answered(pending, answer)
    if (again) this.#resend(pending, answer)
    if (answer !== 'lost') this.#pump()
  }

  #resend(pending: Pending, answer: string): void {
    const { messageId, transactionId, exchange, routingKey } = pending.message
    const outcome = answer === 'nack' ? 'nacked' : 'unknown'
    this.#connection.options.events.emit('publish.resent', {
      messageId,
      transactionId,
      exchange,
      routingKey,
      outcome,
      sends: pending.sends,
    })
    if (answer !== 'nack') return
    const ceiling = Math.min(NACK_PAUSE_CAP_MS, NACK_PAUSE_BASE_MS * 2 ** Math.min(pending.sends, 16))
    setTimeout(
      () => {
        this.#confirms.wait(pending)
        this.#pump()
      },
      ceiling * (0.5 + Math.random() / 2),
    )
  }

  /** What waits from before may go to an exchange that has been deleted since: it must not take the new channel down again. */
  async #setup(channel: ConfirmChannel): Promise<void> {
    this.#listen(channel)
    const waiting = [...this.#confirms.open].filter((p) => p.phase !== 'settled')
    for (const exchange of new Set(waiting.map((p) => p.message.exchange))) {
      const failure = await this.#checkExchange(exchange, this.#connection.options.rpcTimeoutMs)
      if (failure?.retryable) throw failure.cause
      if (failure)
        for (const p of waiting)
          if (p.message.exchange === exchange) this.#confirms.giveUp(p, failure.why, false, failure.cause)
    }
  }

  #listen(channel: ConfirmChannel): void {
    channel.on('return', ({ properties, fields }) => {
      const { replyCode, replyText } = fields as unknown as { replyCode: number; replyText: string }
      this.#confirms.markReturned(String(properties.messageId), { code: replyCode, text: replyText })
    })
  }

  #abortWith(pending: Pending, signal: AbortSignal): void {
    const abort = () => this.#confirms.giveUp(pending, 'its signal was aborted', true, signal.reason)
    signal.addEventListener('abort', abort, { once: true })
    const { settle } = pending
    pending.settle = (end) => {
      signal.removeEventListener('abort', abort)
      settle(end)
    }
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
    for (const pending of [...this.#confirms.open]) {
      if (pending.phase === 'settled') continue
      if (pending.deadlineAt <= now) this.#confirms.giveUp(pending, this.#whyLate(pending), true)
      else next = Math.min(next, pending.deadlineAt)
    }
    this.#sweepAt = Number.POSITIVE_INFINITY
    if (Number.isFinite(next)) this.#sweepBy(next)
  }

  #whyLate(pending: Pending): string {
    const waited = `the deadline passed after ${Math.round(performance.now() - pending.startedAt)} ms`
    const problems = [...this.#connection.problems, ...(this.#keeper.problem ? [this.#keeper.problem] : [])]
    if (problems.length > 0) return `${waited}: ${problems[0]}`
    if (pending.nacked) return `${waited}: the broker refused it (nack) each time; the queue may be full`
    return pending.sends > 0
      ? `${waited} without an answer from the broker`
      : `${waited} while it waited for room in the window of unanswered publishes`
  }

  #settled(
    pending: Pending,
    end: PublishEnd,
    resolve: (receipt: Receipt) => void,
    reject: (error: PublishFailed) => void,
  ): void {
    const { messageId, transactionId, exchange, routingKey } = pending.message
    const { events } = this.#connection.options
    if (end.outcome === 'confirmed') {
      if (events.wanted('publish.confirmed'))
        events.emit('publish.confirmed', {
          messageId,
          transactionId,
          exchange,
          routingKey,
          sends: pending.sends,
          durationMs: performance.now() - pending.startedAt,
        })
      resolve({ outcome: 'confirmed', messageId, transactionId, sends: pending.sends })
    } else {
      const error = failure(pending, end)
      events.emit('publish.failed', {
        messageId,
        transactionId,
        exchange,
        routingKey,
        outcome: end.outcome,
        sends: pending.sends,
        error,
      })
      reject(error)
    }
    if (this.#idle.size > 0) this.#signalIdle()
  }

  #signalIdle(): void {
    const listeners = [...this.#idle]
    this.#idle.clear()
    for (const listener of listeners) listener()
  }
}

const ADVICE = {
  returned:
    'No copy was stored. Is a queue bound to this exchange with this routing key? Events nobody needs may be published with mandatory: false.',
  nacked: 'Other queues bound to the same key may hold a copy. Repeat it with the same messageId.',
  unknown: 'It may be stored. Repeat it with the same messageId: consumers drop the copy.',
  'not-sent': 'Nothing was sent.',
}

function failure(pending: Pending, end: Failure): PublishFailed {
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
    `message ${messageId} to ${target} was not published (${end.outcome}): ${end.why}. ${ADVICE[end.outcome]}`,
    end.cause === undefined ? undefined : { cause: end.cause },
  )
}
