/** How outboxes stand: what waits, since when, and who sends it. */
import type { SqlPool, SqlRow } from '../sql/client.ts'
import { inSchema } from '../sql/schema.ts'
import { AGES, COUNTS, RELAYS } from './desk-sql.ts'
import { SHARDS } from './packing.ts'
import { positionsProblem } from './positions.ts'

/** How one outbox stands. */
export interface OutboxStatus {
  readonly outbox: string
  /** Rows to be sent. */
  readonly ready: number
  /** Rows that wait for another attempt, or behind such a row of their key. */
  readonly held: number
  /** Rows given up on, until somebody retries or drops them. */
  readonly parked: number
  /** Age of the oldest row that is ready or held, ms; undefined where none is. */
  readonly oldestMs: number | undefined
  /** Relays that live. */
  readonly relays: number
  /** Shares of the work that no relay has: their rows wait. */
  readonly unownedShards: number
  /** What is wrong with the tables that it shares with others, in words: its keys may go out of order. */
  readonly problem: string | undefined
}

/** Of one outbox, or of all that have rows, relays or had some. */
export async function readStatus(pool: SqlPool, schema: string, name: string | undefined): Promise<OutboxStatus[]> {
  const rowsOf = async (sql: string, parameters: unknown[]) =>
    (await pool.query(inSchema(schema, sql), parameters)).rows as SqlRow[]
  const counts = await rowsOf(COUNTS, [name ?? null])
  const firsts = counts.filter(({ state }) => state !== 'parked').map(({ first }) => String(first))
  const ages = new Map((await rowsOf(AGES, [firsts])).map((row) => [row['name'], Number(row['age_ms'])]))
  const relays = await rowsOf(RELAYS, [name ?? null])
  const problem = await positionsProblem(rowsOf, schema)
  const names = new Set(name === undefined ? [...counts, ...relays].map((row) => row['name'] as string) : [name])
  return [...names].sort().map((outbox) => {
    const count = (state: string) => sum(counts, 'rows', (row) => row['name'] === outbox && row['state'] === state)
    const ofRelays = (column: string) => sum(relays, column, (row) => row['name'] === outbox)
    return {
      outbox,
      ready: count('ready'),
      held: count('held'),
      parked: count('parked'),
      oldestMs: ages.get(outbox),
      relays: ofRelays('relays'),
      unownedShards: SHARDS - ofRelays('owned'),
      problem,
    }
  })
}

function sum(rows: readonly SqlRow[], column: string, where: (row: SqlRow) => boolean): number {
  return rows.filter(where).reduce((total, row) => total + Number(row[column]), 0)
}
