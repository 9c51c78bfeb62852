/**
 * Finds rows that no relay would ever take, however long they wait, and parks them with the reason: of a shard or at a position that
 * there is not, or held until a time that nobody lives to see. Only somebody who writes rows by hand makes them.
 *
 * Promises: one small statement, by indexes: of what is ready or held the first thousand are looked at, since what nobody takes
 * comes to the front as the rest is sent. Does NOT wait for the lease: a relay has such a row in hand only behind the first held one
 * of its key, and what is confirmed is taken out though it is parked.
 */
import { LAST_POSITION, SHARDS } from './packing.ts'
import type { Ask } from './relay-table.ts'

const LOOKED_AT = 1_000

const STRAY = `(r.shard NOT BETWEEN 0 AND ${SHARDS - 1} OR r.position NOT BETWEEN 1 AND ${LAST_POSITION})`
const NEVER = `r.not_before > now() + interval '1 year' AND r.not_before < 'infinity'`
const OF = 'FROM {schema}.outbox r WHERE r.name = $1 AND r.state'

/**
 * $1 name. Ordered also where no order is needed: how many rows have no time the planner can only guess, and a walk over the whole
 * table would look cheap. What is a stray is asked again of each row that is locked: somebody may have put it right meanwhile.
 */
const PARK = `
WITH stray AS (
  SELECT r.position, CASE
    WHEN r.shard NOT BETWEEN 0 AND ${SHARDS - 1} THEN 'expected shard to be from 0 to ${SHARDS - 1}, got ' || r.shard
    WHEN r.position NOT BETWEEN 1 AND ${LAST_POSITION} THEN 'expected position to be from 1 to ${LAST_POSITION}, got ' || r.position
    ELSE 'expected not_before to be within a year, got ' || r.not_before END AS why
  FROM {schema}.outbox r WHERE r.state IN ('ready', 'held') AND r.position = ANY (ARRAY(
    (SELECT r.position ${OF} = 'ready' AND r.position < 1 LIMIT ${LOOKED_AT})
    UNION ALL (SELECT r.position ${OF} = 'ready' AND r.position > ${LAST_POSITION} LIMIT ${LOOKED_AT})
    UNION ALL (SELECT r.position FROM (SELECT r.position, r.shard ${OF} = 'ready' ORDER BY r.position LIMIT ${LOOKED_AT}) r WHERE ${STRAY})
    UNION ALL (SELECT r.position FROM (SELECT r.position, r.shard ${OF} = 'held' ORDER BY r.not_before LIMIT ${LOOKED_AT}) r WHERE ${STRAY})
    UNION ALL (SELECT r.position FROM (SELECT r.position, r.shard ${OF} = 'held' AND r.not_before IS NULL ORDER BY r.not_before LIMIT ${LOOKED_AT}) r WHERE ${STRAY})
    UNION ALL (SELECT r.position ${OF} = 'held' AND ${NEVER} ORDER BY r.not_before LIMIT ${LOOKED_AT})
  )) AND (${STRAY} OR ${NEVER}) FOR UPDATE SKIP LOCKED
)
UPDATE {schema}.outbox o SET state = 'parked', not_before = NULL, ended_at = clock_timestamp(), last_error = s.why
FROM stray s WHERE o.position = s.position
RETURNING o.message_id, o.transaction_id, o.key, o.attempts, o.last_error`

/** A row that was parked. */
export interface Stray {
  readonly messageId: string
  readonly transactionId: string
  readonly key: string | undefined
  readonly attempts: number
  readonly why: string
}

/** Parks them; those behind them in their keys are for the caller to promote. */
export async function parkStrays(ask: Ask, name: string): Promise<Stray[]> {
  return (await ask(PARK, [name])).map((row) => ({
    messageId: String(row['message_id']),
    transactionId: String(row['transaction_id']),
    key: (row['key'] as string | null) ?? undefined,
    attempts: Number(row['attempts']),
    why: String(row['last_error']),
  }))
}
