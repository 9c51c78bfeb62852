// A small run of the fuzzer, with another seed each time; `npm run fuzz` is the long one.

import { expect } from 'chai'
import fc from 'fast-check'
import { campaign, HALVES, MESSAGES, type Result, ROWS } from './campaign.ts'
import { moves } from './moves.ts'
import type { OutboxWorld } from './outbox.ts'
import { moreScreens, screens } from './screens.ts'
import type { TransactionsWorld } from './transactions.ts'
import type { World } from './world.ts'

/** Of this run, unless one is set for all random tests. */
const seed = fc.readConfigureGlobal().seed ?? Date.now() % 2 ** 31
const COUNT = 500
const FEWER = 120
/** Of what is wrong. */
const SHOWN = 10

/** chai would show forty characters of it. */
function nothing(wrong: readonly string[] | string | undefined, again: string): void {
  const texts = [wrong ?? []].flat()
  if (texts.length > 0) expect.fail(`${again}: ${texts.length} wrong\n${texts.slice(0, SHOWN).join('\n')}`)
}

describe('whatever anybody sends', () => {
  let result: Result<World>
  after(() => result?.world.close())

  it('is handled, or dead-lettered with a reason that names the field, and holds nothing up', async function () {
    this.timeout(240_000)
    result = await campaign(MESSAGES, { messages: COUNT, seed, batch: 250 })
    nothing(result.failure, `npm run fuzz -- --messages ${COUNT} --seed ${seed}`)
    expect(result.sent).to.be.at.least(COUNT)
    expect(result.ends['handled']).to.be.above(COUNT / 10)
    expect(result.ends['dead']).to.be.above(COUNT / 10)
  })

  it('comes through restoring, export and import, an edit and a replay as it was', async function () {
    this.timeout(240_000)
    const { wrong } = await moves(result.world, 10)
    nothing(wrong, `--seed ${seed}`)
  })

  it('is shown by the command without a byte that a terminal obeys', async function () {
    this.timeout(120_000)
    const { offences } = await screens(result.world)
    nothing(offences, `--seed ${seed}`)
  })
})

describe('whatever anybody writes into the outbox, or puts into the queues of half messages', () => {
  const small = { messages: FEWER, seed, batch: FEWER }
  let rows: Result<OutboxWorld>
  let halves: Result<TransactionsWorld>
  after(() => Promise.all([rows?.world.close(), halves?.world.close()]))

  it('is sent, or parked with a reason that names the field, and stops no row of others', async function () {
    this.timeout(240_000)
    rows = await campaign(ROWS, small)
    nothing(rows.failure, `--seed ${seed}`)
    expect(rows.ends['sent']).to.be.above(FEWER / 10)
    expect(rows.ends['parked']).to.be.above(FEWER / 10)
    nothing(await rows.world.moves(), `--seed ${seed}`)
  })

  it('is published, rolled back or parked, and disturbs no transaction of others', async function () {
    this.timeout(240_000)
    halves = await campaign(HALVES, small)
    nothing(halves.failure, `--seed ${seed}`)
    expect(halves.ends['published']).to.be.above(FEWER / 20)
    expect(halves.ends['parked']).to.be.above(0)
    nothing(await halves.world.moves(), `--seed ${seed}`)
  })

  it('is shown by the command without a byte that a terminal obeys', async function () {
    this.timeout(120_000)
    await rows.world.leave(FEWER, seed)
    await halves.world.leave(FEWER, seed)
    const { offences } = await moreScreens(rows.world, halves.world, 2)
    nothing(offences, `--seed ${seed}`)
  })
})
