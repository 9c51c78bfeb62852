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

/** Every third says three things, every fifth is taken back, every second has a key. */
async function transaction(n: number, { pool, outbox, place }: Around): Promise<void> {
  const id = `w${v7()}`
  const size = n % 3 === 2 ? 3 : 1
  const key = n % 2 === 0 ? { key: `key-${n % 8}` } : {}
  const messages = Array.from({ length: size }, (_, i) => ({
    exchange: place.events,
    type: 'order.placed',
    messageId: `${id}.${i}`,
    body: { order: id },
    ...key,
  }))
  const client = await pool.connect()
  await client.query('BEGIN')
  await client.query('INSERT INTO orders (id, messages) VALUES ($1, $2)', [id, size])
  await outbox.add(messages, client)
  await client.query(n % 5 === 4 ? 'ROLLBACK' : 'COMMIT')
  client.release()
  outbox.wake()
}
