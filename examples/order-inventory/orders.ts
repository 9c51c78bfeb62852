/**
 * The orders service: places orders through its outbox, and closes each when its end is known, in its own database: every message is
 * handled in one transaction with the record that it was.
 */
import { Outbox, PostgresIdempotencyStore } from '../../lib/index.ts'
import { poolFor, schemaOf } from './database.ts'
import { Desk } from './desk.ts'
import { Order, Outcome } from './order.ts'
import { RELAY_LEASE_MS, runService } from './service.ts'

interface Placing {
  readonly file: string
  readonly perSecond: number
  /** Id of the order that comes in another way. */
  readonly except: string
}

await runService('orders', async ({ surehop, run, names, usual }) => {
  const schema = schemaOf(run, 'orders')
  const pool = poolFor(schema, 20)
  const outbox = new Outbox({ name: 'orders', schema, pool, schemas: { 'order.placed': Order } })
  const inbox = new PostgresIdempotencyStore({ pool, schema })

  await surehop.relay({ outbox, pool, leaseMs: RELAY_LEASE_MS })
  await surehop.consume(
    names.close,
    {
      ...usual,
      idempotency: inbox,
      bind: ['payment.taken', 'payment.declined', 'stock.rejected'].map((type) => ({ exchange: names.events, type })),
      schema: Outcome,
    },
    inbox.transactional(async ({ type, body }, { client }) => {
      await client.query('INSERT INTO endings VALUES ($1, $2)', [body.orderId, type])
    }),
  )

  const desk = new Desk(pool, outbox, names.events)
  return {
    place: ({ file, perSecond, except }: Placing) => desk.place(file, perSecond, except),
    placeAgain: ({ file, except }: Placing) => desk.placeAgain(file, except),
    close: () => pool.end(),
  }
})
