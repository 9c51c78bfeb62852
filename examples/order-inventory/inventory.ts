/**
 * The inventory service: reserves all lines of an order or none, and puts them back when the payment is declined. It is the one that
 * gets killed; its journal holds what it did, so that an effect done just before a kill is recognised by the next run.
 */
import { join } from 'node:path'
import type { Context, Message } from '../../lib/index.ts'
import { type Effect, type Entry, Journal } from './journal.ts'
import { Order, PaymentDeclined } from './order.ts'
import { runService } from './service.ts'
import { Shelves } from './shelves.ts'

await runService('inventory', async ({ surehop, names, diary, folder, usual }) => {
  const shelves = new Shelves(join(folder, 'stock.json'))
  const journal = new Journal(join(folder, 'journal.ndjson'), (entry) => shelves.apply(entry))

  const once = (message: Message<unknown>, context: Context, decide: () => Effect): Entry => {
    const { entry, repeated } = journal.once(message.messageId, context.fencingToken, decide)
    if (repeated) diary.note('recognised', message)
    return entry
  }

  await surehop.consume(
    names.reserve,
    { ...usual, bind: [{ exchange: names.events, type: 'order.placed' }], schema: Order },
    async (message, context) => {
      const { id: orderId, lines, totalCents, payment } = message.body
      const entry = once(message, context, () =>
        shelves.has(lines) ? { orderId, effect: 'reserved', lines } : { orderId, effect: 'rejected' },
      )
      const outcome =
        entry.effect === 'reserved'
          ? { type: 'stock.reserved', body: { orderId, totalCents, payment } }
          : { type: 'stock.rejected', body: { orderId, reason: 'out of stock' } }
      await context.publish(names.events, { ...outcome, key: orderId }, { name: 'outcome' })
    },
  )

  await surehop.consume(
    names.release,
    { ...usual, bind: [{ exchange: names.events, type: 'payment.declined' }], schema: PaymentDeclined },
    (message, context) => {
      const { orderId } = message.body
      once(message, context, () => ({ orderId, effect: 'released', lines: shelves.heldBy(orderId) }))
    },
  )

  return { count: () => shelves.count() }
})
