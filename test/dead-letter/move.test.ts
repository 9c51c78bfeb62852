// What a letter's move may do in which order. That nothing is lost on a real broker is in `moving.test.ts` and `crashing.test.ts`.

import { expect } from 'chai'
import { type MoveParts, move } from '../../lib/dead-letter/move.ts'
import { rawDelivery } from '../consumer/fakes.ts'
import { latch } from '../support/eventually.ts'

/** One letter to be moved, whose copy is confirmed on command. */
function oneLetter() {
  const log: string[] = []
  const confirm = latch()
  const published = latch()
  const raw = rawDelivery()
  const taken = { raw, ack: () => log.push('acked') > 0 }
  const pages = [[{ taken, letter: { bodyBytes: 1 } }]]
  const parts = {
    reader: { given: 1 },
    take: async () => pages.shift() ?? [],
    publisher: {
      publish: async () => {
        published.resolve()
        await confirm.promise
        log.push('confirmed')
      },
    },
    copyOf: () => ({}),
    moved: () => log.push('told'),
  }
  return { parts: parts as unknown as MoveParts, log, confirm, published }
}

describe('the move of a letter', () => {
  it('acks a letter when its copy is confirmed, and not before', async () => {
    const { parts, log, confirm, published } = oneLetter()
    const moving = move(parts, {})
    await published.promise
    await new Promise((resolve) => setImmediate(resolve))
    expect(log).to.deep.equal([])
    confirm.resolve()
    expect(await moving).to.include({ moved: 1, stopped: 'done' })
    expect(log).to.deep.equal(['confirmed', 'acked', 'told'])
  })

  it('keeps a letter whose copy is not taken, and says so', async () => {
    const { parts, log, confirm } = oneLetter()
    confirm.reject(new Error('no queue took it'))
    const { moved, stopped, error } = await move(parts, {})
    expect([moved, stopped, error?.message]).to.deep.equal([0, 'unreachable', 'no queue took it'])
    expect(log).to.deep.equal([])
  })
})
