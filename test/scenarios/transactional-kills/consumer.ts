// Takes orders and charges out of stock: the effect and what is said of it are rows of the transaction that the inbox records in.

import { Outbox, PostgresIdempotencyStore, type Surehop } from '../../../lib/index.ts'
import { LEASE_MS, type Place, type Work } from './place.ts'
import { tappedPool } from './sql.ts'
import type { Steps } from './steps.ts'

export async function consume(surehop: Surehop, place: Place, steps: Steps): Promise<Work> {
  const pool = tappedPool(place.database, steps)
  const outbox = new Outbox({ name: place.stock, schema: place.schema, pool })
  const inbox = new PostgresIdempotencyStore({ pool, schema: place.schema })
  const delayMs = () => 100
  const options = {
    idempotency: inbox,
    leaseMs: LEASE_MS,
    // A process that dies takes the starts of its neighbours with it; here it dies again and again on purpose.
    maxStarts: 1_000,
    concurrency: 5,
    retry: { attempts: 20, backoff: { delayMs, maxDelayMs: delayMs } },
  }
  const handler = inbox.transactional({ outbox }, async (message, { client, publish }) => {
    steps.reach('handler', 'before')
    await client.query('INSERT INTO effects (message) VALUES ($1)', [message.messageId])
    await publish(place.told, { type: 'stock.taken', body: { of: message.messageId } })
    steps.reach('handler', 'after')
  })
  await surehop.consume(place.work, options, handler)
  return { close: async () => {} }
}
