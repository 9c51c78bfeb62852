/**
 * The record of a message inside its handler's own transaction: read when the handler begins, completed just before the commit.
 *
 *     begun ─▶ handler ─▶ completed ─▶ COMMIT        (the fence decides: of two owners, at most one gets past "completed")
 *
 * Promises: `complete` changes the record only if its lease is still that of this run and the transaction is the one it began with;
 * else it throws, and the caller rolls back. Reading takes no lock: whoever wants to take the message over never waits for a
 * handler, only for the moment between `complete` and the commit, and the server ends a session that stays there for 5 seconds.
 * Statements are fit for any query tool: see `sql/client.ts`.
 */
import { CommitRefused, DeadLetterNow, InvalidOption, LeaseLost } from '../errors.ts'
import { type LentClient, runOn, type SqlRow } from '../sql/client.ts'
import { inSchema } from '../sql/schema.ts'
import { explainSql, isAborted } from '../sql/trouble.ts'
import { textKey } from './postgres-rows.ts'

/** The right of one run to complete its message. */
export interface RunLease {
  readonly schema: string
  readonly queue: string
  readonly messageId: string
  readonly fencingToken: number
}

const SEE = `SELECT CAST(pg_current_xact_id() AS text) AS xid, r.state, CAST(r.fence AS text) AS fence
  FROM (SELECT 1) one LEFT JOIN {schema}.inbox r ON r.scope = $1 AND r.id = $2`

const COMPLETE = `UPDATE {schema}.inbox SET state = 'completed', completed_at = clock_timestamp(), owner = NULL, sequence = NULL,
    expires_at = {schema}.inbox_expiry(retention)
  WHERE scope = $1 AND id = $2 AND fence = CAST($3 AS bigint) AND state = 'leased' AND CAST(pg_current_xact_id() AS text) = $4
  RETURNING set_config('idle_in_transaction_session_timeout', $5, true) AS bounded`

const STATE = 'SELECT state FROM {schema}.inbox WHERE scope = $1 AND id = $2'

const COMMIT_WITHIN_MS = 5_000

/**
 * Sees that the record is there and leased to this run.
 * @returns the transaction's id, for {@link complete}
 * @throws InvalidOption when this store has no such record; LeaseLost
 */
export async function begun(client: LentClient, lease: RunLease): Promise<string> {
  const seen = await see(client, lease)
  if (seen['state'] !== 'leased' || seen['fence'] !== String(lease.fencingToken)) throw notOurs(lease, seen)
  return String(seen['xid'])
}

/**
 * Completes the record in the transaction of `client`.
 * @param xid what {@link begun} returned
 * @throws LeaseLost; DeadLetterNow when the transaction is another one than it began with; CommitRefused when the handler dropped
 * the error of a statement; what the database says
 */
export async function complete(client: LentClient, lease: RunLease, xid: string): Promise<void> {
  const { schema, fencingToken } = lease
  const parameters = [...keyOf(lease), String(fencingToken), xid, String(COMMIT_WITHIN_MS)]
  const rows = await explained(lease, () => runOn(client, inSchema(schema, COMPLETE), parameters))
  if (rows.length > 0) return
  const seen = await see(client, lease)
  throw seen['xid'] === xid ? notOurs(lease, seen) : transactionEnded(lease)
}

/**
 * Sees from outside that the record is completed: a query tool may take Postgres' ROLLBACK for the COMMIT it asked for.
 * @throws CommitRefused; what the database says
 */
export async function committed(client: LentClient, lease: RunLease): Promise<void> {
  const [row] = await runOn(client, inSchema(lease.schema, STATE), keyOf(lease))
  if (row?.['state'] !== 'completed') throw new CommitRefused()
}

async function see(client: LentClient, lease: RunLease): Promise<SqlRow> {
  const [row] = await explained(lease, () => runOn(client, inSchema(lease.schema, SEE), keyOf(lease)))
  return row!
}

function keyOf({ queue, messageId }: RunLease): string[] {
  return [textKey(queue), textKey(messageId)]
}

async function explained<T>(lease: RunLease, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    // The handler kept the error of a statement to itself: what Postgres says here names neither that nor a remedy.
    if (isAborted(error)) throw new CommitRefused()
    throw explainSql(error, `asking the inbox in schema "${lease.schema}" in the handler's transaction`)
  }
}

function notOurs({ schema, queue, messageId }: RunLease, seen: SqlRow): Error {
  if (seen['state'] === null)
    return new InvalidOption(
      `transactional(): schema "${schema}" of this database has no record of message ${messageId} in queue "${queue}". Expected the consumer to have this very inbox as its idempotency store, on the same database: consume(queue, { idempotency: inbox }, inbox.transactional(...)). Nothing was committed`,
    )
  return new LeaseLost(
    `the lease of message ${messageId} was lost while its handler ran: it is ${seen['state']} by now. Nothing of this run was committed`,
  )
}

function transactionEnded({ messageId }: RunLease): DeadLetterNow {
  return new DeadLetterNow(
    `the handler ended its transaction itself (COMMIT or ROLLBACK, or work outside it): what it did for message ${messageId} until then may be committed without its record, and a repeat would do it again. Leave COMMIT and ROLLBACK to transactional(); to undo a part, use SAVEPOINT`,
  )
}
