/**
 * The statements of a relay on the outbox's table, each by itself, no transaction over several.
 *
 * Order per key rests on these statements as follows. A row becomes visible together with all rows of its key before it (see
 * `sql/migrations/001-outbox.ts`), so each page, which is one statement and so one snapshot, continues what is in hand without a gap.
 * Of a key that has held rows, only these are read, from its lowest position on; its ready rows become held as they are met.
 * A key is tried again when the time of its lowest held row has come; the rows behind it carry 'infinity'.
 *
 * Every statement may be repeated after a lost answer. Those that say a row could not be sent have an effect only while the lease
 * lasts under which it was read (the share lock makes a taker-over wait for them); to delete what is confirmed is always right.
 */
import { pause } from '../deadline.ts'
import { runWithin, type SqlPool, type SqlRow } from '../sql/client.ts'
import { LOCK_PATIENCE } from '../sql/lock-patience.ts'
import { inSchema } from '../sql/schema.ts'
import { isRolledBack } from '../sql/trouble.ts'
import { promoteHeads } from './heads.ts'
import { LAST_POSITION, type PackedColumns } from './packing.ts'
import type { BookRow, Entry, Failure } from './relay-book.ts'
import type { Horizon } from './relay-floor.ts'

/** A row as a relay reads it. */
export interface RelayedRow extends BookRow, PackedColumns {
  /** How long ago it was written, by the server's clock, ms. */
  readonly ageMs: number
  /** How long it is not to be delivered yet, by the server's clock when it was read, ms; undefined: no delay was asked for. */
  readonly waitMs: number | undefined
  /** When the answer had come, on the monotonic clock of this process. */
  readonly readAt: number
}

/** What a page shall hold. */
export interface PageOf {
  readonly shards: Iterable<number>
  /** Positions in hand. */
  readonly hand: Iterable<number>
  /** Keys to be left out. */
  readonly crowded: readonly string[]
  readonly messages: number
  readonly bytes: number
  /** Look after this position. */
  readonly after: bigint
}

/** Runs one statement; the relay gives it an end in time. */
export type Ask = (sql: string, parameters: unknown[]) => Promise<readonly SqlRow[]>

/** How many rows of a key a relay has in hand at most. */
export const PER_KEY = 64

/** Times are subtracted as seconds: of infinite ones Postgres makes no interval before version 17. */
const OUT = `o.position, o.shard, o.key, o.attempts, o.message_id, o.transaction_id, o.exchange, o.routing_key, o.properties,
  octet_length(o.body) + octet_length(o.properties) AS size,
  CAST((extract(epoch FROM clock_timestamp()) - extract(epoch FROM o.created_at)) * 1000 AS float8) AS age_ms,
  CAST((extract(epoch FROM o.deliver_at) - extract(epoch FROM clock_timestamp())) * 1000 AS float8) AS wait_ms`

/** Positions that a number of JavaScript can tell; the others are for the upkeep to park. */
const TAKEN = `o.position = p.place AND o.position BETWEEN 1 AND ${LAST_POSITION}`

/** Parameters as for the function. Blocked rows come without their body; a row that was removed meanwhile does not come. */
const READY = `
SELECT ${OUT}, p.blocked, CASE WHEN p.blocked THEN NULL ELSE o.body END AS body
FROM {schema}.outbox_ready_page($1, CAST($2 AS smallint[]), CAST($3 AS bigint[]), CAST($4 AS jsonb), $5, $6, CAST($7 AS bigint)) p
JOIN {schema}.outbox o ON ${TAKEN}
ORDER BY o.position`

/** Transaction ids in full, as numbers. A sequence that has given nothing yet says "1" all the same: the first row would be below the floor. */
const HORIZON = `
SELECT CAST(CASE WHEN q.is_called THEN q.last_value ELSE q.last_value - 1 END AS text) AS last, CAST(pg_snapshot_xmin(s.now) AS text) AS oldest, CAST(pg_snapshot_xmax(s.now) AS text) AS next,
  CAST(pg_postmaster_start_time() AS text) AS server
FROM {schema}.outbox_position q, (SELECT pg_current_snapshot() AS now) s`

const DUE = `
SELECT ${OUT}, false AS blocked, o.body
FROM {schema}.outbox_due_page($1, CAST($2 AS smallint[]), CAST($3 AS bigint[]), $4, $5, ${PER_KEY}) p
JOIN {schema}.outbox o ON ${TAKEN}
ORDER BY p.turn, o.position`

