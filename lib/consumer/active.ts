/**
 * One attempt while its handler runs: the context the handler sees, its signal, and the publishes made in its name.
 * Promises: a publish in the handler's name is confirmed before the attempt counts as done; after the signal fired nothing is published;
 * a handler that ignores its signal is left behind after a second (what it still does is fenced by its token).
 */
import { HandlerTimeout } from '../errors.ts'
import { derivedMessageId, HEADER, type OutgoingMessage } from '../message.ts'
import type { Producer } from '../producer/producer.ts'
import type { Receipt } from '../producer/publisher.ts'
import type { Context, ContextPublishOptions, Handler, Run } from './handler.ts'

/** How an attempt ended. `interrupted`: not the handler's fault, it does not count. */
export type AttemptEnd =
  | { readonly ended: 'done' }
  | { readonly ended: 'failed'; readonly error: unknown }
  | { readonly ended: 'interrupted'; readonly error: Error }

/** How long a handler may take to end after its signal fired, ms. */
const ABANDON_AFTER_MS = 1_000

export class Active implements Context {
  readonly #run: Run
  readonly #producer: Producer
  readonly #publishes: Promise<unknown>[] = []
  #controller: AbortController | undefined
  #abortReason: Error | undefined
  #abandon: ((end: AttemptEnd) => void) | undefined
  #position = 0

  constructor(run: Run, producer: Producer) {
    this.#run = run
    this.#producer = producer
  }

  get signal(): AbortSignal {
    if (!this.#controller) {
      this.#controller = new AbortController()
      if (this.#abortReason) this.#controller.abort(this.#abortReason)
    }
    return this.#controller.signal
  }

  get fencingToken(): number | undefined {
    return this.#run.fencingToken
  }

  get attempt(): number {
    return this.#run.attempt
  }

  get generation(): number {
    return this.#run.generation
  }

  get transactionId(): string {
    return this.#run.message.transactionId
  }

  get queue(): string {
    return this.#run.message.queue
  }

  /** Bound, since handlers take it out of the context: `async (message, { publish }) => ...`. */
  get publish(): Context['publish'] {
    return (exchange, message, options = {}) =>
      this.#track((derived) => this.#producer.publish(exchange, derived, optionsOf(options)), message, options)
  }

  get send(): Context['send'] {
    return (queue, message, options = {}) =>
      this.#track((derived) => this.#producer.send(queue, derived, optionsOf(options)), message, options)
  }

  /** Fires the signal; the attempt ends with the handler, or a second later without it. */
  abort(reason: Error): void {
    if (this.#abortReason) return
    this.#abortReason = reason
    this.#controller?.abort(reason)
    setTimeout(() => this.#abandon?.(this.#interruption(reason)), ABANDON_AFTER_MS).unref()
  }

  /** Runs the handler, at most `timeoutMs`. Never rejects. */
  run(handler: Handler, timeoutMs: number): Promise<AttemptEnd> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.abort(timedOut(timeoutMs)), timeoutMs)
      const end = (how: AttemptEnd) => {
        clearTimeout(timer)
        this.#abandon = undefined
        resolve(how)
      }
      this.#abandon = end
      this.#handle(handler).then(
        () => end({ ended: 'done' }),
        (error: unknown) => end(this.#abortReason ? this.#interruption(this.#abortReason) : { ended: 'failed', error }),
      )
    })
  }

  async #handle(handler: Handler): Promise<void> {
    await handler(this.#run.message, this)
    if (this.#publishes.length > 0) await Promise.all(this.#publishes)
  }

  #interruption(reason: Error): AttemptEnd {
    return reason instanceof HandlerTimeout
      ? { ended: 'failed', error: reason }
      : { ended: 'interrupted', error: reason }
  }

  #track(
    publish: (derived: OutgoingMessage) => Promise<Receipt>,
    message: OutgoingMessage,
    options: ContextPublishOptions,
  ): Promise<Receipt> {
    if (this.#abortReason) return Promise.reject(this.#abortReason)
    const sent = publish(this.#derived(message, options.name ?? String(this.#position++)))
    sent.catch(() => {})
    this.#publishes.push(sent)
    return sent
  }

  #derived(message: OutgoingMessage, name: string): OutgoingMessage {
    const { messageId, queue, transactionId, headers } = this.#run.message
    const trace: Record<string, unknown> = {}
    for (const header of [HEADER.traceparent, HEADER.tracestate])
      if (headers[header] !== undefined) trace[header] = headers[header]
    return {
      transactionId,
      messageId: this.#run.guarded ? derivedMessageId(messageId, queue, name) : undefined,
      ...message,
      headers: { ...trace, ...message.headers },
    } as OutgoingMessage
  }
}

function optionsOf({ name: _, ...options }: ContextPublishOptions): object {
  return options
}

function timedOut(ms: number): HandlerTimeout {
  return new HandlerTimeout(`the handler did not end within handlerTimeoutMs (${ms} ms)`)
}
