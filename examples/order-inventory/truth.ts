/**
 * What was done, read where it stands: in the tables of orders and inventory, and in the file of payments. Nothing else counts for
 * the books, neither what a service says nor what the library tells.
 */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Pool } from 'pg'
import type { Charge } from './charges.ts'
import { poolFor, schemaOf } from './database.ts'
import { wholeLines } from './lines.ts'

/** One row of a table of effects, or one line of the file. */
export interface Entry {
  readonly orderId: string
  readonly effect: 'reserved' | 'rejected' | 'released' | 'charged' | 'closed'
  /** What was charged. */
  readonly cents?: number
  /** How an order was closed: the type of the message that closed it. */
  readonly by?: string
}

export class Truth {
  readonly #pool: Pool
  readonly #orders: string
  readonly #inventory: string
  readonly #charges: string

  constructor(run: string, folder: string) {
    this.#pool = poolFor('public', 2)
    this.#orders = schemaOf(run, 'orders')
    this.#inventory = schemaOf(run, 'inventory')
    this.#charges = join(folder, 'payments', 'charges.ndjson')
  }

  /** Everything that was done so far, as often as it was done. */
  async effects(): Promise<readonly Entry[]> {
    const { rows } = await this.#pool.query<Entry>(
      `SELECT order_id AS "orderId", effect, NULL AS by FROM ${this.#inventory}.effects
       UNION ALL SELECT order_id, 'closed', how FROM ${this.#orders}.endings`,
    )
    const charges = wholeLines<Charge>(await readFile(this.#charges).catch(() => Buffer.alloc(0))).values
    return [...rows, ...charges.map(({ orderId, cents }): Entry => ({ orderId, effect: 'charged', cents }))]
  }

  /** How many orders were placed through the outbox, and how many messages were written to it once more. */
  async placed(): Promise<{ readonly orders: number; readonly copies: number }> {
    const { rows } = await this.#pool.query<{ orders: number; copies: number }>(
      `SELECT (SELECT count(*) FROM ${this.#orders}.orders)::integer AS orders,
              (SELECT count(*) FROM ${this.#orders}.copies)::integer AS copies`,
    )
    return rows[0]!
  }

  /** What lies on the shelves. */
  async stock(): Promise<ReadonlyMap<string, number>> {
    const { rows } = await this.#pool.query<{ sku: string; pieces: number }>(
      `SELECT sku, pieces FROM ${this.#inventory}.stock`,
    )
    return new Map(rows.map(({ sku, pieces }) => [sku, pieces]))
  }

  async close(): Promise<void> {
    await this.#pool.end()
  }
}
