/**
 * Every error Surehop raises: named by consequence, with a stable `code`, its data, and a message that says what to do.
 * Two of them are for handlers to throw: {@link RetryLater} and {@link DeadLetterNow}.
 */

/** Stable, documented codes. Match on `error.code`, never on the text. */
export type ErrorCode =
  | 'INVALID_OPTION'
  | 'CONNECTION_REFUSED'
  | 'NOT_CONNECTED'
  | 'BROKER_TIMEOUT'
  | 'TOPOLOGY_INVALID'
  | 'TOPOLOGY_MISMATCH'
  | 'RESOURCE_MISSING'
  | 'RESOURCE_BUSY'
  | 'PERMISSION_REFUSED'
  | 'PUBLISH_FAILED'
  | 'MESSAGE_INVALID'
  | 'MESSAGE_CONFLICT'
  | 'STORE_UNAVAILABLE'
  | 'DATABASE_UNAVAILABLE'
  | 'SCHEMA_MISMATCH'
  | 'COMMIT_REFUSED'
  | 'ALREADY_COMMITTED'
  | 'ALREADY_ROLLED_BACK'
  | 'TRANSACTION_UNKNOWN'
  | 'LEASE_LOST'
  | 'CHANNEL_LOST'
  | 'HANDLER_TIMEOUT'
  | 'CLOSED'
  | 'RETRY_LATER'
  | 'DEAD_LETTER_NOW'

/** The base of all errors of this library. `code` is stable, `message` is for people. */
export abstract class SurehopError extends Error {
  /** Stable code, listed in the README. */
  abstract readonly code: ErrorCode

  constructor(message: string, options?: ErrorOptions) {
    super(message, options)
    this.name = new.target.name
  }
}

/** An option is misspelt, missing or out of range. Thrown before anything is opened or sent. */
export class InvalidOption extends SurehopError {
  readonly code = 'INVALID_OPTION'
}

/** Why a broker or a database will keep refusing us: no number of repeats will help. */
export type RefusalReason = 'credentials' | 'vhost' | 'database' | 'tls' | 'protocol' | 'address'

/** The broker (or Postgres) answered and refused: wrong password, unknown vhost or database, TLS mistake. Not retried for ever. */
export class ConnectionRefused extends SurehopError {
  readonly code = 'CONNECTION_REFUSED'
  readonly reason: RefusalReason

  constructor(reason: RefusalReason, message: string, options?: ErrorOptions) {
    super(message, options)
    this.reason = reason
  }
}

/** No broker could be reached in time; nothing was sent by this call. */
export class NotConnected extends SurehopError {
  readonly code = 'NOT_CONNECTED'
}

/** The broker did not answer a channel operation in time; its channel was given up. */
export class BrokerTimeout extends SurehopError {
  readonly code = 'BROKER_TIMEOUT'
}

/** The declared topology contradicts itself, for instance a cycle of dead-lettering. Nothing was declared. */
export class TopologyInvalid extends SurehopError {
  readonly code = 'TOPOLOGY_INVALID'
}

/** A queue or exchange exists with other arguments than those asked for. */
export class TopologyMismatch extends SurehopError {
  readonly code = 'TOPOLOGY_MISMATCH'
  readonly resource: string
  readonly argument: string
  readonly wanted: string
  readonly actual: string

  constructor(
    found: { resource: string; argument: string; wanted: string; actual: string },
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options)
    this.resource = found.resource
    this.argument = found.argument
    this.wanted = found.wanted
    this.actual = found.actual
  }
}

/** A queue or exchange that was expected does not exist. */
export class ResourceMissing extends SurehopError {
  readonly code = 'RESOURCE_MISSING'
  readonly resource: string

  constructor(resource: string, message: string, options?: ErrorOptions) {
    super(message, options)
    this.resource = resource
  }
}

/** A queue is in exclusive use by someone else, for instance a second inspector of the same dead letters. */
export class ResourceBusy extends SurehopError {
  readonly code = 'RESOURCE_BUSY'
}

/** The permissions of the broker (or of Postgres) do not allow this; the message names the resource and the permission. */
export class PermissionRefused extends SurehopError {
  readonly code = 'PERMISSION_REFUSED'
}

/**
 * What is known of a publish that did not succeed.
 * `returned`: no queue took it. `nacked`: the broker refused it (some queues may hold it).
 * `unknown`: it was sent and no answer came; it may well be stored. `not-sent`: it never left this process.
 */
export type FailedOutcome = 'returned' | 'nacked' | 'unknown' | 'not-sent'

/** A publish did not end confirmed and routed. Repeating it with the same `messageId` is always safe. */
export class PublishFailed extends SurehopError {
  readonly code = 'PUBLISH_FAILED'
  /** What is known of the message. */
  readonly outcome: FailedOutcome
  /** The id to repeat it with. */
  readonly messageId: string
  readonly transactionId: string
  readonly exchange: string
  readonly routingKey: string
  /** How often it was handed to the broker. */
  readonly sends: number
  /** True where a repeat could succeed without a change on your side (a deadline, a lost connection, a full queue). */
  readonly retryable: boolean

  constructor(
    of: {
      outcome: FailedOutcome
      messageId: string
      transactionId: string
      exchange: string
      routingKey: string
      sends: number
      retryable: boolean
    },
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options)
    this.outcome = of.outcome
    this.messageId = of.messageId
    this.transactionId = of.transactionId
    this.exchange = of.exchange
    this.routingKey = of.routingKey
    this.sends = of.sends
    this.retryable = of.retryable
  }
}

