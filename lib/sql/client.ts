/**
 * The part of a Postgres client that Surehop needs, by shape: `pg` fits as it is, and any query tool does that can run a
 * statement with parameters in the caller's transaction (Knex, Kysely, Drizzle, Prisma, TypeORM: the README has a line for each).
 *
 * Promises: a client that was lent is only asked to run statements; no BEGIN, COMMIT, ROLLBACK or SAVEPOINT is ever sent to it.
 * Statements meant for lent clients use `$1`-style parameters in their order, each once, and neither `?` nor `::`, which some
 * query tools read as parameters of their own.
 */
import { within } from '../deadline.ts'
import { CommitRefused, InvalidOption } from '../errors.ts'
import { show } from '../options.ts'
import { endedByServer, givenUp, isAnswer, isEnding } from './given-up.ts'
import { lentFor } from './lent-for.ts'

/** Rows as a driver hands them over. */
export type SqlRow = Readonly<Record<string, unknown>>

/** A client, a pool or a transaction that runs one statement; `pg`'s `Client`, `PoolClient` and `Pool` fit. */
export interface SqlClient {
  query(sql: string, parameters?: unknown[]): Promise<{ readonly rows: readonly unknown[] }>
}

/** Runs one statement in the caller's transaction; answers its rows, or an object that has them as `rows`. */
export type SqlFunction = (
  sql: string,
  parameters: unknown[],
) => PromiseLike<readonly unknown[] | { readonly rows: readonly unknown[] }>

/** What a caller may lend for statements in its own transaction. */
export type LentClient = SqlClient | SqlFunction

/** A client out of a pool. `release(true)` closes its connection instead of keeping it. */
export interface SqlPoolClient extends SqlClient {
  release(destroy?: boolean | Error): void
  on?(event: 'notification' | 'error' | 'end', listener: (argument?: unknown) => void): unknown
  off?(event: 'notification' | 'error' | 'end', listener: (argument?: unknown) => void): unknown
}

/** A pool of connections, such as `pg`'s `Pool`: for what Surehop does by itself, on connections of its own. The caller closes it. */
export interface SqlPool extends SqlClient {
  connect(): Promise<SqlPoolClient>
}

/**
 * Runs one statement on what was lent.
 * @throws InvalidOption when it is neither a client nor a function; what the database says, as the driver throws it
 */
export async function runOn(client: LentClient, sql: string, parameters: unknown[]): Promise<readonly SqlRow[]> {
  const answer = isFunction(client) ? await client(sql, parameters) : await checked(client).query(sql, parameters)
  const rows = Array.isArray(answer) ? answer : (answer as { readonly rows?: unknown } | undefined)?.rows
  if (Array.isArray(rows)) return rows as readonly SqlRow[]
  throw new InvalidOption(
    `expected the client to answer with rows, or an object that has them as "rows", got ${show(answer)}`,
  )
}

/**
 * Runs one statement on a client of the pool, the wait for which counts. A client that failed or did not answer is closed: with
 * the pool's own `query` one whose connection is dead would be missing for as long as nobody notices that. What that leaves behind
 * at the server is bounded: see given-up.ts.
 * @throws what `late` makes, when `ms` are over: the statement may still be executed; what the database says
 */
export async function runWithin(
  pool: SqlPool,
  statement: { readonly sql: string; readonly parameters: unknown[] },
  { ms, late }: { readonly ms: number; readonly late: () => Error },
): Promise<readonly SqlRow[]> {
  const until = performance.now() + ms
  const connecting = pool.connect()
  const client = await within(connecting, ms, late).catch((error: unknown) => {
    connecting.then((tooLate) => tooLate.release()).catch(() => {})
    throw error
  })
  const ignore = () => {}
  client.on?.('error', ignore)
  let answered = false
  try {
    const { sql, parameters } = statement
    const run = () => runOn(client, sql, parameters)
    const leftMs = Math.max(1, until - performance.now())
    const running = isEnding(pool) ? endedByServer({ pool, client }, { ms: leftMs, run }) : run()
    const rows = await within(running, leftMs, late)
    answered = true
    return rows
  } catch (error) {
    if (!isAnswer(error)) givenUp(pool)
    throw error
  } finally {
    if (answered) client.off?.('error', ignore)
    client.release(!answered)
  }
}

/** The pool, for what asks it for one statement after another without an end of its own: each as by {@link runWithin}. */
export function endingPool(pool: SqlPool, end: { readonly ms: number; readonly late: () => Error }): SqlPool {
  return {
    query: async (sql, parameters = []) => ({ rows: await runWithin(pool, { sql, parameters }, end) }),
    connect: () => pool.connect(),
  }
}

/** Sentences for an operator. pg's pool emits the errors of idle connections; without a listener the first restart of Postgres ends the process. */
export function poolWarnings(pool: SqlPool): string[] {
  const { listenerCount } = pool as { listenerCount?: (event: string) => number }
  if (typeof listenerCount !== 'function' || listenerCount.call(pool, 'error') > 0) return []
  return [
    "The pool has no listener for 'error': the process ends when Postgres closes an idle connection, as a restart does. Say pool.on('error', (error) => ...).",
  ]
}

/** Is the client surely not inside a transaction? Undefined where it does not tell. `pg` 8.20 or newer does. */
export function isOutsideTransaction(client: LentClient): boolean | undefined {
  if (isPool(client)) return true
  const status = (client as { getTransactionStatus?: () => unknown } | undefined)?.getTransactionStatus
  return typeof status === 'function' ? status.call(client) === 'I' : undefined
}

/** A pool gives each statement another connection: nothing that belongs to one transaction may be run on it. */
function isPool(client: LentClient): boolean {
  return typeof (client as Partial<SqlPool> | undefined)?.connect === 'function' && 'totalCount' in client
}

function isFunction(client: LentClient): client is SqlFunction {
  return typeof client === 'function'
}

function checked(client: SqlClient | undefined): SqlClient {
  if (typeof client?.query === 'function') return client
  throw new InvalidOption(
    `expected a client with query(sql, parameters), such as pg's, or a function (sql, parameters) => rows, got ${show(client)}`,
  )
}

/**
 * Runs `work` in a transaction on a connection of the pool: commits when it resolves, rolls back when it throws.
 * A connection that fails on the way is closed, not kept.
 * @throws what `work` throws; what the database says; CommitRefused where it rolled back, because `work` had kept an error to itself
 */
export async function inTransaction<T>(pool: SqlPool, work: (client: SqlPoolClient) => Promise<T>): Promise<T> {
  const client = await pool.connect()
  const ignore = () => {}
  client.on?.('error', ignore)
  const { lent, end } = lentFor(client)
  let broken = true
  try {
    await client.query('BEGIN')
    const result = await (async () => work(lent))().finally(end)
    refuseRolledBack(await client.query('COMMIT'))
    broken = false
    return result
  } catch (error) {
    broken = await client.query('ROLLBACK').then(
      () => false,
      () => true,
    )
    throw error
  } finally {
    client.off?.('error', ignore)
    client.release(broken)
  }
}

/**
 * To the COMMIT of a transaction in which a statement has failed, Postgres answers ROLLBACK, and no error.
 * @throws CommitRefused
 */
export function refuseRolledBack(answer: object): void {
  if ('command' in answer && answer.command === 'ROLLBACK') throw new CommitRefused()
}
