/**
 * The outbox: messages are written as rows in the caller's own transaction, so that they are sent if it commits, and only then.
 *
 *   add() -> row -> (commit) -> a relay: sent | tried again | parked
 *
 * Promises: a message is checked and stamped before any SQL is sent; its row is there exactly if the transaction commits; rows of
 * one key are sent in the order of the commits, those of one transaction in the order they were added. On the caller's client
 * nothing is run but INSERT and, now and then, a SELECT that sees whether there is a transaction.
 * Does NOT promise that anything is sent: a relay does that, in this process or another. Nor that a hint arrives: relays look for
 * rows by themselves, hints only make them look at once.
 * Events: outbox.warning.
 */
import { InvalidOption, MessageInvalid } from '../errors.ts'
import { newMessageId } from '../message.ts'
import { Events } from '../observability/events.ts'
import { type Logger, logEvents } from '../observability/log.ts'
import { callable, checkOptions, given, having, integer, needed, object, type Rule, show } from '../options.ts'
import type { Schema } from '../schema.ts'
import {
  inTransaction,
  isOutsideTransaction,
  type LentClient,
  runOn,
  type SqlPool,
  type SqlPoolClient,
} from '../sql/client.ts'
import { DEFAULT_SCHEMA, schemaName } from '../sql/schema.ts'
import { explainSql } from '../sql/trouble.ts'
import { type HintListener, Hints } from './hints.ts'
import { insert } from './insert.ts'
import { type OutboxMessage, type PrepareOptions, prepare, type ReadyMessage } from './prepare.ts'

/** Options of an outbox. */
export interface OutboxOptions {
  /** Which outbox, normally the service's name: a relay sends the rows of one. At most 128 bytes. */
  readonly name: string
  /** The Postgres schema of Surehop's tables. Default `surehop`. */
  readonly schema?: string
  /** Name of the service, sent as `app_id`. Default: the outbox's name. */
  readonly service?: string
  /** A pool of your own database, such as `pg`'s: relays of other processes are told at once, and `transaction()` works. Default: none. */
  readonly pool?: SqlPool
  /** Largest body, bytes. Default 16 MiB, the limit of RabbitMQ 4. */
  readonly maxBodyBytes?: number
  /** Standard Schemas by message type: a body that does not fit is refused before it is written. */
  readonly schemas?: Readonly<Record<string, Schema>>
  /** For a service whose relay runs elsewhere; else the relay's logger shows the warnings of this outbox, too. Default: none. */
  readonly logger?: Logger
}

/** What became of one message: its row is there, if the transaction commits. */
export interface AddedMessage {
  readonly messageId: string
  readonly transactionId: string
}

const DEFAULTS = { schema: DEFAULT_SCHEMA, maxBodyBytes: 16 * 1024 * 1024 } as const
type Settled = OutboxOptions & Required<Pick<OutboxOptions, 'schema' | 'service' | 'maxBodyBytes'>>

/** A client that does not tell whether it is in a transaction is asked at the first `add()` and at each so many. */
const ASK_EVERY = 256

/** Text that a Postgres column can hold. */
const storable: Rule = (value) =>
  typeof value === 'string' && value !== '' && Buffer.byteLength(value) <= 128 && !/[\0\p{Surrogate}]/u.test(value)
    ? undefined
    : 'a non-empty string of at most 128 bytes, without the character NUL'

const RULES = {
  name: needed(storable),
  schema: schemaName,
  service: storable,
  pool: having("a pool such as pg's, with query() and connect()", 'query', 'connect'),
  maxBodyBytes: integer(1, 134_217_728),
  schemas: object,
  logger: having('a logger with debug, info, warn and error', 'debug', 'info', 'warn', 'error'),
}

/** Writes messages in your transactions. Make one per service and keep it; it holds no connection. */
export class Outbox {
  readonly name: string
  readonly schema: string
  readonly #options: Settled
  readonly #events = new Events(newMessageId())
  readonly #hints: Hints
  #adds = 0
  #warned = false

