// Publishes that share a signal: one listener for all, which is gone with the last of them.

import { getEventListeners } from 'node:events'
import { expect } from 'chai'
import { type AbortGroup, Aborts } from '../../lib/producer/aborts.ts'
import { Pending } from '../../lib/producer/pending.ts'

class Publish extends Pending {
  abortGroup: AbortGroup | undefined = undefined
  settle(): void {}
}

function publish(): Publish {
  const wire = { exchange: '', routingKey: '', content: Buffer.alloc(0), properties: { messageId: 'a', headers: {} } }
  const message = { ...wire, messageId: 'a', transactionId: 'a' }
  return new Publish({ message, mandatory: true, startedAt: 0, deadlineAt: 1 })
}

describe('publishes with a signal', () => {
  const listeners = ({ signal }: AbortController) => getEventListeners(signal, 'abort').length
  let ended: (readonly [readonly Pending[], unknown])[]
  let aborts: Aborts

  beforeEach(() => {
    ended = []
    aborts = new Aborts((publishes, reason) => {
      ended.push([publishes, reason])
      for (const one of publishes) aborts.leave(one as Publish)
    })
  })

  it('end together when it fires, with its reason, those that are still open', () => {
    const [one, other] = [new AbortController(), new AbortController()]
    const [first, second, third, foreign] = [publish(), publish(), publish(), publish()]
    for (const of of [first, second, third]) aborts.add(of, one.signal)
    aborts.add(foreign, other.signal)
    aborts.leave(second)
    one.abort('enough')
    expect(ended).to.deep.equal([[[first, third], 'enough']])
    expect([listeners(one), listeners(other)]).to.deep.equal([0, 1])
  })

  it('have one listener, which the last of them takes along, as often as there is a last', () => {
    const controller = new AbortController()
    for (let round = 0; round < 2; round++) {
      const publishes = Array.from({ length: 50 }, publish)
      for (const one of publishes) aborts.add(one, controller.signal)
      expect(listeners(controller)).to.equal(1)
      for (const one of publishes) aborts.leave(one)
      expect(listeners(controller)).to.equal(0)
    }
    controller.abort()
    expect(ended).to.deep.equal([])
  })

  it('may leave twice, or without a signal', () => {
    const controller = new AbortController()
    const [one, other, without] = [publish(), publish(), publish()]
    aborts.add(one, controller.signal)
    aborts.add(other, controller.signal)
    for (const of of [one, one, without]) aborts.leave(of)
    expect(listeners(controller)).to.equal(1)
  })
})
