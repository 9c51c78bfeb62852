/**
 * The SQL of the Postgres decision store. Each is one statement, so that none needs a transaction of its own; those that may wait
 * for another transaction set `lock_timeout` for themselves (`bounded`, which is evaluated before the INSERT that reads from it).
 */

/** What a decision record says, in columns. */
const VIEW = `d.decision, floor(extract(epoch FROM d.decided_at) * 1000) AS decided_ms, d.decided_by,
  d.published, d.checks`

/** $1: lock timeout, ms, as text. Its old value is handed on, since it lasts to the end of the transaction. */
const BOUNDED = `bounded AS MATERIALIZED (
  SELECT was.lock_timeout, set_config('lock_timeout', $1, true)
  FROM (SELECT current_setting('lock_timeout') AS lock_timeout OFFSET 0) was
)`

const UNTIL = (parameter: string) =>
  `clock_timestamp() + CAST(${parameter} AS double precision) * interval '1 millisecond'`

/**
 * $2 name, $3 transaction id, $4 decision, $5 by, $6 retention ms. Decides unless it is decided, which is then remembered for as long again; answers what stands.
 * Races: another transaction's open decision is waited for; at READ COMMITTED its outcome is seen. At a stricter isolation the
 * database refuses with 40001 instead, and the caller's transaction starts again.
 */
export const DECIDE = `
WITH ${BOUNDED}, d AS (
  INSERT INTO {schema}.decisions AS d (name, transaction_id, decision, decided_at, decided_by, expires_at)
  SELECT $2, $3, $4, clock_timestamp(), $5, ${UNTIL('$6')} FROM bounded
  ON CONFLICT (name, transaction_id) DO UPDATE SET
    decision = COALESCE(d.decision, EXCLUDED.decision),
    decided_at = COALESCE(d.decided_at, EXCLUDED.decided_at),
    decided_by = CASE WHEN d.decision IS NULL THEN EXCLUDED.decided_by ELSE d.decided_by END,
    expires_at = GREATEST(d.expires_at, EXCLUDED.expires_at)
  RETURNING d.*
)
SELECT ${VIEW}, bounded.lock_timeout FROM d, bounded`

/** $1 lock timeout as it was. */
export const RESTORE = "SELECT set_config('lock_timeout', $1, true)"

/** $1 name, $2 transaction ids. Changes nothing. */
export const LOOK = `
SELECT d.transaction_id, ${VIEW} FROM {schema}.decisions d
WHERE d.name = $1 AND d.transaction_id = ANY (CAST($2 AS text[]))`

/** $2 name, $3 transaction id, $4 retention ms, $5 half message. A rolled-back one stays as it is; a forgotten one is committed again. */
export const PUBLISHED = `
WITH ${BOUNDED}
INSERT INTO {schema}.decisions AS d
  (name, transaction_id, decision, decided_at, decided_by, expires_at, published)
SELECT $2, $3, 'committed', clock_timestamp(), 'service', ${UNTIL('$4')}, $5 FROM bounded
ON CONFLICT (name, transaction_id) DO UPDATE SET
  decision = 'committed',
  decided_at = COALESCE(d.decided_at, EXCLUDED.decided_at),
  decided_by = COALESCE(d.decided_by, EXCLUDED.decided_by),
  published = EXCLUDED.published,
  expires_at = EXCLUDED.expires_at
WHERE d.decision IS DISTINCT FROM 'rolled-back'`

/** $2 name, $3 transaction id, $4 retention ms. Answers the count. */
export const CHECKED = `
WITH ${BOUNDED}
INSERT INTO {schema}.decisions AS d (name, transaction_id, checks, expires_at)
SELECT $2, $3, 1, ${UNTIL('$4')} FROM bounded
ON CONFLICT (name, transaction_id) DO UPDATE SET checks = d.checks + 1, expires_at = GREATEST(d.expires_at, EXCLUDED.expires_at)
RETURNING d.checks`

/** Are the tables there, and does a commit last? */
export const PROBE = `
SELECT current_setting('synchronous_commit') AS synchronous_commit, (SELECT count(*) FROM {schema}.decisions WHERE false)`

/** $1 how many at most. Two that sweep at once do not wait for each other. The bare function would be compared with every row. */
export const SWEEP = `
DELETE FROM {schema}.decisions d USING (
  SELECT name, transaction_id FROM {schema}.decisions WHERE expires_at < (SELECT clock_timestamp())
  ORDER BY expires_at LIMIT CAST($1 AS integer) FOR UPDATE SKIP LOCKED
) old
WHERE d.name = old.name AND d.transaction_id = old.transaction_id`
