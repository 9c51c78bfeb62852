/**
 * Short transactions on clients of a lent pool, each statement bounded in time on both sides.
 *
 *     connect ─▶ BEGIN, time limits ─▶ work ─▶ COMMIT ─▶ back to the pool
 *                                        └─failed─▶ ROLLBACK ─▶ back to the pool, or closed where even that failed
 *
 * Promises: no certain answer within the time is `StoreUnavailable`; a deadlock or a serialization failure is repeated here; locks
 * of a process that freezes or vanishes in the middle are gone after the same time (the server ends its session); settings are
 * those of one transaction, so that the caller's clients come back as they were.
 * Does NOT promise that a transaction whose COMMIT was not answered was rolled back: callers must be able to repeat it.
 */
import { pause, within } from '../deadline.ts'
import { Closed, StoreUnavailable, textOf } from '../errors.ts'
import { runOn, type SqlPool, type SqlPoolClient, type SqlRow } from '../sql/client.ts'
import { inSchema } from '../sql/schema.ts'
import { explainSql } from '../sql/trouble.ts'

/** Runs one statement of a transaction; `{schema}` stands for the schema's name. */
export type Ask = (sql: string, parameters?: unknown[]) => Promise<readonly SqlRow[]>

/** Where, and how long. */
export interface PostgresLinkOptions {
  readonly schema: string
  readonly statementTimeoutMs: number
}

/** The server's own verdict should come first. */
const GRACE_MS = 250
const MAX_TRIES = 5
const TRY_PAUSE_MS = 20
/** SQLSTATE of serialization failure and deadlock. */
const REPEATED = new Set(['40001', '40P01'])

/** Thrown where the client's own patience ended: whether the statement will still be run is not known. */
class Late extends Error {}

/** A pool seen through short transactions. */
export class PostgresLink {
  readonly #pool: SqlPool
  readonly #options: PostgresLinkOptions
  #closed = false

  constructor(pool: SqlPool, options: PostgresLinkOptions) {
    this.#pool = pool
    this.#options = options
  }

  /** Nothing more is run; the pool stays as it is. */
  close(): void {
    this.#closed = true
  }

  /**
   * Runs `work` in one transaction; again from the start where Postgres asks for that.
   * @throws StoreUnavailable with what Postgres said; Closed
   */
  async transaction<T>(work: (ask: Ask) => Promise<T>): Promise<T> {
    if (this.#closed) throw new Closed('the idempotency store was closed; open a new one')
    for (let tries = 1; ; tries++) {
      try {
        return await this.#once(work)
      } catch (error) {
        const { code } = error as { code?: unknown }
        if (tries === MAX_TRIES || !REPEATED.has(String(code))) throw this.#unavailable(error)
        await pause(Math.random() * TRY_PAUSE_MS * tries)
      }
    }
  }

  async #once<T>(work: (ask: Ask) => Promise<T>): Promise<T> {
    const client = await this.#connect()
    const ignore = () => {}
    client.on?.('error', ignore)
    const ask: Ask = (sql, parameters = []) =>
      this.#bounded(runOn(client, inSchema(this.#options.schema, sql), parameters))
    let usable = false
    try {
      await this.#bounded(client.query(this.#begin))
      const result = await work(ask)
      await this.#bounded(client.query('COMMIT'))
      usable = true
      return result
    } catch (error) {
      usable = !(error instanceof Late) && (await this.#rolledBack(client))
      throw error
    } finally {
      client.off?.('error', ignore)
      client.release(!usable)
    }
  }

  /** One round trip. Whatever the database's default is: under a stricter isolation the store would only repeat itself. */
  get #begin(): string {
    const ms = Math.ceil(this.#options.statementTimeoutMs)
    return `BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = ${ms}; SET LOCAL idle_in_transaction_session_timeout = ${ms}`
  }

  async #connect(): Promise<SqlPoolClient> {
    const connecting = this.#pool.connect()
    try {
      return await this.#bounded(connecting)
    } catch (error) {
      // One that comes too late goes back at once.
      if (error instanceof Late) connecting.then((client) => client.release()).catch(() => {})
      throw error
    }
  }

  #rolledBack(client: SqlPoolClient): Promise<boolean> {
    return this.#bounded(client.query('ROLLBACK')).then(
      () => true,
      () => false,
    )
  }

  #bounded<T>(answer: Promise<T>): Promise<T> {
    const ms = this.#options.statementTimeoutMs + GRACE_MS
    return within(answer, ms, () => new Late(`no answer, and no free connection of the pool, within ${ms} ms`))
  }

  #unavailable(error: unknown): Error {
    if (error instanceof Closed || error instanceof StoreUnavailable) return error
    const explained = explainSql(error, `asking the inbox in schema "${this.#options.schema}"`)
    return new StoreUnavailable(`${textOf(explained)} No handler runs until the inbox can be asked.`, {
      cause: explained,
    })
  }
}
