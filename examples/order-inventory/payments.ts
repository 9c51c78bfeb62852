/**
 * The payments service: charges what was reserved. Its bank can be down for a while (retried with backoff), and its first version does not
 * know every payment method (dead letters, until version two is deployed). Its data is a file that can hold no outbox row, so
 * `payment.taken` is a half message: stored before the charge, sent after it.
 *
 *     killed before the half message is stored    nothing happened; the broker delivers `stock.reserved` again
 *     killed before the charge                    it is delivered again, and its next run charges in a transaction of its own;
 *                                                 the check finds no charge of the first one, and rolls that back
 *     killed after the charge                     the check finds the charge, and commits; the next run finds it, too, and is done
 *     killed after the commit                     the check-back sends what was not sent
 *
 * A rolled-back transaction stays rolled back, so each run needs one of its own: it is named after the run's fencing token.
 */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { RedisDecisionStore, RedisIdempotencyStore, type WorkContext } from '../../lib/index.ts'
import { Charges } from './charges.ts'
import { StockReserved } from './order.ts'
import { Incurable, needed, runService } from './service.ts'

/** Test card numbers of payment providers end like this when they have no money. */
const NO_FUNDS = '_0002'

class BankUnreachable extends Error {
  override readonly name = 'BankUnreachable'
}

class UnknownPaymentMethod extends Incurable {}

await runService('payments', async ({ surehop, names, folder, settings, usual }) => {
  const charges = new Charges(join(folder, 'charges.ndjson'))
  const bankIsDown = join(folder, 'bank-is-down')
  const [methods = ''] = settings
  const known = new Set(methods.split(','))
  const inbox = new RedisIdempotencyStore({ url: needed('REDIS_URL') })
  const decisions = new RedisDecisionStore(needed('REDIS_URL'))

  const payment = await surehop.transactional(names.payment, {
    decisions,
    check: (transactionId) => charges.settled(transactionId),
    // Short, so that the charge of a killed process is told soon. The default suits production.
    firstCheckMs: 2_000,
  })

  await surehop.consume(
    names.charge,
    {
      ...usual,
      idempotency: inbox,
      bind: [{ exchange: names.events, type: 'stock.reserved' }],
      schema: StockReserved,
    },
    async ({ transactionId, body }, { fencingToken, publish }) => {
      const { orderId, totalCents: cents, payment: by } = body
      if (!known.has(by.method)) throw new UnknownPaymentMethod(`payment method "${by.method}" is not known`)
      if (by.account.endsWith(NO_FUNDS)) {
        const declined = { type: 'payment.declined', key: orderId, body: { orderId, reason: 'insufficient funds' } }
        return publish(names.events, declined)
      }
      // Charged by a run that died; that one's message is sent by check-back.
      if (charges.of(orderId)) return
      const taken = {
        exchange: names.events,
        type: 'payment.taken',
        key: orderId,
        transactionId,
        body: { orderId, amountCents: cents },
      }
      const charge = async (id: string, { rollback }: WorkContext) => {
        await pause(10)
        // Surely nothing was charged: nobody needs to be asked.
        if (existsSync(bankIsDown)) {
          rollback()
          throw new BankUnreachable('the bank does not answer')
        }
        charges.add({ orderId, cents, transactionId: id })
        // The bank's answer is on its way.
        await pause(20)
      }
      await payment.run([taken], charge, { transactionId: `${transactionId}:${fencingToken}` })
    },
  )

  return { close: () => Promise.all([inbox.close(), decisions.close()]) }
})
