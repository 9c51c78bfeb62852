/**
 * Exactly-once effect: the handler's work, the record of its message, and what it publishes, in one transaction of one database.
 *
 *     BEGIN ─▶ handler(client) ─▶ its publishes are rows of the outbox ─▶ record completed, if still ours ─▶ COMMIT
 *                 └─throws, signal fires, lease lost─▶ ROLLBACK, and the error goes to the consumer
 *
 * Promises: a message that completed has had its effect, and its publishes, exactly once, whatever dies when; a run that was taken
 * over (frozen, cut off, slow) commits nothing; a run whose COMMIT was not answered is not repeated if it was committed.
 * Does NOT promise: anything about effects outside this database (mails, HTTP calls, other databases), nor about publishes other
 * than the context's.
 */
import { type AttemptPublishes, publishesOf } from '../consumer/active.ts'
import type { Context, Handler } from '../consumer/handler.ts'
import { unlessAborted, within } from '../deadline.ts'
import { Closed, CommitRefused, InvalidOption } from '../errors.ts'
import type { Message, OutgoingMessage } from '../message.ts'
import { callable, checkOptions, having, needed, number, oneOf, text } from '../options.ts'
import type { LentClient, SqlClient, SqlFunction, SqlPool } from '../sql/client.ts'
import { begun, committed, complete, type RunLease } from './postgres-completion.ts'
import { commitError, HandlerTransactions, type Isolation, isDoubt, notKnown } from './postgres-handler-transaction.ts'

/** A publish that is a row of the outbox: sent if the handler's transaction commits, and only then. */
export interface WrittenMessage {
  readonly messageId: string
  readonly transactionId: string
}

/** Where transactional handlers write what they publish: an `Outbox`. */
export interface TransactionalOutbox {
  /** Writes a message in the name of another, in the transaction of `client`. */
  addDerived(
    message: OutgoingMessage &
      ({ readonly exchange: string } | { readonly queue: string; readonly routingKey?: undefined }),
    client: LentClient,
  ): Promise<WrittenMessage>
  /** Is told of commits. */
  wake?(): void
}

/** Options of a publish out of a transactional handler. */
export interface TransactionalPublishOptions {
  /** As in `ContextPublishOptions`. */
  readonly name?: string
}

/** What a transactional handler can ask and do. */
export interface TransactionalContext<Client = SqlClient> extends Omit<Context, 'publish' | 'send'> {
  /**
   * In the transaction that also completes this message: what is done on it is done exactly once. Leave COMMIT and ROLLBACK to us;
   * SAVEPOINT is yours. Await what you ask of it.
   */
  readonly client: Client
  /**
   * Writes a message to the outbox, in the transaction; its id is derived as in `Context`. Resolves when the row is written.
   * @throws InvalidOption without the option `outbox`, or when two publishes have one name; MessageInvalid; the signal's reason
   */
  publish(exchange: string, message: OutgoingMessage, options?: TransactionalPublishOptions): Promise<WrittenMessage>
  /** The same, straight to a queue. */
  send(queue: string, message: OutgoingMessage, options?: TransactionalPublishOptions): Promise<WrittenMessage>
}

/** Handles one message in a transaction. Return when all is asked for; throw to fail this attempt and roll back. */
export type TransactionalHandler<Body = unknown, Client = SqlClient> = (
  message: Message<Body>,
  context: TransactionalContext<Client>,
) => unknown

interface CommonOptions {
  /** For `publish` and `send` of the context. Default: they throw. */
  readonly outbox?: TransactionalOutbox | undefined
}

/** Options of `inbox.transactional()` on a client of the pool. */
export interface TransactionalHandlerOptions extends CommonOptions {
  /** Default: `read committed`. */
  readonly isolation?: Isolation | undefined
  /**
   * A handler may leave its transaction idle for so long (a call elsewhere, a frozen process) before Postgres ends it, so that its
   * locks do not stand in everybody's way, ms. Default 60,000.
   */
  readonly idleTimeoutMs?: number | undefined
}

