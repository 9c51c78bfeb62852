// A small run of the fuzzer, with another seed each time; `npm run fuzz` is the long one.

import { expect } from 'chai'
import { campaign, HALVES, MESSAGES, type Result, ROWS } from './campaign.ts'
import { moves } from './moves.ts'
import type { OutboxWorld } from './outbox.ts'
import { moreScreens, screens } from './screens.ts'
import type { TransactionsWorld } from './transactions.ts'
import type { World } from './world.ts'

const COUNT = 500
const FEWER = 120

describe('whatever anybody sends', () => {
  const seed = Date.now() % 2 ** 31
  let result: Result<World>
  after(() => result?.world.close())

  it('is handled, or dead-lettered with a reason that names the field, and holds nothing up', async function () {
    this.timeout(240_000)
    result = await campaign(MESSAGES, { messages: COUNT, seed, batch: 250 })
    expect(result.failure, `npm run fuzz -- --messages ${COUNT} --seed ${seed}`).to.equal(undefined)
    expect(result.sent).to.be.at.least(COUNT)
    expect(result.ends['handled']).to.be.above(COUNT / 10)
    expect(result.ends['dead']).to.be.above(COUNT / 10)
  })

  it('comes through restoring, export and import, an edit and a replay as it was', async function () {
    this.timeout(240_000)
    const { wrong } = await moves(result.world, 10)
    expect(wrong, `--seed ${seed}`).to.deep.equal([])
  })

  it('is shown by the command without a byte that a terminal obeys', async function () {
    this.timeout(120_000)
    const { offences } = await screens(result.world)
    expect(offences, `--seed ${seed}`).to.deep.equal([])
  })
})

describe('whatever anybody writes into the outbox, or puts into the queues of half messages', () => {
  const seed = Date.now() % 2 ** 31
  const small = { messages: FEWER, seed, batch: FEWER }
  let rows: Result<OutboxWorld>
  let halves: Result<TransactionsWorld>
  after(() => Promise.all([rows?.world.close(), halves?.world.close()]))

  it('is sent, or parked with a reason that names the field, and stops no row of others', async function () {
    this.timeout(240_000)
    rows = await campaign(ROWS, small)
    expect(rows.failure, `--seed ${seed}`).to.equal(undefined)
    expect(rows.ends['sent']).to.be.above(FEWER / 10)
    expect(rows.ends['parked']).to.be.above(FEWER / 10)
    expect(await rows.world.moves(), `--seed ${seed}`).to.deep.equal([])
  })

  it('is published, rolled back or parked, and disturbs no transaction of others', async function () {
    this.timeout(240_000)
    halves = await campaign(HALVES, small)
    expect(halves.failure, `--seed ${seed}`).to.equal(undefined)
    expect(halves.ends['published']).to.be.above(FEWER / 20)
    expect(halves.ends['parked']).to.be.above(0)
    expect(await halves.world.moves(), `--seed ${seed}`).to.deep.equal([])
  })

  it('is shown by the command without a byte that a terminal obeys', async function () {
    this.timeout(120_000)
    await rows.world.leave(FEWER, seed)
    await halves.world.leave(FEWER, seed)
    const { offences } = await moreScreens(rows.world, halves.world, 2)
    expect(offences, `--seed ${seed}`).to.deep.equal([])
  })
})
