// Publishes against everything a broker, a network, a clock and a user can do to them: single and multiple answers, returns before
// acks, lost and refused channels, deadlines, aborts, blocks, in any order, over one channel after another. See `publisher-world.ts`.
//
//   ingredient \ invariant                   settles once  truthful outcome  window kept  one id at a time  slots freed
//   ack, nack, return, in any order          here, confirms.test.ts (the books alone), all columns
//   ack and nack with `multiple`             here          here              here         here              here
//   channel lost, then the next one          here, confirms.test.ts, all columns
//   refused by closing the channel           here, confirms.test.ts, all columns
//   deadline, abort                          here; give-up at any point: confirms.test.ts
//   exchange held, known, refused            confirms.test.ts; on a real broker: outcomes.test.ts
//   blocked; nothing written meanwhile       here; on a real broker: faults.test.ts
//   a message that cannot be encoded         here; on a real broker: outcomes.test.ts

import { expect } from 'chai'
import fc from 'fast-check'
import { VirtualTime } from '../consumer/virtual-time.ts'
import { PUBLISHES, World } from './publisher-world.ts'

/** Plays choices, each among what is possible then; `lead` publishes come first. @returns how much was possible at the end */
async function play(lead: number, choices: readonly number[]): Promise<number> {
  const time = new VirtualTime(1)
  time.install()
  const world = new World(time)
  try {
    await time.settle()
    for (let n = 0; n < lead; n++) world.publish()
    await time.settle()
    world.check()
    for (const choice of choices) {
      const { actions } = world
      await world.do(actions[choice % actions.length]!)
    }
    const { length } = world.actions
    await world.end()
    return length
  } catch (error) {
    throw new Error(`${(error as Error).message}; it was: ${world.events.join(', ')}`, { cause: error })
  } finally {
    time.uninstall()
  }
}

/** All histories of so many steps. @returns how many */
async function explore(lead: number, steps: number, prefix: readonly number[] = []): Promise<number> {
  const width = await play(lead, prefix)
  if (prefix.length === steps) return 1
  let played = 0
  for (let choice = 0; choice < width; choice++) played += await explore(lead, steps, [...prefix, choice])
  return played
}

describe('a publisher, whatever its broker does', function () {
  this.timeout(Number(process.env['FC_RUNS'] ? 3_600_000 : 240_000))

  it('settles each publish once and truthfully, in every order of few steps', async () => {
    const played = await explore(3, 3)
    expect(played).to.be.greaterThan(1_000)
  })

  it('confirms the neighbours of a message that cannot be encoded, each its own', async () => {
    expect(await explore(PUBLISHES.length, 2)).to.be.greaterThan(80)
  })

  it('settles each publish once and truthfully, in long histories', async () => {
    const histories = fc.array(fc.nat(9_999), { minLength: 5, maxLength: 40 })
    await fc.assert(
      fc.asyncProperty(histories, async (choices) => void (await play(0, choices))),
      { numRuns: Number(process.env['FC_RUNS'] ?? 600) },
    )
  })
})
