/**
 * The order within a key while a row of it is held. The first held row of a key is its head: it is tried again at its `not_before`.
 * All others of the key wait behind it, their `not_before` at infinity. Whoever takes the head away promotes the next one.
 *
 * What may race: whoever puts a row behind a head, or promotes the next, and whoever takes away that head or that next row at the
 * same moment. Each sees the table as it was before the other; a key could be left with rows that all wait and none that is tried.
 * So whoever takes rows away promotes afterwards, in a statement of its own that sees what was committed meanwhile; and relays look
 * for such keys every minute.
 */
import { type LentClient, runOn } from '../sql/client.ts'
import { LOCK_PATIENCE } from '../sql/lock-patience.ts'
import { inSchema } from '../sql/schema.ts'

/** Keys of outboxes: one name for each key. */
export interface Keys {
  readonly names: readonly string[]
  readonly keys: readonly string[]
}

const PROMOTE = `
UPDATE {schema}.outbox SET not_before = now()
WHERE ${LOCK_PATIENCE} AND state = 'held' AND coalesce(not_before = 'infinity', true) AND position = ANY (ARRAY(
  SELECT head.position FROM unnest(CAST($1 AS text[]), CAST($2 AS text[])) AS k(name, key) CROSS JOIN LATERAL (
    SELECT h.position FROM {schema}.outbox h WHERE h.name = k.name AND h.key = k.key AND h.state = 'held'
    ORDER BY h.position LIMIT 1) head))
RETURNING position`

/**
 * Lets the first held row of each of these keys be tried at once, where it waits behind a row that is gone.
 * @returns how many rows were promoted
 */
export async function promoteHeads(schema: string, { names, keys }: Keys, client: LentClient): Promise<number> {
  if (keys.length === 0) return 0
  return (await runOn(client, inSchema(schema, PROMOTE), [names, keys])).length
}
