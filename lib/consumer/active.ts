/**
 * One attempt while its handler runs: the context the handler sees, its signal, and the publishes made in its name.
 *
 *     running ──handler ended──▶ its publishes confirmed ──▶ done | failed
 *        └──signal fired──▶ handler ended ──▶ done | interrupted         (lease or channel lost: waited for, however long it takes)
 *                  └──time up | closing, a second later──▶ left behind   (what it still does is fenced by its token)
 *
 * Promises: a publish in the handler's name is confirmed before the attempt counts as done; after the signal fired, or the handler
 * ended, nothing is published; a lost channel or lease never makes this process run a message beside a handler of it that still runs.
 * Does NOT promise that a handler ends: one that ignores its signal after `handlerTimeoutMs` goes on beside the next attempt.
 */
import { setMaxListeners } from 'node:events'
import type { Link } from '../chain.ts'
import { Closed, HandlerTimeout, InvalidOption } from '../errors.ts'
import { derivedMessageId, HEADER, type OutgoingMessage } from '../message.ts'
import type { Producer, PublishOptions } from '../producer/producer.ts'
import { tellable } from '../reason.ts'
import type { DeadlineWatch, Watched } from './deadline-watch.ts'
import { withOwnBytes } from './decode.ts'
import type { Context, ContextPublishOptions, Handler, Run } from './handler.ts'

/** How an attempt ended. `interrupted`: not the handler's fault, it does not count. */
export type AttemptEnd =
  | { readonly ended: 'done' }
  | { readonly ended: 'failed'; readonly error: unknown }
  | { readonly ended: 'interrupted'; readonly error: Error }

const DONE: AttemptEnd = { ended: 'done' }

type Send<T> = (message: OutgoingMessage, options: PublishOptions) => Promise<T>

/** Where a context keeps its attempt; goes along when a middleware spreads the context. */
const ACTIVE = Symbol('surehop.active')

interface Within {
  readonly [ACTIVE]: Active
}

/** One for all contexts: a getter written into each would give each a hidden class of its own. Measured: 4 µs less CPU per message. */
const SIGNAL = {
  get(this: Within): AbortSignal {
    return this[ACTIVE].signal
  },
  enumerable: true,
  configurable: true,
}

/** The publishes of one attempt, for those who carry them elsewhere than to the broker (into an outbox). */
export interface AttemptPublishes {
  /** As the context's `publish`, but by `send`: the same ids, names and positions, and the attempt is not done before it is. */
  by<T>(
    send: (message: OutgoingMessage) => Promise<T>,
    message: OutgoingMessage,
    options?: { name?: string },
  ): Promise<T>
  /** Resolves when all so far are done. @throws the failure of one that was not repeated under its name */
  settled(): Promise<void>
}

/** Undefined where a middleware made a context of its own. */
export function publishesOf(context: Context): AttemptPublishes | undefined {
  return (context as Partial<Within>)[ACTIVE]
}

/** How long a handler may take to end after its time was up, or the consumer must close, ms. */
export const LEFT_BEHIND_AFTER_MS = 1_000

/** One attempt while its handler runs. Methods and fields in place of closures: one is made for each message. */
export class Active implements AttemptPublishes, Watched {
  beganAt = 0
  /** How long the handler ran, ms. */
  ranMs = 0
  readonly #run: Run
  readonly #producer: Producer
  /** By name; a publish that failed may be repeated under its name. */
  #publishes: Map<string, Promise<unknown>> | undefined
  #failedNames: Set<string> | undefined
  #controller: AbortController | undefined
  #abortReason: Error | undefined
  #watch: DeadlineWatch<Active> | undefined
  #watched: Link<Active> | undefined
  #resolve: ((how: AttemptEnd) => void) | undefined
  #leaving: NodeJS.Timeout | undefined
  #ended = false
  #position = 0

  constructor(run: Run, producer: Producer) {
    this.#run = run
    this.#producer = producer
  }

