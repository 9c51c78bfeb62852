/**
 * Are positions given one at a time? Where somebody let connections take many at once (ALTER SEQUENCE ... CACHE, for speed), those that
 * commit later have lower ones now and then: rows of a key are sent out of order, some half a minute late, and nothing else tells.
 */
import type { Ask } from './relay-table.ts'

const CACHE = `SELECT CAST(seqcache AS text) AS cache FROM pg_catalog.pg_sequence WHERE seqrelid = CAST('{schema}.outbox_position' AS regclass)`

/** A sentence for an operator, where they are not. */
export async function positionsProblem(ask: Ask, schema: string): Promise<string | undefined> {
  const [row] = await ask(CACHE, [])
  const cache = Number(row?.['cache'] ?? 1)
  if (cache <= 1) return undefined
  const sequence = `${schema}.outbox_position`
  return `connections take ${cache} positions of "${sequence}" at once, so messages of one key may be sent out of order: say ALTER SEQUENCE ${sequence} CACHE 1, and have connections that are open now opened anew`
}
