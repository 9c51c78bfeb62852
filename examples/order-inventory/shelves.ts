/** What lies on the shelves, and what is held for which order: plain SQL, in the transaction of whoever calls. */
import type { SqlClient } from '../../lib/index.ts'
import type { OrderLine } from './order.ts'

/** Takes all lines of an order from the shelves, or none; answers whether it did. */
export async function reserve(client: SqlClient, orderId: string, lines: readonly OrderLine[]): Promise<boolean> {
  const wanted = new Map<string, number>()
  for (const { sku, quantity } of lines) wanted.set(sku, (wanted.get(sku) ?? 0) + quantity)
  const shelves = await lock(client, [...wanted.keys()])
  if (![...wanted].every(([sku, pieces]) => (shelves.get(sku) ?? 0) >= pieces)) return false
  await client.query('INSERT INTO reservations SELECT $1, * FROM unnest($2::text[], $3::integer[])', [
    orderId,
    [...wanted.keys()],
    [...wanted.values()],
  ])
  await client.query(`UPDATE stock SET pieces = stock.pieces - held.pieces ${HELD}`, [orderId])
  return true
}

/** Puts back what is held for an order. */
export async function release(client: SqlClient, orderId: string): Promise<void> {
  const { rows } = await client.query('SELECT sku FROM reservations WHERE order_id = $1', [orderId])
  await lock(
    client,
    rows.map((row) => (row as { sku: string }).sku),
  )
  await client.query(`UPDATE stock SET pieces = stock.pieces + held.pieces ${HELD}`, [orderId])
}

const HELD = 'FROM reservations held WHERE held.order_id = $1 AND held.sku = stock.sku'

/** Locks these shelves until the transaction ends; always in one order, so that two orders never wait for each other. */
async function lock(client: SqlClient, skus: string[]): Promise<ReadonlyMap<string, number>> {
  const sql = 'SELECT sku, pieces FROM stock WHERE sku = ANY($1) ORDER BY sku FOR UPDATE'
  const { rows } = await client.query(sql, [skus])
  return new Map((rows as { sku: string; pieces: number }[]).map(({ sku, pieces }) => [sku, pieces]))
}
