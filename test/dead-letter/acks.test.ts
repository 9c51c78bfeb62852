import { expect } from 'chai'
import fc from 'fast-check'
import { Acks } from '../../lib/dead-letter/acks.ts'

describe('dead letters: acks of one channel', () => {
  it('acks what was settled, each once, and nothing else, in whatever order', () => {
    const orders = fc.uniqueArray(fc.integer({ min: 1, max: 30 }), { maxLength: 30 })
    fc.assert(
      fc.property(orders, fc.array(fc.boolean(), { minLength: 30, maxLength: 30 }), (tags, flushes) => {
        const held = new Set(Array.from({ length: 30 }, (_, i) => i + 1))
        const acks = new Acks(
          (tag, multiple) => {
            expect(held.has(tag), `tag ${tag} is acked once`).to.equal(true)
            for (const one of [...held]) if (one === tag || (multiple && one < tag)) held.delete(one)
          },
          () => {},
        )
        for (const [i, tag] of tags.entries()) {
          acks.settle(tag)
          if (flushes[i]) acks.flush()
        }
        acks.flush()
        const left = Array.from({ length: 30 }, (_, i) => i + 1).filter((tag) => !tags.includes(tag))
        expect([...held]).to.deep.equal(left)
      }),
    )
  })

  it('sends one ack for many without a gap', () => {
    const sent: [number, boolean][] = []
    const acks = new Acks(
      (...ack) => sent.push(ack),
      () => {},
    )
    for (const tag of [2, 1, 3, 5]) acks.settle(tag)
    acks.flush()
    acks.settle(4)
    acks.settle(6)
    acks.flush()
    expect(sent).to.deep.equal([
      [3, true],
      [5, false],
      [6, true],
    ])
  })
})
