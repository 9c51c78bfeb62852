/** The words of the shop: an order, and the events the services tell each other. Schemas are zod's; any Standard Schema would do. */
import { z } from 'zod'

const Id = z.string().min(1).max(64)
const Cents = z.int().min(0).max(100_000_000)

const Line = z.object({
  sku: Id,
  name: z.string().max(200).optional(),
  quantity: z.int().min(1).max(1_000),
  unitPriceCents: Cents,
})

const Payment = z.object({ method: Id, account: z.string().min(1).max(100) })

/** One line of the order file, and the body of `order.placed`. */
export const Order = z
  .object({
    id: Id,
    placedAt: z.iso.datetime(),
    channel: Id,
    customer: z.object({ name: z.string().min(1).max(200), city: z.string().min(1).max(200) }),
    lines: z.array(Line).min(1).max(100),
    totalCents: Cents,
    payment: Payment,
  })
  .superRefine((order, context) => {
    const sum = totalOf(order.lines)
    if (sum !== order.totalCents)
      context.addIssue({
        code: 'custom',
        path: ['totalCents'],
        message: `expected the sum of the lines, ${sum}, got ${order.totalCents}`,
      })
  })

export type Order = z.infer<typeof Order>
export type OrderLine = z.infer<typeof Line>

export const StockReserved = z.object({ orderId: Id, totalCents: Cents, payment: Payment })
export const PaymentDeclined = z.object({ orderId: Id, reason: z.string() })
/** The body of `payment.taken`, `payment.declined` and `stock.rejected`, as far as the orders service cares. */
export const Outcome = z.object({ orderId: Id, reason: z.string().optional() })

/** What an order costs, in cents. */
export function totalOf(lines: readonly Pick<OrderLine, 'quantity' | 'unitPriceCents'>[]): number {
  return lines.reduce((sum, line) => sum + line.quantity * line.unitPriceCents, 0)
}

/** The message id of an order's `order.placed`: chosen by us, so that publishing it again can never place it twice. */
export function placedId(orderId: string): string {
  return `order-placed:${orderId}`
}

/** Exchange, queues and half messages of one run of the demo, so that two runs can share a broker. */
export function namesOf(run: string) {
  return {
    events: `${run}.events`,
    reserve: `${run}.inventory.reserve`,
    release: `${run}.inventory.release`,
    charge: `${run}.payments.charge`,
    close: `${run}.orders.close`,
    /** Of the half messages. */
    payment: `${run}.payments`,
  }
}

export type Names = ReturnType<typeof namesOf>
