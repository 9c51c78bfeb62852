// Sends the rows of both outboxes of a place.

import type { Surehop } from '../../../lib/index.ts'
import { LEASE_MS, type Place, type Work } from './place.ts'
import { tappedPool } from './sql.ts'
import type { Steps } from './steps.ts'

export async function relay(surehop: Surehop, place: Place, steps: Steps): Promise<Work> {
  const { schema } = place
  const pool = tappedPool(place.database, steps)
  for (const outbox of [place.orders, place.stock])
    await surehop.relay({ outbox, schema, pool, leaseMs: LEASE_MS, backlogEveryMs: 1_000 })
  // Closing the connection closes its relays.
  return { close: async () => {} }
}
