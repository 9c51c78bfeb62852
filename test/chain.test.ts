import { expect } from 'chai'
import fc from 'fast-check'
import { Chain, type Link } from '../lib/chain.ts'

describe('chain', () => {
  it('keeps the order of coming, whoever leaves when: as a Set does', () => {
    fc.assert(
      fc.property(fc.array(fc.option(fc.nat(20), { freq: 1 })), (steps) => {
        const chain = new Chain<number>()
        const model = new Set<number>()
        const links: Link<number>[] = []
        for (const [n, leaves] of steps.entries()) {
          if (leaves === null) {
            links.push(chain.add(n))
            model.add(n)
          } else {
            const link = links[leaves % Math.max(1, links.length)]
            if (link) expect(chain.remove(link)).to.equal(model.delete(link.item))
          }
          expect(chain.items).to.deep.equal([...model])
          expect(chain.first?.item).to.equal([...model][0])
        }
      }),
    )
  })

  it('cuts the links of what left, so that it keeps nothing alive', () => {
    const chain = new Chain<string>()
    const [first, second] = [chain.add('a'), chain.add('b')]
    chain.remove(first)
    expect([first.before, first.after, second.before]).to.deep.equal([undefined, undefined, undefined])
  })
})
