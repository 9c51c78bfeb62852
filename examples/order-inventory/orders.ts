/** The orders service: places orders, and closes each when its end is known. Its journal says how each order ended. */
import { join } from 'node:path'
import { Desk } from './desk.ts'
import { Journal } from './journal.ts'
import { Outcome } from './order.ts'
import { runService } from './service.ts'

interface Placing {
  readonly file: string
  readonly perSecond: number
  /** Id of the order that comes in another way. */
  readonly except: string
}

await runService('orders', async (shop) => {
  const { surehop, names, diary, folder, usual } = shop
  const journal = new Journal(join(folder, 'journal.ndjson'))
  const ends = ['payment.taken', 'payment.declined', 'stock.rejected']
  await surehop.consume(
    names.close,
    { ...usual, bind: ends.map((type) => ({ exchange: names.events, type })), schema: Outcome },
    ({ messageId, transactionId, type = '', body }, { fencingToken }) => {
      const { repeated } = journal.once(messageId, fencingToken, () => ({
        orderId: body.orderId,
        effect: 'closed',
        by: type,
      }))
      if (repeated) diary.note('recognised', { messageId, transactionId })
    },
  )
  const desk = new Desk(shop)
  return {
    place: ({ file, perSecond, except }: Placing) => desk.place(file, perSecond, except),
    placeAgain: ({ file, except }: Placing) => desk.placeAgain(file, except),
  }
})
