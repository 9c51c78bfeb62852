/**
 * The payments service: charges what was reserved. Its bank can be down for a while (retried with backoff), and its first version does not
 * know every payment method (dead letters, until version two is deployed). Its journal is the list of what was charged.
 */
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { type Effect, Journal } from './journal.ts'
import { StockReserved } from './order.ts'
import { Incurable, runService } from './service.ts'

/** Test card numbers of payment providers end like this when they have no money. */
const NO_FUNDS = '_0002'

class BankUnreachable extends Error {
  override readonly name = 'BankUnreachable'
}

class UnknownPaymentMethod extends Incurable {}

await runService('payments', async ({ surehop, names, diary, folder, settings, usual }) => {
  const journal = new Journal(join(folder, 'journal.ndjson'))
  const [methods = ''] = settings
  const known = new Set(methods.split(','))
  let bankIsUp = true

  await surehop.consume(
    names.charge,
    { ...usual, bind: [{ exchange: names.events, type: 'stock.reserved' }], schema: StockReserved },
    async ({ messageId, transactionId, body }, { fencingToken, publish }) => {
      const { orderId, totalCents, payment } = body
      if (!known.has(payment.method)) throw new UnknownPaymentMethod(`payment method "${payment.method}" is not known`)
      await pause(10)
      if (!bankIsUp) throw new BankUnreachable('the bank does not answer')
      const { entry, repeated } = journal.once(messageId, fencingToken, () =>
        charge(orderId, totalCents, payment.account),
      )
      if (repeated) diary.note('recognised', { messageId, transactionId })
      const outcome =
        entry.effect === 'charged'
          ? { type: 'payment.taken', body: { orderId, amountCents: entry.cents } }
          : { type: 'payment.declined', body: { orderId, reason: 'insufficient funds' } }
      await publish(names.events, { ...outcome, key: orderId }, { name: 'outcome' })
    },
  )

  return {
    bank: (up: boolean) => {
      bankIsUp = up
    },
  }
})

function charge(orderId: string, cents: number, account: string): Effect {
  return account.endsWith(NO_FUNDS) ? { orderId, effect: 'declined' } : { orderId, effect: 'charged', cents }
}