/** Options of `inbox.transactional()` with a query tool of your own. */
export interface TransactionalHandlerToolOptions<Tx> extends CommonOptions {
  /** How to run a statement with `$1`-style parameters in it. Give it first, and say the type of `tx`: the handler's `client` has it from here. */
  readonly query: (tx: Tx) => SqlFunction
  /** Runs `work` once in a transaction of your tool, commits when it resolves and rolls back when it rejects: `(work) => db.transaction(work)`. */
  readonly transaction: (work: (tx: Tx) => Promise<void>) => PromiseLike<unknown>
}

/** Which inbox. */
export interface TransactionalPlace {
  readonly pool: SqlPool
  readonly schema: string
}

const DEFAULTS = { isolation: 'read committed', idleTimeoutMs: 60_000 } as const
/** How long the truth about a COMMIT without an answer is looked for, ms. */
const LOOK_MS = 5_000
const outboxRule = having('an outbox, with addDerived(message, client)', 'addDerived')
const PLAIN_RULES = {
  outbox: outboxRule,
  isolation: oneOf('read committed', 'repeatable read', 'serializable'),
  idleTimeoutMs: number(1, 2_147_483_647),
}
const TOOL_RULES = { outbox: outboxRule, transaction: needed(callable), query: needed(callable) }
const PUBLISH_RULES = { name: text() }

/** Runs `work` in a transaction, on whatever client, which it is also lent for statements of ours. */
type Runner<Client> = (
  run: { readonly signal: AbortSignal; readonly lease: RunLease },
  work: (client: Client, lent: LentClient) => Promise<void>,
) => Promise<void>

/** @throws InvalidOption */
export function transactionalHandler<Body, Client>(
  place: TransactionalPlace,
  options: TransactionalHandlerOptions | TransactionalHandlerToolOptions<Client>,
  handler: TransactionalHandler<Body, Client>,
): Handler<Body> {
  checkOptions('transactional()', { handler }, { handler: needed(callable) })
  const run = isTool(options) ? toolRunner(place, options) : plainRunner<Client>(place, options)
  const { outbox } = options
  return async (message, context) => {
    const { signal } = context
    const lease = {
      schema: place.schema,
      queue: context.queue,
      messageId: message.messageId,
      fencingToken: tokenOf(context),
    }
    await run({ signal, lease }, async (client, lent) => {
      const xid = await begun(lent, lease)
      const publishes = new OutboxPublishes(publishesOf(context), outbox, lent)
      await handler(message, { ...context, client, ...publishes.verbs })
      await publishes.written()
      signal.throwIfAborted()
      await complete(lent, lease, xid)
      signal.throwIfAborted()
    }).catch((error: unknown) => resolved(error, place.pool, { lease, signal }))
    outbox?.wake?.()
  }
}

/** A COMMIT without an answer is looked for once: what it did must not count as a failed attempt, the last one perhaps. */
async function resolved(
  error: unknown,
  pool: SqlPool,
  { lease, signal }: { readonly lease: RunLease; readonly signal: AbortSignal },
): Promise<void> {
  if (!isDoubt(error)) throw error
  const late = () => new Error('no answer')
  await unlessAborted(within(committed(pool, lease), LOOK_MS, late), signal).catch(() => {
    throw error
  })
}

function isTool<Tx>(
  options: TransactionalHandlerOptions | TransactionalHandlerToolOptions<Tx>,
): options is TransactionalHandlerToolOptions<Tx> {
  return 'transaction' in options || 'query' in options
}

function tokenOf({ fencingToken }: Context): number {
  if (fencingToken !== undefined) return fencingToken
  throw new InvalidOption(
    'transactional(): this message runs without an idempotency store (its fencingToken is undefined): expected consume(queue, { idempotency: inbox }, inbox.transactional(...)), and an identity on each message (identity is not "unguarded"). Nothing was done',
  )
}