/**
 * $1 positions, $2 message ids as JSON. What is confirmed. By its id, too: a server that lost its last commits (a replica took over, a
 * backup came back) gives their positions again, to other rows.
 */
const CONFIRMED = `position = ANY (CAST($1 AS bigint[]))
  AND message_id IN (SELECT jsonb_array_elements_text(CAST($2 AS jsonb))) AND ${LOCK_PATIENCE}`
const DELETE = `DELETE FROM {schema}.outbox WHERE ${CONFIRMED}`
const MARK_SENT = `
UPDATE {schema}.outbox SET state = 'sent', ended_at = clock_timestamp(), not_before = NULL
WHERE state <> 'sent' AND ${CONFIRMED}`

/**
 * $1 name, $2 owner, $3 rows as JSON. Makes ready or held rows held (a delay of null: behind another row) or parked, unless their lease
 * is over, or somebody else has counted a failure or begun them anew.
 */
const PUT_OFF = `
WITH mine AS MATERIALIZED (
  SELECT shard, epoch FROM {schema}.outbox_shards WHERE name = $1 AND owner = $2 AND ${LOCK_PATIENCE}
  ORDER BY shard FOR SHARE
)
UPDATE {schema}.outbox o SET
  state = f.state, attempts = f.attempts, last_error = coalesce(f.error, o.last_error),
  not_before = CASE WHEN f.state = 'parked' THEN NULL
    WHEN f.delay_ms IS NULL THEN 'infinity' ELSE clock_timestamp() + f.delay_ms * interval '1 millisecond' END,
  ended_at = CASE WHEN f.state = 'parked' THEN clock_timestamp() END
FROM mine, jsonb_to_recordset(CAST($3 AS jsonb)) AS f
  (position bigint, shard smallint, epoch bigint, was integer, state text, attempts integer, delay_ms float8, error text)
WHERE o.position = f.position AND o.name = $1 AND o.state IN ('ready', 'held') AND o.attempts = f.was
  AND mine.shard = f.shard AND mine.epoch = f.epoch`

/** $1 name, $2 shards. What `promoteHeads` does, for all keys of these shards: see heads.ts for when it is needed. */
const REPAIR = `
UPDATE {schema}.outbox SET not_before = clock_timestamp()
WHERE ${LOCK_PATIENCE} AND state = 'held' AND position IN (
  SELECT f.position FROM (
    SELECT DISTINCT ON (h.key) h.position, h.not_before FROM {schema}.outbox h
    WHERE h.name = $1 AND h.state = 'held' AND h.key IS NOT NULL AND h.shard = ANY (CAST($2 AS smallint[]))
    ORDER BY h.key, h.position
  ) f WHERE f.not_before IS NULL OR f.not_before = 'infinity'
  UNION ALL
  SELECT h.position FROM {schema}.outbox h
  WHERE h.name = $1 AND h.state = 'held' AND h.key IS NULL AND h.shard = ANY (CAST($2 AS smallint[]))
    AND (h.not_before IS NULL OR h.not_before = 'infinity')
)`

interface TableOf {
  readonly schema: string
  readonly name: string
  readonly owner: string
  /** Rows that are sent stay, marked so. */
  readonly keepSent: boolean
}

/** The outbox's table, as the relay of one name and owner uses it. */
export class RelayTable {
  readonly #ask: Ask
  readonly #schema: string
  readonly #name: string
  readonly #owner: string
  readonly #keepSent: boolean

  constructor(ask: Ask, of: TableOf) {
    this.#ask = ask
    this.#schema = of.schema
    this.#name = of.name
    this.#owner = of.owner
    this.#keepSent = of.keepSent
  }

