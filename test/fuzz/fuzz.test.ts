// A small run of the fuzzer, with another seed each time; `npm run fuzz` is the long one.

import { expect } from 'chai'
import { campaign, type Result } from './campaign.ts'
import { moves } from './moves.ts'
import { screens } from './screens.ts'

const MESSAGES = 500

describe('whatever anybody sends', () => {
  const seed = Date.now() % 2 ** 31
  let result: Result
  after(() => result?.world.close())

  it('is handled, or dead-lettered with a reason that names the field, and holds nothing up', async function () {
    this.timeout(240_000)
    result = await campaign({ messages: MESSAGES, seed, batch: 250 })
    expect(result.failure, `npm run fuzz -- --messages ${MESSAGES} --seed ${seed}`).to.equal(undefined)
    expect(result.sent).to.be.at.least(MESSAGES)
    expect(result.ends.handled).to.be.above(MESSAGES / 10)
    expect(result.ends.dead).to.be.above(MESSAGES / 10)
  })

  it('comes through restoring, export and import, an edit and a replay as it was', async function () {
    this.timeout(240_000)
    const { wrong } = await moves(result.world, 10)
    expect(wrong, `--seed ${seed}`).to.deep.equal([])
  })

  it('is shown by the command without a byte that a terminal obeys', async function () {
    this.timeout(120_000)
    const { offences } = await screens(result.world, 1)
    expect(offences, `--seed ${seed}`).to.deep.equal([])
  })
})
