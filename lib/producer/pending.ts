/**
 * One publish from the call to its end: what is known of it, and the outcome that this allows.
 * Promises: an end says what is known and no more. `unknown` is what may be stored; `not-sent` is what was on no wire.
 * Does NOT change anything of a publish: its phase and its marks are kept by the books, in `confirms.ts`.
 */
import type { Link } from '../chain.ts'
import type { FailedOutcome } from '../errors.ts'
import type { Encoded } from './encode.ts'
import type { Placed } from './line.ts'

/** Where it stands; see `confirms.ts`. */
export type Phase = 'new' | 'behind' | 'held' | 'waiting' | 'sent' | 'backing-off' | 'settled'

/** What is known of a publish from the start. */
export interface Asked {
  readonly message: Encoded
  readonly mandatory: boolean
  readonly startedAt: number
  readonly deadlineAt: number
  /** A nack ends it, instead of being followed by another send. Default false. */
  readonly failsOnNack?: boolean | undefined
}

let published = 0

/** One publish from the call to its end. */
export abstract class Pending implements Asked, Placed {
  readonly message: Encoded
  readonly mandatory: boolean
  readonly startedAt: number
  readonly deadlineAt: number
  readonly failsOnNack: boolean
  readonly seq = ++published
  inLine = false
  before: this | undefined = undefined
  after: this | undefined = undefined
  /** Its place in the books. */
  link: Link<Pending> | undefined = undefined
  /** How often it was handed to a channel. */
  sends = 0
  phase: Phase = 'new'
  /** Sent and not answered; it may be settled already. */
  onWire = false
  /** A send ended without an answer: the message may be stored. */
  inDoubt = false
  nacked = false
  returned: ReturnReason | undefined = undefined
  /** It was on the wire when the broker closed the channel over some publish. */
  suspect = false
  /** The broker closed the channel over this very publish. */
  refused: Error | undefined = undefined

  constructor({ message, mandatory, startedAt, deadlineAt, failsOnNack = false }: Asked) {
    this.message = message
    this.mandatory = mandatory
    this.startedAt = startedAt
    this.deadlineAt = deadlineAt
    this.failsOnNack = failsOnNack
  }

  /** Called exactly once. */
  abstract settle(end: PublishEnd): void
}

/** What the broker says with a return, e.g. 312 NO_ROUTE. */
export interface ReturnReason {
  readonly code: number
  readonly text: string
}

/** How a publish ended. */
export type PublishEnd =
  | { readonly outcome: 'confirmed' }
  | { readonly outcome: FailedOutcome; readonly why: string; readonly retryable: boolean; readonly cause?: unknown }

/** How one ended that was not confirmed. */
export type Failure = Exclude<PublishEnd, { outcome: 'confirmed' }>

/** The end of an acknowledged send. A return says that no queue took this send; what became of earlier ones, it does not say. */
export function acked({ returned, inDoubt, nacked }: Pending): PublishEnd {
  if (!returned) return { outcome: 'confirmed' }
  const why = `no queue took it: ${returned.code} ${returned.text}`
  if (inDoubt) return { outcome: 'unknown', why: `${why}; an earlier send of it had no answer`, retryable: true }
  if (nacked) return { outcome: 'nacked', why: `${why}; an earlier send of it was refused (nack)`, retryable: true }
  return { outcome: 'returned', why, retryable: false }
}

/** The end of a send over which the broker closed the channel. */
export function refused({ inDoubt }: Pending, cause: Error): Failure {
  return {
    outcome: inDoubt ? 'unknown' : 'nacked',
    why: `the broker refused it: ${cause.message}`,
    retryable: false,
    cause,
  }
}

/** The end of a publish that is given up on: its deadline, an abort, `close()`, or a message that cannot be sent. */
export function givenUp(pending: Pending, { why, retryable, cause }: Omit<Failure, 'outcome'>): PublishEnd {
  if (pending.phase === 'sent' && pending.returned) return acked(pending)
  const doubtful = pending.phase === 'sent' || pending.inDoubt
  const outcome = doubtful ? 'unknown' : pending.nacked ? 'nacked' : 'not-sent'
  return { outcome, why, retryable, ...(cause === undefined ? {} : { cause }) }
}

/** What events and errors name it by. */
export function named({ message, sends }: Pending) {
  const { messageId, transactionId, exchange, routingKey } = message
  return { messageId, transactionId, exchange, routingKey, sends }
}