  async ready({ shards, hand, crowded, messages, bytes, after }: PageOf): Promise<RelayedRow[]> {
    const lists = [listOf(shards), listOf(hand), JSON.stringify(crowded)]
    return rowsOf(await this.#ask(READY, [this.#name, ...lists, messages, bytes, String(after)]), false)
  }

  async horizon(): Promise<Horizon> {
    const [row] = await this.#ask(HORIZON, [])
    const number = (column: string) => BigInt(String(row?.[column]))
    return { server: String(row?.['server']), last: number('last'), oldest: number('oldest'), next: number('next') }
  }

  async due({ shards, hand, messages, bytes }: Omit<PageOf, 'crowded' | 'after'>): Promise<RelayedRow[]> {
    return rowsOf(await this.#ask(DUE, [this.#name, listOf(shards), listOf(hand), messages, bytes]), true)
  }

  async sent(entries: readonly Entry<RelayedRow>[]): Promise<void> {
    if (entries.length === 0) return
    const ids = JSON.stringify(entries.map(({ row }) => row.message_id))
    await this.#ask(this.#keepSent ? MARK_SENT : DELETE, [listOf(entries.map(({ row }) => row.position)), ids])
  }

  /** Rows of a key behind one that is parked stay as they are. */
  async failed(failures: readonly Failure<RelayedRow>[]): Promise<void> {
    await this.#putOff(
      failures.flatMap(({ entry, verdict, followers }) => [
        {
          ...named(entry.row, entry.epoch),
          state: verdict.state,
          attempts: verdict.attempts,
          delay_ms: verdict.delayMs,
          error: storable(verdict.error.message),
        },
        ...(verdict.state === 'parked' ? [] : followers.map(({ row, epoch }) => behind(row, epoch))),
      ]),
    )
  }

  /** These wait for others of their key. */
  async hold(rows: readonly RelayedRow[], epochOf: (shard: number) => number | undefined): Promise<void> {
    await this.#putOff(rows.map((row) => behind(row, epochOf(row.shard) ?? -1)))
  }

  async promote(keys: readonly string[]): Promise<void> {
    await promoteHeads(this.#schema, { names: keys.map(() => this.#name), keys }, this.#ask)
  }

  async repair(shards: Iterable<number>): Promise<void> {
    await this.#ask(REPAIR, [this.#name, listOf(shards)])
  }

  async #putOff(rows: readonly object[]): Promise<void> {
    if (rows.length > 0) await this.#ask(PUT_OFF, [this.#name, this.#owner, JSON.stringify(rows)])
  }
}

const MAX_TRIES = 5
const TRY_PAUSE_MS = 20

/**
 * For a pool: puts the schema's name into statements, and answers their rows. One without an answer in time costs its connection, not a
 * place in the pool; one that Postgres rolled back because of others (a stricter isolation by default, a deadlock) is repeated.
 */
export function askOf(pool: SqlPool, schema: string, end: { readonly ms: number; readonly late: () => Error }): Ask {
  const texts = new Map<string, string>()
  const textOf = (sql: string) => {
    const text = texts.get(sql) ?? inSchema(schema, sql)
    texts.set(sql, text)
    return text
  }
  return async (sql, parameters) => {
    for (let tries = 1; ; tries++) {
      try {
        return await runWithin(pool, { sql: textOf(sql), parameters }, end)
      } catch (error) {
        if (tries === MAX_TRIES || !isRolledBack(error)) throw error
        await pause(Math.random() * TRY_PAUSE_MS * tries)
      }
    }
  }
}

/** As Postgres writes an array, which any driver can send. */
export function listOf(numbers: Iterable<number>): string {
  return `{${[...numbers].join()}}`
}

function named({ position, shard, attempts }: RelayedRow, epoch: number) {
  return { position, shard, epoch, was: attempts }
}

function behind(row: RelayedRow, epoch: number) {
  return { ...named(row, epoch), state: 'held', attempts: row.attempts, delay_ms: null, error: null }
}

/** Text that a column, and JSON on its way there, can hold. */
function storable(text: string): string {
  // Cut first: a cut can leave half a character.
  return text.slice(0, 1_000).replace(/[\0\p{Surrogate}]/gu, '?')
}

/** Drivers differ in what they make of bigint and float8: both become numbers here. */
function rowsOf(rows: readonly SqlRow[], held: boolean): RelayedRow[] {
  const readAt = performance.now()
  return (rows as unknown as readonly RawRow[]).map((row) => ({
    position: Number(row.position),
    shard: Number(row.shard),
    key: row.key ?? undefined,
    bytes: Number(row.size),
    attempts: Number(row.attempts),
    held,
    blocked: row.blocked === true,
    message_id: row.message_id,
    transaction_id: row.transaction_id,
    exchange: row.exchange,
    routing_key: row.routing_key,
    properties: row.properties,
    body: row.body ?? NOTHING,
    ageMs: Number(row.age_ms),
    waitMs: row.wait_ms === null ? undefined : Number(row.wait_ms),
    readAt,
  }))
}

const NOTHING = Buffer.alloc(0)

interface RawRow extends Omit<PackedColumns, 'body'> {
  readonly position: unknown
  readonly shard: unknown
  readonly key: string | null
  readonly size: unknown
  readonly attempts: unknown
  readonly blocked: unknown
  readonly body: Uint8Array | null
  readonly age_ms: unknown
  readonly wait_ms: unknown
}
