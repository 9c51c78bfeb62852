/** Delayed messages whose queue was gone when their delay ended. */
import { expect } from 'chai'
import { type Message, workQueueTopology } from '../../lib/index.ts'
import { eventually, latch } from '../support/eventually.ts'
import { unique } from '../support/unique.ts'
import { Bench } from './support.ts'

describe('what could not be delivered after a delay', () => {
  let bench: Bench

  before(async () => {
    bench = await Bench.open('undeliverable')
    await bench.surehop.declare(workQueueTopology(bench.queue))
  })
  after(() => bench.close())

  it('is shown by its own name, says where it was to go, and is sent there again', async () => {
    const producer = bench.surehop.producer()
    const messageId = unique('late')
    await producer.send(bench.queue, { body: 0, delayMs: 100 })
    await bench.channel.deleteQueue(bench.queue)
    await producer.send(bench.queue, { body: { late: true }, messageId, delayMs: 100 })

    const letters = bench.surehop.deadLetters('surehop.undeliverable')
    await eventually(async () => {
      const [shown] = await letters.show(messageId)
      expect(shown).to.include({ reason: 'undeliverable', by: 'broker', queue: bench.queue })
    })

    const got = latch<Message>()
    await bench.consume((message) => got.resolve(message), { identity: 'reject' })
    const { replayed } = await letters.replay({ ids: [messageId] })
    expect(replayed).to.equal(1)
    expect(await got.promise).to.deep.include({ messageId, body: { late: true } })
  })
})