  /** Made when first looked at: most handlers never do. */
  get signal(): AbortSignal {
    if (!this.#controller) {
      this.#controller = new AbortController()
      setMaxListeners(0, this.#controller.signal)
      const reason = this.#over
      if (reason) this.#controller.abort(reason)
    }
    return this.#controller.signal
  }

  /** Why nothing may be published any more, if so. */
  get #over(): Error | undefined {
    if (this.#ended)
      this.#abortReason ??= new Closed('the attempt has ended: await what a handler publishes before it returns')
    return this.#abortReason
  }

  /** Fires the signal; a later reason changes nothing, except that it may end the patience with the handler. */
  abort(reason: Error): void {
    if (this.#ended) return
    if (!this.#abortReason) {
      this.#abortReason = reason
      this.#controller?.abort(reason)
    }
    if (reason instanceof HandlerTimeout || reason instanceof Closed)
      this.#leaving ??= setTimeout(() => this.#end(interruption(reason)), LEFT_BEHIND_AFTER_MS)
  }

  /** Runs the handler, at most as long as `watch` allows. Never rejects. */
  run(handler: Handler, watch: DeadlineWatch<Active>): Promise<AttemptEnd> {
    this.#watch = watch
    this.#watched = watch.begin(this)
    const end = new Promise<AttemptEnd>((resolve) => {
      this.#resolve = resolve
    })
    this.#handle(handler).then(
      () => this.#handled(),
      (error: unknown) => this.#failed(error),
    )
    return end
  }

  late(): void {
    this.abort(timedOut(this.#watch!.ms))
  }

  #handled(): void {
    if (!this.#publishes) this.#end(DONE)
    else
      this.settled().then(
        () => this.#end(DONE),
        (error: unknown) => this.#failed(error),
      )
  }

  #failed(error: unknown): void {
    this.#end(this.#failure(error))
  }

  /** Whatever comes after the first end changes nothing. */
  #end(how: AttemptEnd): void {
    if (this.#ended) return
    this.#ended = true
    this.ranMs = performance.now() - this.beganAt
    this.#watch!.end(this.#watched!)
    if (this.#leaving) clearTimeout(this.#leaving)
    this.#resolve!(how)
  }

  #handle(handler: Handler): Promise<unknown> {
    try {
      return Promise.resolve(handler(withOwnBytes(this.#run.message), this.#context()))
    } catch (error) {
      return Promise.reject(error)
    }
  }

  async settled(): Promise<void> {
    for (let awaited = 0; this.#publishes && awaited !== this.#publishes.size; ) {
      awaited = this.#publishes.size
      await Promise.all(this.#publishes.values())
    }
  }

  /** A failure of the handler's own counts, also when its signal had fired: else one that always outlasts its lease would never end. */
  #failure(error: unknown): AttemptEnd {
    const reason = this.#abortReason
    return reason && comesOf(reason, error) ? interruption(reason) : { ended: 'failed', error: tellable(error) }
  }

  by<T>(
    send: (message: OutgoingMessage) => Promise<T>,
    message: OutgoingMessage,
    options?: ContextPublishOptions,
  ): Promise<T> {
    return this.#publish(send, message, options)
  }

  /** A plain object, so that a middleware may spread it and a handler may take it apart. */
  #context(): Context {
    const { message, fencingToken, attempt, generation } = this.#run
    const { transactionId, queue } = message
    const context: Omit<Context, 'signal'> & Within = {
      fencingToken,
      attempt,
      generation,
      transactionId,
      queue,
      publish: (exchange, outgoing, options) =>
        this.#publish((derived, rest) => this.#producer.publish(exchange, derived, rest), outgoing, options),
      send: (target, outgoing, options) =>
        this.#publish((derived, rest) => this.#producer.send(target, derived, rest), outgoing, options),
      [ACTIVE]: this,
    }
    return Object.defineProperty(context, 'signal', SIGNAL) as Within & Context
  }

  /** Remembered also when it fails at once: a handler that forgets to await it must not count as done. */
  #publish<T>(send: Send<T>, message: OutgoingMessage, options: ContextPublishOptions = {}): Promise<T> {
    if (this.#ended) return Promise.reject(this.#over)
    const { name: given, ...rest } = options
    const name = given === undefined ? String(this.#position++) : `name:${given}`
    this.#publishes ??= new Map()
    const twice = this.#publishes.has(name) && !this.#failedNames?.delete(name)
    const sent = twice ? Promise.reject(namedTwice(given)) : this.#send(send, this.#derived(message, name), rest)
    this.#publishes.set(twice ? `twice:${this.#position++}` : name, sent)
    sent.catch(() => {
      this.#failedNames ??= new Set()
      this.#failedNames.add(name)
    })
    return sent
  }

  async #send<T>(send: Send<T>, message: OutgoingMessage, options: PublishOptions): Promise<T> {
    const reason = this.#over
    if (reason) throw reason
    return send(message, options)
  }

  #derived(message: OutgoingMessage, name: string): OutgoingMessage {
    const { messageId, queue, transactionId, headers } = this.#run.message
    const trace: Record<string, unknown> = {}
    for (const header of [HEADER.traceparent, HEADER.tracestate])
      if (headers[header] !== undefined) trace[header] = headers[header]
    const { guarded, editedFrom } = this.#run
    const place = editedFrom === undefined ? name : `${editedFrom}\n${name}`
    return {
      ...message,
      transactionId: message?.transactionId ?? transactionId,
      messageId: message?.messageId ?? (guarded ? derivedMessageId(messageId, queue, place) : undefined),
      headers: { ...trace, ...message?.headers },
    } as OutgoingMessage
  }
}

/** Time that is up is the handler's failure; anything else is not. */
function interruption(reason: Error): AttemptEnd {
  return reason instanceof HandlerTimeout ? { ended: 'failed', error: reason } : { ended: 'interrupted', error: reason }
}

/** What signal-aware functions throw: the reason itself, or an AbortError. */
function comesOf(reason: Error, thrown: unknown): boolean {
  try {
    const { name, cause } = (thrown ?? {}) as { name?: unknown; cause?: unknown }
    return thrown === reason || cause === reason || name === 'AbortError'
  } catch {
    return false
  }
}

function timedOut(ms: number): HandlerTimeout {
  return new HandlerTimeout(`the handler did not end within handlerTimeoutMs (${ms} ms)`)
}

function namedTwice(name: string | undefined): InvalidOption {
  return new InvalidOption(
    `two publishes of one handler are named "${name}": both would get the same message id, and consumers would drop the second. Give each its own name`,
  )
}
