import { expect } from 'chai'
import { deferred } from '../../lib/deadline.ts'
import { TimeLimit } from './time-limit.ts'

describe("the time limit of the lab's short run", () => {
  it('gives back what was done in time, and does not wait for what was not', async () => {
    const limit = new TimeLimit(performance.now() + 50)
    expect(await limit.atMost(Promise.resolve('done'))).to.equal('done')
    expect(await limit.atMost(deferred<string>().promise)).to.equal(undefined)
    expect(limit.hasTime()).to.equal(false)
  })

  it('has no time for a row when less is left than the shortest before took', async () => {
    const limit = new TimeLimit(performance.now() + 1_000)
    expect(limit.hasTime()).to.equal(true)
    await limit.atMost(new Promise((resolve) => setTimeout(resolve, 600)))
    expect(limit.hasTime()).to.equal(false)
  })

  it('has more time for the first rows, without which a run proves nothing', async () => {
    const now = performance.now()
    const limit = new TimeLimit(now - 1, { rows: 2, until: now + 60_000 })
    for (let row = 0; row < 2; row++) {
      expect(limit.hasTime()).to.equal(true)
      expect(await limit.atMost(Promise.resolve('done'))).to.equal('done')
    }
    expect(limit.hasTime()).to.equal(false)
  })

  it('waits for all where there is none', async () => {
    const limit = new TimeLimit(Number.POSITIVE_INFINITY)
    expect(limit.hasTime()).to.equal(true)
    expect(await limit.atMost(Promise.resolve('done'))).to.equal('done')
  })
})
