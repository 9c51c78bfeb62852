/**
 * Records as rows of the inbox, and back. Pure.
 *
 * Promises: a record comes back as it was; different ids stay different, whatever characters they hold and however long they are.
 */
import { createHash } from 'node:crypto'
import type { SqlRow } from '../sql/client.ts'
import type { RecordView } from './idempotency.ts'
import type { IdempotencyRecord } from './record.ts'

/** Longer ones are kept as hashes: an entry of a Postgres index holds at most 2.7 kB. */
const LONGEST_TEXT_BYTES = 600
const HASHED = 'hash:'

/** The text itself where Postgres can keep and index it, else a hash of it: no NUL, no half characters, not too long. */
export function textKey(text: string): string {
  const fits =
    !text.startsWith(HASHED) && !/[\0\p{Surrogate}]/u.test(text) && Buffer.byteLength(text) <= LONGEST_TEXT_BYTES
  return fits ? text : `${HASHED}${createHash('sha256').update(text, 'utf16le').digest('hex')}`
}

/** Columns of `inbox r`, as {@link recordOf} reads them. Numbers as doubles: the largest is microseconds since 1970, which fit. */
export const RECORD_COLUMNS = `r.id, r.state, r.owner, CAST(r.sequence AS double precision) AS sequence,
  CAST(r.fence AS double precision) AS fence, r.attempt, r.generation, r.starts, r.exhausted, r.released_by,
  encode(r.digest, 'hex') AS digest, CAST(extract(epoch FROM r.completed_at) * 1000 AS double precision) AS completed_at,
  r.expires_at <= clock_timestamp() AS expired, CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS double precision) AS now_us`

/** What {@link RECORD_COLUMNS} selects. */
interface RecordColumns {
  readonly state: IdempotencyRecord['state'] | 'absent'
  readonly owner: string
  readonly sequence: number
  readonly fence: number
  readonly attempt: number
  readonly generation: number
  readonly starts: number
  readonly exhausted: boolean
  readonly released_by: 'failed' | 'returned'
  readonly digest: string | null
  readonly completed_at: number
  readonly expired: boolean
}

/** Undefined is the absent record, the expired one included. */
export function recordOf(row: SqlRow): IdempotencyRecord | undefined {
  const { state, expired, digest: hex, released_by: by, ...columns } = row as unknown as RecordColumns
  if (expired || state === 'absent') return undefined
  const digest = hex === null ? undefined : Buffer.from(hex, 'hex')
  if (state === 'completed') return { state, completedAt: Number(columns.completed_at), digest }
  const { attempt, generation, starts, owner, exhausted } = columns
  const story = { fence: Number(columns.fence), attempt, generation, starts, digest }
  if (state === 'dead') return { ...story, state }
  if (state === 'released') return { ...story, state, by }
  return { ...story, state, owner, sequence: Number(columns.sequence), exhausted }
}

/** Columns of {@link rowOf}, for `json_to_recordset`. */
export const WRITTEN_COLUMNS =
  'id text, state text, owner text, sequence bigint, fence bigint, attempt integer, generation integer, starts integer, exhausted boolean, released_by text, digest text, completed_at double precision'

/** A record to be written, as JSON has it; what a completed record no longer knows stays as it is in the row. */
export function rowOf(id: string, record: IdempotencyRecord): object {
  const { state, digest: bytes } = record
  const digest = bytes === undefined ? null : Buffer.from(bytes).toString('hex')
  if (record.state === 'completed') return { id, state, digest, completed_at: record.completedAt }
  const { fence, attempt, generation, starts } = record
  const story = { id, state, digest, fence, attempt, generation, starts }
  if (record.state === 'dead') return story
  if (record.state === 'released') return { ...story, released_by: record.by }
  const { owner, sequence, exhausted } = record
  return { ...story, owner, sequence, exhausted }
}

/** What a reader sees. @param live is the owner of a leased record alive? */
export function viewOf(record: IdempotencyRecord | undefined, live: boolean): RecordView {
  if (record === undefined) return { state: 'absent' }
  if (record.state === 'completed') return { state: 'completed', completedAt: record.completedAt }
  const { attempt, generation } = record
  if (record.state === 'dead') return { state: 'dead', generation }
  if (record.state === 'released') return { state: 'released', attempt, generation }
  return { state: 'leased', owner: record.owner, attempt, generation, live }
}
