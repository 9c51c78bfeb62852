/**
 * The inventory service: reserves all lines of an order or none, and puts them back when the payment is declined. Stock, the record
 * that the message was handled, and the message that tells of it are one transaction of its database.
 */
import { Outbox, PostgresIdempotencyStore } from '../../lib/index.ts'
import { poolFor, schemaOf } from './database.ts'
import { Order, PaymentDeclined } from './order.ts'
import { RELAY_LEASE_MS, runService } from './service.ts'
import { release, reserve } from './shelves.ts'

await runService('inventory', async ({ surehop, run, names, usual }) => {
  const schema = schemaOf(run, 'inventory')
  const pool = poolFor(schema, 20)
  const outbox = new Outbox({ name: 'inventory', schema, pool })
  const inbox = new PostgresIdempotencyStore({ pool, schema })

  await surehop.relay({ outbox, pool, leaseMs: RELAY_LEASE_MS })
  await surehop.consume(
    names.reserve,
    { ...usual, idempotency: inbox, bind: [{ exchange: names.events, type: 'order.placed' }], schema: Order },
    inbox.transactional({ outbox }, async ({ body }, { client, publish }) => {
      const { id: orderId, lines, totalCents, payment } = body
      const reserved = await reserve(client, orderId, lines)
      await client.query('INSERT INTO effects VALUES ($1, $2)', [orderId, reserved ? 'reserved' : 'rejected'])
      const outcome = reserved
        ? { type: 'stock.reserved', body: { orderId, totalCents, payment } }
        : { type: 'stock.rejected', body: { orderId, reason: 'out of stock' } }
      await publish(names.events, { ...outcome, key: orderId })
    }),
  )

  await surehop.consume(
    names.release,
    {
      ...usual,
      idempotency: inbox,
      bind: [{ exchange: names.events, type: 'payment.declined' }],
      schema: PaymentDeclined,
    },
    inbox.transactional(async ({ body: { orderId } }, { client }) => {
      await release(client, orderId)
      await client.query('INSERT INTO effects VALUES ($1, $2)', [orderId, 'released'])
    }),
  )

  return { close: () => pool.end() }
})
