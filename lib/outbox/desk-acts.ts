/**
 * What an operator may do to rows of the outbox: which states allow it, and what it means for the order of keys.
 *
 *   retry: parked -> held, due at once     held -> due at once
 *   park:  ready, held -> parked           drop: parked (others by force) -> gone
 *
 * Promises: each batch is done in one transaction or not at all; the key of a row taken away goes on with its next row.
 * Does NOT promise that a row parked or dropped was not sent: a relay may have it in hand. The outcome says where that can be.
 */
import { pause } from '../deadline.ts'
import { inTransaction, type SqlClient, type SqlPool } from '../sql/client.ts'
import { inSchema } from '../sql/schema.ts'
import { DROP, LOCK, PARK, RETRY_HELD, RETRY_PARKED } from './desk-sql.ts'
import { promoteHeads } from './heads.ts'
import type { OutboxRow, OutboxState } from './rows.ts'
import { isLongKey } from './sendable.ts'

/** What can be done to rows. */
export type DeskVerb = 'retry' | 'park' | 'drop'

/** What was done to one row, or would be. */
export interface DeskOutcome {
  readonly row: OutboxRow
  readonly done: boolean
  /** Why not: `it was sent`. */
  readonly why: string | undefined
  /** It was to be sent just then, and may have been: a relay could have it in hand. */
  readonly mayBeSent: boolean
  /** It has a key, and goes after whatever of that key was sent meanwhile. */
  readonly outOfOrder: boolean
}

/** How a row stands. */
export interface Standing {
  readonly state: OutboxState
  /** Held behind another row of its key. */
  readonly waits: boolean
  /** The first held row of its key is due: a relay may have that one in hand, and this one with it. */
  readonly due?: boolean
}

/** Does this verb, or would it. `standing` is undefined where the row is gone. */
export function judged(verb: DeskVerb, row: OutboxRow, standing: Standing | undefined, force: boolean): DeskOutcome {
  const unfit = verb === 'retry' && isLongKey(row.key) ? 'its key is longer than 255 bytes' : undefined
  const why = standing ? (objection(verb, standing, force) ?? unfit) : 'it is gone'
  const done = why === undefined
  const next = standing?.state === 'ready' || (standing?.state === 'held' && (!standing.waits || standing.due === true))
  const mayBeSent = done && verb !== 'retry' && next
  const outOfOrder = done && verb === 'retry' && standing?.state === 'parked' && row.key !== undefined
  return { row, done, why, mayBeSent, outOfOrder }
}

function objection(verb: DeskVerb, { state, waits }: Standing, force: boolean): string | undefined {
  if (verb === 'drop') return state === 'parked' || force ? undefined : `it is ${state}: park it first, or use force`
  if (state === 'sent') return 'it was sent'
  if (verb === 'park') return state === 'parked' ? 'it is parked already' : undefined
  if (state === 'ready') return 'it is to be sent anyway'
  return waits ? 'it waits behind another message of its key: retry that one' : undefined
}

/** A batch: all of it is done in one transaction. */
export interface Batch {
  readonly schema: string
  readonly verb: DeskVerb
  readonly rows: readonly OutboxRow[]
  readonly force: boolean
}

/**
 * Does it, and tries again where it was in the way of a relay or another desk.
 * @throws what the database says, at last also that it took too long to get hold of the rows
 */
export async function act(pool: SqlPool, batch: Batch): Promise<DeskOutcome[]> {
  for (let left = YIELDS; ; left--) {
    try {
      return await inTransaction(pool, (client) => actIn(client, batch))
    } catch (error) {
      if (!IN_THE_WAY.has((error as { code?: unknown }).code) || left === 0) throw error
      await pause(Math.random() * YIELD_MS)
    }
  }
}

/** Deadlock detected; lock not available in time. */
const IN_THE_WAY: ReadonlySet<unknown> = new Set(['40P01', '55P03'])
const YIELDS = 50
const YIELD_MS = 100

/**
 * Each statement sees what was committed before it, whatever the database's default is: a stricter isolation would refuse rows that a
 * relay has just touched. Relays lock rows in the order in which they come to them. Where that makes a circle with a desk, it is the desk
 * that gives way, before Postgres looks for circles (after 1 s) and perhaps ends the relay's statement. A desk whose line is lost in the
 * middle must not keep rows locked until the server notices, hours later.
 */
const YIELD_FIRST = `SET TRANSACTION ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = '200ms';
  SET LOCAL idle_in_transaction_session_timeout = '5s'`

async function actIn(client: SqlClient, { schema, verb, rows, force }: Batch): Promise<DeskOutcome[]> {
  const run = (sql: string, positions: readonly string[]) => client.query(inSchema(schema, sql), [positions])
  await client.query(YIELD_FIRST)
  const all = rows.map(({ position }) => position)
  const standings = new Map((await run(LOCK, all)).rows.map((row) => standingOf(row as Locked)))
  const outcomes = rows.map((row) => judged(verb, row, standings.get(row.position), force))
  const chosen = outcomes.filter(({ done }) => done).map(({ row }) => row)
  const positions = chosen.map(({ position }) => position)
  for (const sql of STATEMENTS[verb]) await run(sql, positions)
  const keyed = chosen.filter(({ key }) => key !== undefined)
  await promoteHeads(schema, { names: keyed.map((r) => r.outbox), keys: keyed.map((r) => r.key!) }, client)
  return outcomes
}

/** The due head first: a parked row becomes one only afterwards. */
const STATEMENTS: Readonly<Record<DeskVerb, readonly string[]>> = {
  retry: [RETRY_HELD, RETRY_PARKED],
  park: [PARK],
  drop: [DROP],
}

interface Locked extends Standing {
  readonly position: unknown
}

function standingOf({ position, state, waits, due = false }: Locked): [string, Standing] {
  return [String(position), { state, waits, due }]
}