/** A message cannot be read: no identity, a body that does not parse or validate, a header out of range. Dead-lettered at once. */
export class MessageInvalid extends SurehopError {
  readonly code = 'MESSAGE_INVALID'
  /** Which part is wrong, e.g. `body.lines[2].quantity` or `headers.surehop-attempt`. */
  readonly path: string

  constructor(path: string, message: string, options?: ErrorOptions) {
    super(message, options)
    this.path = path
  }
}

/** The same message id came again with another body. Dead-lettered: one of the two is a mistake of its publisher. */
export class MessageConflict extends SurehopError {
  readonly code = 'MESSAGE_CONFLICT'
}

/** The idempotency store cannot be asked. Consumers stop running handlers until it can (fail closed). */
export class StoreUnavailable extends SurehopError {
  readonly code = 'STORE_UNAVAILABLE'
}

/** Postgres cannot be asked just now: it is down, restarts, refuses connections, or did not answer in time. Nothing is lost; a relay goes on by itself. */
export class DatabaseUnavailable extends SurehopError {
  readonly code = 'DATABASE_UNAVAILABLE'
}

/** The tables in the database are not those this version works with: no migration was applied, or a newer one than it knows. */
export class SchemaMismatch extends SurehopError {
  readonly code = 'SCHEMA_MISMATCH'
  /** The version of the schema that was found; 0 where there is none, undefined where a statement failed before anybody asked. */
  readonly found: number | undefined
  /** The version this library works with. */
  readonly expected: number

  constructor(
    versions: { readonly found: number | undefined; readonly expected: number },
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options)
    this.found = versions.found
    this.expected = versions.expected
  }
}

/** Postgres rolled back a transaction that was to be committed: one of its statements had failed, and the error was caught and dropped. Nothing was stored. */
export class CommitRefused extends SurehopError {
  readonly code = 'COMMIT_REFUSED'

  constructor() {
    super(
      'Postgres rolled the transaction back instead of committing it, because a statement in it had failed: let errors of statements through, or use a savepoint around those that may fail',
    )
  }
}

/** A rollback came after the transaction was committed: its messages are sent, or will be. The first decision is final. */
export class AlreadyCommitted extends SurehopError {
  readonly code = 'ALREADY_COMMITTED'
}

/** A commit came after the transaction was rolled back (by this process, a check or an operator): its messages are not sent. The first decision is final. */
export class AlreadyRolledBack extends SurehopError {
  readonly code = 'ALREADY_ROLLED_BACK'
}

/** No half message and no decision of this transaction id is known. */
export class TransactionUnknown extends SurehopError {
  readonly code = 'TRANSACTION_UNKNOWN'
}

/** Reason of a handler's AbortSignal: the right to run this message has ended; somebody else may run it now. */
export class LeaseLost extends SurehopError {
  readonly code = 'LEASE_LOST'
}

/** Reason of a handler's AbortSignal: the channel is gone, the broker will deliver the message again. */
export class ChannelLost extends SurehopError {
  readonly code = 'CHANNEL_LOST'
}

/** Reason of a handler's AbortSignal: the handler ran longer than `handlerTimeoutMs`. Counts as a failed attempt. */
export class HandlerTimeout extends SurehopError {
  readonly code = 'HANDLER_TIMEOUT'
}

/** The object was closed; open a new one. */
export class Closed extends SurehopError {
  readonly code = 'CLOSED'
}

/**
 * Throw from a handler: "not now, again in `delayMs`". Counts as a failed attempt. More than 30 days (with `orderBy`, 25 minutes) is cut
 * to that; later than `retry.maxAgeMs` after the first failure, and the message is dead-lettered.
 */
export class RetryLater extends SurehopError {
  readonly code = 'RETRY_LATER'
  /** Milliseconds until the next attempt; more than 30 days are cut to 30 days, and with `orderBy` more than 25 minutes to those. */
  readonly delayMs: number

  constructor(delayMs: number, message = `retry in ${delayMs} ms`, options?: ErrorOptions) {
    super(message, options)
    if (!(Number.isFinite(delayMs) && delayMs >= 0)) {
      throw new InvalidOption(`expected delayMs of RetryLater to be a number >= 0, got ${delayMs}`)
    }
    this.delayMs = delayMs
  }
}

/** Throw from a handler: "never, this cannot succeed". The message goes to the dead letters with `reason`. */
export class DeadLetterNow extends SurehopError {
  readonly code = 'DEAD_LETTER_NOW'

  constructor(reason: string, options?: ErrorOptions) {
    super(reason, options)
  }
}

/** The text of anything that can be thrown, `undefined` and what trips its readers included, on one line and at most `max` characters. */
export function textOf(thrown: unknown, max = 500): string {
  const text = describe(thrown)
  return text.length > max ? `${text.slice(0, max - 1)}…` : text
}

/** The class name of anything that can be thrown, for groups and filters: `TimeoutError`, `undefined`, `string`. */
export function typeOfThrown(thrown: unknown): string {
  if (thrown instanceof Error) return thrown.name || thrown.constructor.name
  return thrown === null ? 'null' : typeof thrown
}

function describe(thrown: unknown): string {
  if (typeof thrown === 'string') return thrown
  try {
    if (thrown instanceof Error) return `${thrown.message || thrown.name}`
    return `${typeof thrown} was thrown: ${JSON.stringify(thrown) ?? String(thrown)}`
  } catch {
    return `${typeof thrown} was thrown`
  }
}
