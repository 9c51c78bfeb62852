import { expect } from 'chai'
import { DeadlineWatch } from '../../lib/consumer/deadline-watch.ts'
import { VirtualTime } from './virtual-time.ts'

describe('deadline watch', () => {
  const time = new VirtualTime(1)
  before(() => time.install())
  after(() => time.uninstall())

  /** Something watched that notes when it was told. */
  function some(): { readonly told: number[]; readonly late: () => void; beganAt: number } {
    const told: number[] = []
    return { told, beganAt: 0, late: () => void told.push(time.now) }
  }

  const pass = (ms: number) => time.pass(() => false, time.now + ms)

  it('tells each once, as long after its own begin as it may take', async () => {
    const watch = new DeadlineWatch(100)
    const all = []
    for (let i = 0; i < 5; i++) {
      const one = { ...some(), at: time.now }
      all.push(one)
      watch.begin(one)
      await pass(30)
    }
    await pass(1_000)
    for (const { told, at } of all) expect(told).to.deep.equal([at + 100])
  })

  it('does not tell those that ended, and still tells those that did not', async () => {
    const watch = new DeadlineWatch(100)
    const [quick, slow] = [some(), some()]
    const quickly = watch.begin(quick)
    await pass(50)
    watch.begin(slow)
    watch.end(quickly)
    const began = time.now
    await pass(1_000)
    expect(quick.told).to.deep.equal([])
    expect(slow.told).to.deep.equal([began + 100])
  })

  it('watches again after nothing was left to watch', async () => {
    const watch = new DeadlineWatch(100)
    const [first, second] = [some(), some()]
    watch.end(watch.begin(first))
    await pass(60)
    watch.begin(second)
    const began = time.now
    await pass(1_000)
    expect([first.told, second.told]).to.deep.equal([[], [began + 100]])
  })

  it('bears that one ends another, or begins anew, when told', async () => {
    const watch = new DeadlineWatch(100)
    const [other, again] = [some(), some()]
    const late = () => {
      watch.end(otherOne)
      watch.begin(again)
    }
    watch.begin({ beganAt: 0, late })
    const otherOne = watch.begin(other)
    const began = time.now
    await pass(1_000)
    expect([other.told, again.told]).to.deep.equal([[], [began + 200]])
  })
})
