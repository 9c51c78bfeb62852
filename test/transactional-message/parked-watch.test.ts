// The watch over parked half messages, when what it sends has no answer.

import { expect } from 'chai'
import type { Encoded } from '../../lib/producer/encode.ts'
import { ParkedWatch, type ParkedWatchParts } from '../../lib/transactional-message/parked-watch.ts'
import { latch, within } from '../support/eventually.ts'
import { bench, closeAll, event, lentBroker, messageTo, nothingWaits } from './setup.ts'

describe('a parked half message that was decided after all', () => {
  afterEach(closeAll)

  it('stays parked until the check queue has confirmed its copy', async () => {
    const { name, work, payments } = await bench({ checks: 1 })
    const parked = event('transaction.parked', (data) => data.name === name)
    const { transactionId } = await payments.prepare([messageTo(work)])
    await parked
    await nothingWaits(name, 1)

    const { connection } = await lentBroker()
    const [again, confirm] = [latch(), latch()]
    const sent: Encoded[] = []
    const publish = async (copy: Encoded) => {
      if (sent.push(copy) === 1) throw new Error('no answer')
      again.resolve()
      await confirm.promise
    }
    const ledger = {
      scope: { name },
      look: async (ids: readonly string[]) => ids.map(() => ({ decision: 'committed' })),
    }
    const parts = { connection, publisher: { publish }, ledger, everyMs: 50 }
    const watch = new ParkedWatch(parts as unknown as ParkedWatchParts)
    watch.start()
    await within(again.promise, { what: 'the second try' })
    expect(sent.map((copy) => copy.transactionId)).to.deep.equal([transactionId, transactionId])
    confirm.resolve()
    await nothingWaits(name)
    await watch.close()
  })
})
