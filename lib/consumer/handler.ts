/**
 * The handler, its context, middleware, and what becomes of a delivery.
 *
 * Handler outcome -> broker verb:
 *
 *     resolves                        record completed, then ack
 *     duplicate of a completed run    ack, handler not run
 *     throws, attempts left           record failed, publish to the delay (confirmed, attempt + 1), then ack
 *     throws RetryLater(ms)           the same, in ms
 *     throws, none left / DeadLetterNow / invalid / conflict / 3 starts without an end
 *                                     publish to `<queue>.dead` with its story (confirmed), record dead, then ack
 *     someone else runs it now        publish to the delay unchanged (confirmed), then ack
 *     channel lost                    nothing: the broker delivers it again, behind the run that still goes on here; the record decides then
 *     shutdown, not finished in time  record returned, nack with requeue
 *     cannot be re-published          nack without requeue: the broker's own dead-lettering keeps it as it is; so too where
 *                                     our own code fails to prepare the copy (TypeError, RangeError) three times in a row
 */
import type { Message, OutgoingMessage, RawDelivery } from '../message.ts'
import type { PublishOptions } from '../producer/producer.ts'
import type { Receipt } from '../producer/publisher.ts'

/** Options of a publish out of a handler. */
export interface ContextPublishOptions extends PublishOptions {
  /**
   * Names this publish within its handler: the message's id is derived from the incoming id and this name. Default: the
   * position of the publish (0, 1, 2...), which must then be the same when the run is repeated.
   */
  readonly name?: string
}

/** What a handler can ask and do besides reading its message. */
export interface Context {
  /**
   * Fires when the lease or the channel is lost, the handler's time is up, or the consumer must close. The reason says which. A
   * handler that then throws the reason (or an `AbortError`) is repeated without counting an attempt, unless its time was up.
   */
  readonly signal: AbortSignal
  /** Grows with every run of this message; give it to storage that can refuse an older one. Undefined without an idempotency store. */
  readonly fencingToken: number | undefined
  /** Number of this attempt, from 1; starts anew after a replay. */
  readonly attempt: number
  /** How often an operator has sent this message again: 0 as first published. */
  readonly generation: number
  readonly transactionId: string
  readonly queue: string
  /**
   * Publishes in the name of this message: the transaction id is carried on, the id is derived, so that a repeated run
   * publishes the same ids. Confirmed before this message is completed, awaited by the handler or not: a publish that fails fails
   * the attempt, unless it is repeated under its name.
   * @throws PublishFailed; InvalidOption when two publishes have one name; the signal's reason once it has fired; Closed once the handler has ended
   */
  publish(exchange: string, message: OutgoingMessage, options?: ContextPublishOptions): Promise<Receipt>
  /** The same, straight to a queue. */
  send(queue: string, message: OutgoingMessage, options?: ContextPublishOptions): Promise<Receipt>
}

/** Handles one message. Return, or resolve, when the effect is done (what with does not matter); throw or reject to fail this attempt. */
export type Handler<Body = unknown> = (message: Message<Body>, context: Context) => unknown

/** Wraps the handler: runs once per attempt, never for dropped duplicates. */
export type Middleware = (next: Handler) => Handler

/** The first middleware is the outermost. */
export function compose(middleware: readonly Middleware[], handler: Handler): Handler {
  return middleware.reduceRight((next, wrap) => wrap(next), handler)
}

/** One message on its way through a consumer. */
export interface Run {
  readonly message: Message
  /** SHA-256 of the raw body, where a store compares bodies. */
  readonly digest: Buffer | undefined
  /** False where the message has no identity and the consumer runs such messages unguarded. */
  readonly guarded: boolean
  readonly generation: number
  /** Names the edit of an operator that gave it its body: what is published in its name is not what the body before caused. */
  readonly editedFrom?: string | undefined
  /** When this message's first attempt failed, epoch ms. */
  firstFailedAt: number | undefined
  attempt: number
  fencingToken: number | undefined
}

/** What a guard answers when asked for the right to run. */
export type Admission =
  | { readonly admit: 'run' }
  /** Drop this copy: ack. */
  | { readonly admit: 'drop'; readonly why: 'completed' | 'superseded' }
  /** Not now; ask again in about so many ms. */
  | { readonly admit: 'later'; readonly delayMs: number; readonly why: string }
  /** This copy's attempt is known to have failed: schedule `attempt`. */
  | { readonly admit: 'failed-before'; readonly attempt: number }
  /** Never: dead-letter it. */
  | { readonly admit: 'refuse'; readonly error: Error; readonly reason: string }

/** How a run ended, for the record. */
export type RunEnding =
  | { readonly state: 'completed' }
  | { readonly state: 'failed'; readonly nextAttempt: number }
  | { readonly state: 'returned' }
  | { readonly state: 'dead'; readonly generation: number }

/** Decides who runs a message; the idempotency room has the real one. */
export interface Guard {
  /** Waits while the store is unreachable; answers undefined when the guard was halted first. */
  admit(run: Run): Promise<Admission | undefined>
  /** Admits no more, from this moment; whoever waits for admission is told so. Endings are still recorded. */
  halt(): void
  /**
   * Records the ending, also when the delivery was lost meanwhile: its next copy must know. `lost`: somebody else owns the
   * record now. Waits while the store is unreachable; undefined when the guard was closed first.
   */
  end(run: Run, ending: RunEnding): Promise<'recorded' | 'lost' | undefined>
  /** Calls back when the leases of all present runs are lost. */
  onLeasesLost(listener: (reason: Error) => void): void
  readonly problem: string | undefined
  start(): Promise<void>
  close(): Promise<void>
}

/** What to do after a failed attempt. */
export type Verdict =
  | { readonly verdict: 'retry'; readonly delayMs: number }
  | { readonly verdict: 'dead'; readonly reason: string }

/** Decides after a failure; the retry room has the real one. */
export interface FailurePolicy {
  decide(error: unknown, attempt: number, firstFailedAt: number | undefined): Verdict
  /** For an attempt that failed in another process. */
  again(attempt: number): Verdict
}

/** Moves a message on before it is acked; each resolves only when confirmed and routed. */
export interface Outlet {
  /** To the delay, as attempt `attempt`. `failure` is what happened, if anything. */
  retry(delivery: RawDelivery, run: Run, attempt: number, delayMs: number, failure: unknown): Promise<void>
  /** To the dead letters, with its story. `run` is undefined when the message could not even be read. */
  bury(delivery: RawDelivery, run: Run | undefined, reason: string, error: unknown): Promise<void>
}
