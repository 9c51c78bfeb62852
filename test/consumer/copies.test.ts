// Copies of one message that a consumer has in its hands at the same time.

import { expect } from 'chai'
import { latch } from '../support/eventually.ts'
import { uniqueQueue } from '../support/unique.ts'
import { closeAll, connected, event, inbox, nothingLeft, sendRaw, Tally } from './setup.ts'

describe('copies of one message', () => {
  afterEach(closeAll)

  // The store would grant the second to the same owner anew: it takes the first for a run that never ended.
  it('are never run side by side in one process, though orderBy gives them different keys', async () => {
    const queue = uniqueQueue()
    const gate = latch()
    const runs = new Tally<number>()
    const surehop = await connected()
    const of = {
      orderBy: ({ headers }: { headers: object }) => String(Object.entries(headers).find(([name]) => name === 'lane')),
    }
    await surehop.consume(queue, { idempotency: inbox(), concurrency: 2, ...of }, async () => {
      runs.add(1)
      await gate.promise
    })
    const putOff = event('message.put-off', (data) => data.queue === queue)
    const dropped = event('message.duplicate', (data) => data.queue === queue)
    for (const lane of ['a', 'b'])
      await sendRaw(queue, '{}', { messageId: queue, headers: { lane }, contentType: 'application/json' })
    const beside = runs.reaches(2).then(() => expect.fail('it ran beside itself'))
    await Promise.race([putOff, beside])
    gate.resolve()
    expect((await Promise.race([dropped, beside])).why).to.equal('completed')
    expect(runs.seen).to.deep.equal([1])
    await nothingLeft(queue)
  })

  it('hold up nobody else: no id that a publisher chooses is the key of a message without one', async () => {
    const queue = uniqueQueue()
    const gate = latch()
    const runs = new Tally<string>()
    const of = { idempotency: inbox(), identity: 'unguarded', concurrency: 4 } as const
    await (await connected()).consume(queue, of, async ({ messageId }) => {
      runs.add(messageId)
      await gate.promise
    })
    for (const messageId of ['\n0', '\n1', '0']) await sendRaw(queue, '{}', { messageId })
    await sendRaw(queue, '{}')
    await runs.reaches(4)
    gate.resolve()
    await nothingLeft(queue)
  })
})
