/**
 * Statements that were given up on. A server does not notice that nobody waits for an answer any more: a statement at the lock of a
 * table (VACUUM FULL, REINDEX, a forgotten LOCK TABLE) keeps its connection until the lock is gone. Repeated again and again, it
 * would take all connections of the database, which others need.
 *
 * Promises: once a statement of a pool was given up on, the server is told to end the next ones in time by itself, until that was
 * not needed for a minute. So a relay leaves behind the statements that were under way when it began, and no more.
 * Costs nothing before: to say it takes a transaction, and that two more round trips. A transaction that is never ended, because the
 * line was lost or the process froze in the middle of it, the server ends, too: it would hold its locks for hours.
 */
import { MAX_TIMER_MS } from '../deadline.ts'

const REMEMBERED_MS = 60_000
/** SQLSTATE: canceled by statement_timeout; lock not available in time. */
const ENDED_IN_TIME: ReadonlySet<unknown> = new Set(['57014', '55P03'])

/** By pool. */
const until = new WeakMap<object, number>()

/** A statement of this pool was given up on: it may wait on at the server. */
export function givenUp(pool: object): void {
  until.set(pool, performance.now() + REMEMBERED_MS)
}

/**
 * Has the server ended the statement that came to this? Not where nobody waited longer (we, or the driver: `query_timeout`), nor where
 * the line was cut on its way (by a proxy, or by a pooler, which says so with a code of class 08).
 */
export function isAnswer(error: unknown): boolean {
  const { severity, code } = Object(error) as { readonly severity?: unknown; readonly code?: unknown }
  return typeof severity === 'string' && !String(code).startsWith('08')
}

/** Must the server be told to end the next statement by itself? */
export function isEnding(pool: object): boolean {
  return performance.now() < (until.get(pool) ?? Number.NEGATIVE_INFINITY)
}

/** Says a time limit for this transaction; a shorter one of the role or database stays. */
function limited(setting: string, ms: number): string {
  const own = `current_setting('${setting}')`
  return `set_config('${setting}', CASE WHEN CAST(${own} AS interval) BETWEEN interval '1 ms' AND interval '${ms} ms' THEN ${own} ELSE '${ms}' END, true)`
}

/**
 * Runs one statement that the server ends after `ms`, or sooner where its role or database says so.
 * @throws what the database says; the client is then inside a transaction, and is to be closed
 */
export async function endedByServer<T>(
  { pool, client }: { readonly pool: object; readonly client: { query(sql: string): Promise<unknown> } },
  { ms, run }: { readonly ms: number; readonly run: () => Promise<T> },
): Promise<T> {
  const most = Math.min(Math.ceil(ms), MAX_TIMER_MS)
  try {
    const limits = ['statement_timeout', 'idle_in_transaction_session_timeout'].map((it) => limited(it, most))
    await client.query(`BEGIN; SELECT ${limits.join(', ')}`)
    const answer = await run()
    await client.query('COMMIT')
    return answer
  } catch (error) {
    if (ENDED_IN_TIME.has((error as { code?: unknown } | undefined)?.code)) givenUp(pool)
    throw error
  }
}
