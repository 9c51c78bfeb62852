/**
 * Takes the orders of a file: each is a row and its `order.placed` in the outbox, in one transaction, so that there is no order
 * without its message and no message without its order. Now and then a message is written twice, as nervous publishers do.
 */
import { setTimeout as pause } from 'node:timers/promises'
import type { Pool } from 'pg'
import type { Outbox, OutboxMessage } from '../../lib/index.ts'
import { type Order, placedId } from './order.ts'
import { readOrders } from './orders-file.ts'

/** Every so many orders one is sent twice at once, a double click. */
const DOUBLE_EVERY = 12
/** And every so many once more when all is over, as a restarted upstream system does. */
const LATE_EVERY = 40
const BATCH_MS = 100

export class Desk {
  readonly #pool: Pool
  readonly #outbox: Outbox
  /** The exchange. */
  readonly #events: string

  constructor(pool: Pool, outbox: Outbox, events: string) {
    this.#pool = pool
    this.#outbox = outbox
    this.#events = events
  }

  /** All orders of the file but one, so many per second; after a crash those that are not there yet. Resolves when all are placed. */
  async place(file: string, perSecond: number, except: string): Promise<void> {
    const { rows } = await this.#pool.query<{ id: string }>('SELECT id FROM orders')
    const done = new Set(rows.map(({ id }) => id))
    const numbered = [...(await readOrders(file)).values()].map((order, n) => ({ order, n }))
    const left = numbered.filter(({ order: { id } }) => id !== except && !done.has(id))
    const size = Math.max(1, Math.round((perSecond * BATCH_MS) / 1_000))
    for (let at = 0; at < left.length; at += size) {
      const turn = pause(BATCH_MS)
      const nervous = (n: number) => n % DOUBLE_EVERY === DOUBLE_EVERY - 1
      await Promise.all(left.slice(at, at + size).map(({ order, n }) => this.#place(order, nervous(n))))
      await turn
    }
  }

  /** The messages of some of them once more. */
  async placeAgain(file: string, except: string): Promise<void> {
    const orders = [...(await readOrders(file)).values()].filter(({ id }, n) => n % LATE_EVERY === 0 && id !== except)
    for (const order of orders)
      await this.#outbox.transaction(async (client) => {
        await this.#outbox.add(this.#placed(order), client)
        await client.query('INSERT INTO copies VALUES ($1)', [order.id])
      })
  }

  async #place(order: Order, twice: boolean): Promise<void> {
    await this.#outbox.transaction(async (client) => {
      const { id, totalCents } = order
      // A process that was killed may have a commit on its way: whoever comes second waits here, and finds the order placed.
      const insert = 'INSERT INTO orders VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING id'
      const { rows } = await client.query(insert, [id, totalCents])
      if (rows.length === 0) return
      await this.#outbox.add(this.#placed(order), client)
      if (!twice) return
      await this.#outbox.add(this.#placed(order), client)
      await client.query('INSERT INTO copies VALUES ($1)', [id])
    })
  }

  #placed(order: Order): OutboxMessage<Order> {
    const ids = { messageId: placedId(order.id), transactionId: order.id }
    return { exchange: this.#events, type: 'order.placed', key: order.id, ...ids, body: order }
  }
}