function plainRunner<Client>(place: TransactionalPlace, options: TransactionalHandlerOptions): Runner<Client> {
  checkOptions('transactional()', options, PLAIN_RULES)
  const { isolation = DEFAULTS.isolation, idleTimeoutMs = DEFAULTS.idleTimeoutMs } = options
  const transactions = new HandlerTransactions(place.pool, { isolation, idleTimeoutMs })
  return ({ signal }, work) => transactions.run(signal, (client) => work(client as Client, client))
}

function toolRunner<Tx>({ pool }: TransactionalPlace, options: TransactionalHandlerToolOptions<Tx>): Runner<Tx> {
  checkOptions('transactional()', options, TOOL_RULES)
  const { transaction, query } = options
  return async ({ signal, lease }, work) => {
    let state: 'not run' | 'running' | 'done' = 'not run'
    const once = async (tx: Tx) => {
      if (state !== 'not run') throw ranTwice()
      state = 'running'
      await work(tx, query(tx))
      state = 'done'
    }
    const ended = () => state
    try {
      await transaction(once)
    } catch (error) {
      throw ended() === 'done' ? commitError(error) : error
    }
    if (ended() !== 'done') throw notAwaited()
    await unlessAborted(committed(pool, lease), signal).catch((error: unknown) => {
      throw error instanceof CommitRefused ? error : notKnown(error)
    })
  }
}

function ranTwice(): InvalidOption {
  return new InvalidOption(
    'transactional(): expected transaction to run its work once, and it ran it again: what the handler publishes would get other ids. Switch off the repeats of your query tool; the consumer repeats by itself',
  )
}

function notAwaited(): InvalidOption {
  return new InvalidOption(
    'transactional(): expected transaction to resolve when its work has been done and committed, and it resolved before: return the promise of your tool, as in (work) => db.transaction((tx) => work(tx))',
  )
}

/** What one handler publishes, as rows of the outbox: one after the other, on the handler's client. */
class OutboxPublishes {
  readonly #attempt: AttemptPublishes | undefined
  readonly #outbox: TransactionalOutbox | undefined
  readonly #client: LentClient
  #last: Promise<unknown> = Promise.resolve()
  #ended = false

  constructor(attempt: AttemptPublishes | undefined, outbox: TransactionalOutbox | undefined, client: LentClient) {
    this.#attempt = attempt
    this.#outbox = outbox
    this.#client = client
  }

  readonly verbs: Pick<TransactionalContext, 'publish' | 'send'> = {
    publish: (exchange, message, options) => this.#write((derived) => ({ ...derived, exchange }), message, options),
    send: (queue, message, options) =>
      this.#write(({ routingKey: _, ...derived }) => ({ ...derived, queue }), message, options),
  }

  /** Waits for those that nobody awaited; there will be no more. @throws the failure of one */
  async written(): Promise<void> {
    await this.#attempt?.settled()
    this.#ended = true
  }

  async #write(
    target: (message: OutgoingMessage) => Parameters<TransactionalOutbox['addDerived']>[0],
    message: OutgoingMessage,
    options: TransactionalPublishOptions = {},
  ): Promise<WrittenMessage> {
    const outbox = this.#outbox
    if (!outbox) throw withoutOutbox()
    if (!this.#attempt) throw foreignContext()
    checkOptions('publish()', options, PUBLISH_RULES)
    return this.#attempt.by(
      (derived) => this.#inTurn(() => outbox.addDerived(target(derived), this.#client)),
      message,
      options,
    )
  }

  #inTurn<T>(write: () => Promise<T>): Promise<T> {
    const written = this.#last.then(() => {
      if (this.#ended) throw new Closed('the transaction has ended: await what a handler publishes before it returns')
      return write()
    })
    this.#last = written.catch(() => {})
    return written
  }
}

function withoutOutbox(): InvalidOption {
  return new InvalidOption(
    'a transactional handler publishes through an outbox, in its transaction: expected inbox.transactional({ outbox: new Outbox({ name }) }, handler). What is published by a producer of your own is neither part of the transaction nor protected from repeats',
  )
}

function foreignContext(): InvalidOption {
  return new InvalidOption(
    'a middleware replaced the context of this handler: expected it to pass the context on, or a copy made by spreading it ({ ...context })',
  )
}
