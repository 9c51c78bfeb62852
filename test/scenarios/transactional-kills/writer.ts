// Writes an order and its messages in one transaction, again and again; some roll back.

import { setTimeout as pause } from 'node:timers/promises'
import { v7 } from 'uuid'
import { Outbox, type SqlPool } from '../../../lib/index.ts'
import { type Place, pauseAfter, type Work } from './place.ts'
import { tappedPool } from './sql.ts'
import type { Steps } from './steps.ts'

export async function write(place: Place, steps: Steps): Promise<Work> {
  const pool = tappedPool(place.database, steps)
  const outbox = new Outbox({ name: place.orders, schema: place.schema, pool })
  let stopped = false
  const run = async () => {
    for (let n = 0; !stopped; n++) {
      await transaction(n, { pool, outbox, place })
      await pause(pauseAfter(n))
    }
  }
  const running = run()
  const rest = () => {
    stopped = true
  }
  return {
    rest,
    async close() {
      rest()
      await running
    },
  }
}

interface Around {
  readonly pool: SqlPool
  readonly outbox: Outbox
  readonly place: Place
}

/** The first and every third say three things, every fifth is taken back, every second has a key. */
async function transaction(n: number, { pool, outbox, place }: Around): Promise<void> {
  const id = `w${v7()}`
  const size = n % 3 === 0 ? 3 : 1
  const key = n % 2 === 0 ? `key-${n % 8}` : undefined
  const client = await pool.connect()
  await client.query('BEGIN')
  // Each waits for the one before to end, also for a dead one's: the numbers are in the order of the commits.
  const { rows } = await client.query('UPDATE counters SET orders = orders + 1 WHERE place = $1 RETURNING orders', [
    place.orders,
  ])
  const [{ orders }] = rows as [{ orders: number }]
  await client.query('INSERT INTO orders (id, messages, place, number, key) VALUES ($1, $2, $3, $4, $5)', [
    id,
    size,
    place.orders,
    orders,
    key ?? null,
  ])
  const messages = Array.from({ length: size }, (_, i) => ({
    exchange: place.events,
    type: 'order.placed',
    messageId: `${id}.${i}`,
    body: { order: id },
    ...(key ? { key } : {}),
  }))
  await outbox.add(messages, client)
  await client.query(n % 5 === 4 ? 'ROLLBACK' : 'COMMIT')
  client.release()
  outbox.wake()
}