  /** @throws InvalidOption */
  constructor(options: OutboxOptions) {
    checkOptions('new Outbox()', options, RULES)
    for (const [type, schema] of Object.entries(options.schemas ?? {})) {
      const validate = (schema as Partial<Schema> | undefined)?.['~standard']?.validate
      checkOptions(`new Outbox({schemas: {"${type}"}})`, { validate }, { validate: needed(callable) })
    }
    this.#options = { ...DEFAULTS, service: options.name, ...given(options) } as Settled
    this.name = options.name
    this.schema = this.#options.schema
    this.#hints = new Hints(options.pool, `${this.schema}.${this.name}`)
    if (options.logger) logEvents(this.#events.instance, options.logger)
  }

  // Compilers explain a mistake by the last overload: the one that is used most.
  /** As with one message. Many without a `transactionId` get that of the first. */
  add(messages: readonly OutboxMessage[], client: LentClient): Promise<AddedMessage[]>
  /**
   * Writes a message, or an array of them, in the transaction of `client`.
   * @param client a client in your transaction: `pg`'s, or a function `(sql, parameters) => rows` for any query tool
   * @returns the ids; nothing is sent before you commit, or ever if you roll back
   * @throws MessageInvalid, InvalidOption: nothing was written and the transaction is as it was; SchemaMismatch, PermissionRefused,
   * DatabaseUnavailable or what the driver throws: Postgres has aborted the transaction, roll it back
   */
  add(message: OutboxMessage, client: LentClient): Promise<AddedMessage>
  async add(
    input: OutboxMessage | readonly OutboxMessage[],
    client: LentClient,
  ): Promise<AddedMessage | AddedMessage[]> {
    const many = isMany(input)
    const added = await this.#add(many ? input : [input], client, this.#options)
    return many ? added : added[0]!
  }

  /**
   * As {@link add}, for a message that a handler publishes in the name of its own, under a derived id: consumers do not compare
   * its body, since a repeated run may give it another. `inbox.transactional({ outbox }, ...)` writes with it.
   */
  async addDerived(message: OutboxMessage, client: LentClient): Promise<AddedMessage> {
    return (await this.#add([message], client, { ...this.#options, derived: true }))[0]!
  }

  async #add(input: readonly OutboxMessage[], client: LentClient, options: PrepareOptions): Promise<AddedMessage[]> {
    const prepared = prepare(input, options)
    // At once where it can be: calls that are not awaited one by one keep their order.
    const messages = prepared instanceof Promise ? await prepared : prepared
    if (messages.length > 0) await this.#write(messages, client)
    return messages.map(({ encoded: { messageId, transactionId } }) => ({ messageId, transactionId }))
  }

  /** Say so when you have just committed: relays look at once, here and (with a `pool`) elsewhere. Never needed, only quicker. */
  wake(): void {
    this.#hints.committed()
  }

  /**
   * Runs `work` in a transaction of its own on the pool, commits when it resolves, and wakes the relays; rolls back when it throws.
   * Give `client` the type of your driver's: `async (client: PoolClient) => ...`.
   * @throws InvalidOption without a `pool`; what `work` throws; what the driver throws
   */
  async transaction<T, Client extends SqlPoolClient = SqlPoolClient>(work: (client: Client) => Promise<T>): Promise<T> {
    const { pool } = this.#options
    if (!pool) throw new InvalidOption('transaction() needs a pool: new Outbox({ name, pool })')
    const result = await inTransaction(pool, (client) => work(client as Client))
    this.wake()
    return result
  }

  /**
   * Tells when something was added (its transaction may still be open) or committed. For relays of this process.
   * @returns a function that ends it
   */
  onAdded(listener: HintListener): () => void {
    return this.#hints.listen(listener)
  }

  /**
   * Writes the warnings of this outbox to a logger, too; nothing where it has a logger of its own.
   * @returns a function that ends it
   */
  logTo(logger: Logger): () => void {
    return this.#options.logger ? () => {} : logEvents(this.#events.instance, logger)
  }

  async #write(messages: readonly ReadyMessage[], client: LentClient): Promise<void> {
    const asks = this.#asks(client)
    const xid = await insert(this, messages, client, asks).catch((error: unknown) => {
      throw explainSql(error, this.#doing)
    })
    if (asks) await this.#see(client, xid)
    this.#hints.added()
  }

  get #doing(): string {
    return `writing to outbox "${this.name}" (schema "${this.schema}") in your transaction, which can now only be rolled back,`
  }

  /** Is it worth a question whether there is a transaction? Drivers that know are believed when they say yes. */
  #asks(client: LentClient): boolean {
    if (this.#warned) return false
    const outside = isOutsideTransaction(client)
    return outside ?? this.#adds++ % ASK_EVERY === 0
  }

  /** In a transaction the next statement still has the number that the rows were written with. */
  async #see(client: LentClient, xid: string | undefined): Promise<void> {
    const [row] = await runOn(client, 'SELECT CAST(pg_current_xact_id_if_assigned() AS text) AS xid', []).catch(() => [
      { xid },
    ])
    if (row?.['xid'] === xid || this.#warned) return
    this.#warned = true
    this.#events.emit('outbox.warning', { outbox: this.name, warning: OUTSIDE })
  }
}

const OUTSIDE =
  'a message was added outside a transaction: it was written by itself, whatever becomes of the work it tells about. ' +
  'Give add() the client on which BEGIN was said (not the pool), or use outbox.transaction(). This is said once.'

function isMany(input: OutboxMessage | readonly OutboxMessage[]): input is readonly OutboxMessage[] {
  if (Array.isArray(input)) return true
  if (typeof input === 'object' && input !== null) return false
  throw new MessageInvalid('message', `expected a message or an array of messages, got ${show(input)}`)
}
