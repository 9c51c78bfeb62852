/**
 * The statements of the desk. They run on its own pool, so they may use what `pg` knows (arrays).
 *
 * Locks: rows are locked in the order of their positions before anything is done to them. What relays do to rows comes in other
 * orders: where the two make a circle the desk gives way and tries again (see `desk-acts.ts`).
 */
import { COLUMNS } from './rows.ts'

/** $1 the names of outboxes, null for all; $2 state; $3 from this position on; $4 up to this one; $5 how many. */
export const PAGE = `
SELECT ${COLUMNS} FROM {schema}.outbox
WHERE (CAST($1 AS text) IS NULL OR name = $1) AND state = $2 AND position >= $3 AND position <= $4
ORDER BY position LIMIT $5`

/** $1 name or null, $2 message ids, $3 positions. No index knows message ids: the table is read. */
export const FIND = (columns = COLUMNS) => `
SELECT ${columns} FROM {schema}.outbox
WHERE (CAST($1 AS text) IS NULL OR name = $1) AND message_id = ANY (CAST($2 AS text[]))
UNION ALL
SELECT ${columns} FROM {schema}.outbox
WHERE (CAST($1 AS text) IS NULL OR name = $1) AND position = ANY (CAST($3 AS bigint[])) AND message_id <> ALL (CAST($2 AS text[]))
ORDER BY position`

/** Position of the last row there is. */
export const LAST = 'SELECT coalesce(max(position), 0) AS last FROM {schema}.outbox'

/**
 * Locks the rows at positions $1, and the first other held row of each of their keys: two desks on one key take turns. Due: the first
 * held row of its key is.
 */
export const LOCK = `
SELECT position, name, key, state, coalesce(not_before = 'infinity', false) AS waits,
  coalesce((SELECT h.not_before FROM {schema}.outbox h WHERE h.name = o.name AND h.key = o.key AND h.state = 'held'
    ORDER BY h.position LIMIT 1) <= clock_timestamp(), false) AS due
FROM {schema}.outbox o
WHERE position = ANY (CAST($1 AS bigint[]) || ARRAY(
  SELECT other.position FROM (
    SELECT DISTINCT name, key FROM {schema}.outbox WHERE position = ANY ($1) AND key IS NOT NULL
  ) AS k CROSS JOIN LATERAL (
    SELECT h.position FROM {schema}.outbox h
    WHERE h.name = k.name AND h.key = k.key AND h.state = 'held' AND h.position <> ALL ($1) ORDER BY h.position LIMIT 1
  ) other))
ORDER BY position FOR UPDATE OF o`

/** A row with a key waits until {@link promoteHeads} finds that it is the first. */
export const RETRY_PARKED = `
UPDATE {schema}.outbox SET state = 'held', attempts = 0, ended_at = NULL,
  not_before = CASE WHEN key IS NULL THEN now() ELSE CAST('infinity' AS timestamptz) END
WHERE position = ANY ($1) AND state = 'parked'`

export const RETRY_HELD = `UPDATE {schema}.outbox SET not_before = now() WHERE position = ANY ($1) AND state = 'held' AND not_before < 'infinity'`

export const PARK = `
UPDATE {schema}.outbox SET state = 'parked', not_before = NULL, ended_at = now(), last_error = coalesce(last_error, 'parked by an operator')
WHERE position = ANY ($1) AND state IN ('ready', 'held')`

export const DROP = 'DELETE FROM {schema}.outbox WHERE position = ANY ($1)'

/** $1 name or null. What waits or is parked, by outbox, each by an index of its own. */
export const COUNTS = `
SELECT name, state, count(*) AS rows, min(position) AS first FROM {schema}.outbox
WHERE state = 'ready' AND (CAST($1 AS text) IS NULL OR name = $1) GROUP BY name, state
UNION ALL
SELECT name, state, count(*) AS rows, min(position) AS first FROM {schema}.outbox
WHERE state = 'held' AND (CAST($1 AS text) IS NULL OR name = $1) GROUP BY name, state
UNION ALL
SELECT name, state, count(*) AS rows, min(position) AS first FROM {schema}.outbox
WHERE state = 'parked' AND (CAST($1 AS text) IS NULL OR name = $1) GROUP BY name, state`

/** Ages in ms by the server's clock of the rows at positions $1. */
export const AGES = `
SELECT name, CAST((extract(epoch FROM clock_timestamp()) - extract(epoch FROM min(created_at))) * 1000 AS double precision) AS age_ms
FROM {schema}.outbox WHERE position = ANY ($1) AND isfinite(created_at) GROUP BY name`

/** $1 name or null. */
export const RELAYS = `
SELECT name, count(*) FILTER (WHERE until > now()) AS relays, 0 AS owned FROM {schema}.outbox_relays
WHERE CAST($1 AS text) IS NULL OR name = $1 GROUP BY name
UNION ALL
SELECT name, 0 AS relays, count(*) FILTER (WHERE until > now() AND owner IS NOT NULL) AS owned FROM {schema}.outbox_shards
WHERE CAST($1 AS text) IS NULL OR name = $1 GROUP BY name`
