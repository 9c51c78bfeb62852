// A small run of the fuzzer, with another seed each time; `npm run fuzz` is the long one.

import { expect } from 'chai'
import { campaign, type Result } from './campaign.ts'
import { screens } from './screens.ts'

const MESSAGES = 1_500

describe('whatever anybody sends', () => {
  const seed = Date.now() % 2 ** 31
  let result: Result
  after(() => result?.world.close())

  it('is handled, or dead-lettered with a reason that names the field, and holds nothing up', async function () {
    this.timeout(240_000)
    result = await campaign({ messages: MESSAGES, seed, batch: 400 })
    expect(result.failure, `npm run fuzz -- --messages ${MESSAGES} --seed ${seed}`).to.equal(undefined)
    expect(result.sent).to.be.at.least(MESSAGES)
    expect(result.ends.handled).to.be.above(MESSAGES / 10)
    expect(result.ends.dead).to.be.above(MESSAGES / 10)
  })

  it('is shown by the command without a byte that a terminal obeys', async function () {
    this.timeout(120_000)
    const { offences } = await screens(result.world, 5)
    expect(offences, `--seed ${seed}`).to.deep.equal([])
  })
})
