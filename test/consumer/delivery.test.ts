// A delivery tag belongs to its channel: acked elsewhere it would settle another message (amqp-connection-manager #297, #362).

import { expect } from 'chai'
import fc from 'fast-check'
import { Delivery } from '../../lib/consumer/delivery.ts'
import { FakeChannel, rawDelivery } from './fakes.ts'

describe('delivery', () => {
  it('is settled at most once, whatever is asked of it', async () => {
    const verb = fc.constantFrom('ack', 'handBack', 'reject')
    await fc.assert(
      fc.asyncProperty(fc.array(verb, { minLength: 1 }), async (verbs) => {
        const channel = new FakeChannel()
        const delivery = new Delivery(rawDelivery({ tag: 5 }), channel.epoch())
        const answers = verbs.map((v) => delivery[v as 'ack']())
        await undefined
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
    expect(delivery.handBack()).to.equal(false)
    expect(delivery.stale).to.equal(true)
    expect(delivery.lost.aborted).to.equal(true)
  })

  it('finds a channel lost when its acks go out, before its event comes', async () => {
    const channel = new FakeChannel()
    const epoch = channel.epoch()
    const [first, second] = [1, 2].map((tag) => new Delivery(rawDelivery({ tag }), epoch))
    channel.die({ quietly: true })
    first!.ack()
    await undefined
    expect(first!.lost.aborted).to.equal(true)
    expect([second!.stale, second!.ack()]).to.deep.equal([true, false])
  })

  it('acks what ended together in one go, and never a delivery that has not ended', async () => {
    const steps = fc.array(fc.record({ at: fc.nat(), verb: fc.constantFrom('ack', 'ack', 'ack', 'handBack', 'pause') }))
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 12 }), steps, async (count, plan) => {
        const channel = new FakeChannel()
        const epoch = channel.epoch()
        const open = Array.from({ length: count }, (_, i) => i + 1)
        const deliveries = open.map((tag) => new Delivery(rawDelivery({ tag }), epoch))
        const expected = new Map(open.map((tag) => [tag, 'unacked']))
        for (const { at, verb } of plan) {
          if (verb === 'pause') await undefined
          else if (open.length > 0) {
            const [tag] = open.splice(at % open.length, 1)
            expect(deliveries[tag! - 1]![verb as 'ack']()).to.equal(true)
            expected.set(tag!, verb)
          }
        }
        await undefined
        expect(heard(channel.told, count)).to.deep.equal(expected)
      }),
    )
  })

  it('sends the acks it was given before its channel is given up', () => {
    const channel = new FakeChannel()
    const epoch = channel.epoch()
    new Delivery(rawDelivery({ tag: 1 }), epoch).ack()
    epoch.end(new Error('the consumer is closed'))
    expect(channel.told).to.deep.equal(['ack up to 1'])
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

/** What a broker makes of it; settling a tag twice closes the channel. */
function heard(told: readonly string[], count: number): Map<number, string> {
  const held = new Map(Array.from({ length: count }, (_, i) => [i + 1, 'unacked']))
  const settle = (tag: number, verb: string) => {
    if (held.get(tag) !== 'unacked') throw new Error(`${verb} ${tag}: unknown delivery tag`)
    held.set(tag, verb)
  }
  for (const words of told) {
    const tag = Number(/\d+/.exec(words)?.[0])
    if (words.startsWith('ack up to'))
      for (const [lower, state] of held) if (lower < tag && state === 'unacked') held.set(lower, 'ack')
    settle(tag, words.startsWith('ack') ? 'ack' : 'handBack')
  }
  return held
}
