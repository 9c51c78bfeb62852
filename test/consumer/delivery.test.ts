// A delivery tag belongs to its channel: acked elsewhere it would settle another message (amqp-connection-manager #297, #362).

import { expect } from 'chai'
import fc from 'fast-check'
import { Delivery } from '../../lib/consumer/delivery.ts'
import { FakeChannel, rawDelivery } from './fakes.ts'

describe('delivery', () => {
  it('is settled at most once, whatever is asked of it', () => {
    const verb = fc.constantFrom('ack', 'handBack', 'reject')
    fc.assert(
      fc.property(fc.array(verb, { minLength: 1 }), (verbs) => {
        const channel = new FakeChannel()
        const delivery = new Delivery(rawDelivery({ tag: 5 }), channel.epoch())
        const answers = verbs.map((v) => delivery[v as 'ack']())
        expect(answers).to.deep.equal(verbs.map((_, i) => i === 0))
        expect(channel.told).to.have.length(1)
        expect(delivery.stale).to.equal(false)
      }),
    )
  })

  // P1: a late ack after a reconnect must not go to the new channel.
  it('is stale once its channel is lost: later settlements tell no channel anything', () => {
    const [old, fresh] = [new FakeChannel(), new FakeChannel()]
    const delivery = new Delivery(rawDelivery({ tag: 1 }), old.epoch())
    fresh.epoch()
    old.die()
    expect(delivery.stale).to.equal(true)
    expect([delivery.ack(), delivery.handBack(), delivery.reject()]).to.deep.equal([false, false, false])
    expect(delivery.stale).to.equal(true)
    expect([...old.told, ...fresh.told]).to.deep.equal([])
  })

  it('takes a channel that throws for a lost one, before its event comes', () => {
    const channel = new FakeChannel()
    const delivery = new Delivery(rawDelivery(), channel.epoch())
    channel.die({ quietly: true })
    expect(delivery.ack()).to.equal(false)
    expect(delivery.stale).to.equal(true)
    expect(delivery.lost.aborted).to.equal(true)
  })

  it('is not stale when its channel is lost after it was settled', () => {
    const channel = new FakeChannel()
    const delivery = new Delivery(rawDelivery(), channel.epoch())
    expect(delivery.ack()).to.equal(true)
    channel.die()
    expect(delivery.stale).to.equal(false)
  })

  it('tells whoever waits for its channel, with the reason', () => {
    const epoch = new FakeChannel().epoch()
    const delivery = new Delivery(rawDelivery(), epoch)
    const reason = new Error('the consumer is closed')
    epoch.end(reason)
    expect(delivery.lost.reason).to.equal(reason)
  })
})
