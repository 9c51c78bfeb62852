/**
 * The statements of the Postgres inbox. Parameters: $1 is always the scope; lists travel as one JSON text.
 *
 * Order of locks, in every transaction: rows of the inbox by id, then rows of owners by name. Sweeping waits for no lock, and a
 * renewal takes one. So no two of them wait for each other in a circle.
 *
 * Who judges an owner dead holds its row's lock and moves its `until` back: a renewal that waits for the lock meets a changed
 * row, and finds out that it came too late, even where the clock is set back a little. Not further back than that: the row must stay
 * for a day, for the owner's own claims (`record.ts`: whoever was away takes nobody over). (Under READ COMMITTED an UPDATE that waited for a row which was then only locked, not
 * changed, would keep the time it had read before: two live owners.)
 */
import { RECORD_COLUMNS, WRITTEN_COLUMNS } from './postgres-rows.ts'

const LIST = (parameter: string) => `ARRAY(SELECT json_array_elements_text(CAST(${parameter} AS json)))`
const MS = (parameter: string) => `CAST(${parameter} AS double precision) * interval '1 millisecond'`
const EPOCH = (time: string, perSecond: number) =>
  `CAST(extract(epoch FROM ${time}) * ${perSecond} AS double precision)`

/** Locks the rows that are there. $2 ids. Answers them, as they are once locked. */
export const LOCK_PRESENT = `SELECT ${RECORD_COLUMNS} FROM {schema}.inbox r
  WHERE r.scope = $1 AND r.id = ANY(${LIST('$2')}) ORDER BY r.id FOR UPDATE`

/**
 * Locks the rows, and makes those that are missing, as absent. $2 ids, $3 retention, ms. Answers those that it made. A row that is
 * there is only locked, not written: else a copy put off would fail a transactional handler at REPEATABLE READ, which completes the row.
 */
export const LOCK_ALL = `INSERT INTO {schema}.inbox AS r (scope, id, state, retention, expires_at)
  SELECT $1, asked.id, 'absent', asked.retention, {schema}.inbox_expiry(asked.retention)
  FROM (SELECT id, ${MS('$3')} AS retention FROM unnest(${LIST('$2')}) AS id) asked ORDER BY asked.id COLLATE "C"
  ON CONFLICT (scope, id) DO UPDATE SET state = r.state WHERE false RETURNING ${RECORD_COLUMNS}`

/**
 * Locks owners that are there. $2 owners. One row: until when each lives (ms since 1970, by name), and the time, microseconds,
 * read when all locks were held.
 */
export const LOCK_OWNERS = `WITH locked AS MATERIALIZED (
    SELECT owner, until FROM {schema}.inbox_owners WHERE scope = $1 AND owner = ANY(${LIST('$2')}) ORDER BY owner FOR UPDATE
  ), seen AS MATERIALIZED (SELECT json_object_agg(owner, ${EPOCH('until', 1_000)}) AS untils FROM locked)
  SELECT untils, ${EPOCH('clock_timestamp()', 1_000_000)} AS now_us FROM seen`

/** Writes records whose rows are locked. $2 rows, $3 retention, ms. The last line keeps the planner from reading the whole scope. */
export const WRITE = `UPDATE {schema}.inbox r SET state = n.state, owner = n.owner, sequence = n.sequence,
    fence = coalesce(n.fence, r.fence), attempt = coalesce(n.attempt, r.attempt), generation = coalesce(n.generation, r.generation),
    starts = coalesce(n.starts, r.starts), exhausted = coalesce(n.exhausted, false), released_by = n.released_by,
    digest = decode(n.digest, 'hex'), completed_at = to_timestamp(n.completed_at / 1000),
    retention = ${MS('$3')}, expires_at = {schema}.inbox_expiry(${MS('$3')})
  FROM json_to_recordset(CAST($2 AS json)) AS n (${WRITTEN_COLUMNS})
  WHERE r.scope = $1 AND r.id = n.id
    AND r.id = ANY(ARRAY(SELECT item ->> 'id' FROM json_array_elements(CAST($2 AS json)) AS item))`

/** Removes rows that were made to be locked, and are not needed. $2 ids; all locked. */
export const REMOVE_ABSENT = `DELETE FROM {schema}.inbox WHERE scope = $1 AND id = ANY(${LIST('$2')}) AND state = 'absent'`

/** Ends owners that were judged dead while their rows are locked. $2 owners. */
export const BURY = `UPDATE {schema}.inbox_owners SET until = least(until, clock_timestamp() - interval '1 minute')
  WHERE scope = $1 AND owner = ANY(${LIST('$2')})`

const keepAlive = (
  owner: string,
  leaseMs: string,
) => `INSERT INTO {schema}.inbox_owners AS o (scope, owner, until, since)
  VALUES ($1, ${owner}, clock_timestamp() + ${MS(leaseMs)}, clock_timestamp())
  ON CONFLICT (scope, owner) DO UPDATE SET until = clock_timestamp() + ${MS(leaseMs)},
    since = CASE WHEN o.until <= clock_timestamp() THEN clock_timestamp() ELSE o.since END
  RETURNING ${EPOCH('o.since', 1_000_000)} AS since`

/** Keeps an owner alive. $2 owner, $3 lease, ms. The clock is read when the row is locked. Answers since when it has been there without a gap. */
export const KEEP_ALIVE = keepAlive('$2', '$3')

/** Both at once. $2 rows, $3 retention, ms, $4 owner, $5 lease, ms. */
export const WRITE_AND_KEEP_ALIVE = `WITH written AS (${WRITE}) ${keepAlive('$4', '$5')}`

/** Is the owner known here? $2 owner. */
export const PRESENT = 'SELECT 1 FROM {schema}.inbox_owners WHERE scope = $1 AND owner = $2'

/** $2 owner. */
export const LEAVE = 'DELETE FROM {schema}.inbox_owners WHERE scope = $1 AND owner = $2'

/** Reads without locks. $2 ids. */
export const LOOK = `SELECT ${RECORD_COLUMNS}, coalesce(o.until > clock_timestamp(), false) AS live
  FROM {schema}.inbox r LEFT JOIN {schema}.inbox_owners o ON o.scope = r.scope AND o.owner = r.owner
  WHERE r.scope = $1 AND r.id = ANY(${LIST('$2')})`

/**
 * Removes up to $1 expired records of any scope; those that somebody has locked are left for later. Answers how many. The time stands in
 * a query of its own, which Postgres runs once: against the bare function it would compare every row, to the end of the index.
 */
export const SWEEP = `WITH gone AS (DELETE FROM {schema}.inbox WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM {schema}.inbox WHERE expires_at <= (SELECT clock_timestamp()) ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED
  )) RETURNING 1) SELECT CAST(count(*) AS integer) AS swept FROM gone`

/** Removes up to $1 owners that have been silent for a day. Their leases are as free as before. */
export const SWEEP_OWNERS = `DELETE FROM {schema}.inbox_owners WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM {schema}.inbox_owners WHERE until < clock_timestamp() - interval '1 day' LIMIT $1 FOR UPDATE SKIP LOCKED
  ))`
