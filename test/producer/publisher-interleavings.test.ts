// Publishes against everything a broker, a network, a clock and a user can do to them: single and multiple answers, returns before
// acks, lost and refused channels, deadlines, aborts, blocks, in any order, over one channel after another. See `publisher-world.ts`.
//
//   ingredient \ invariant                   settles once  truthful outcome  window kept  one id at a time  slots freed
//   ack, nack, return, in any order          here, confirms.test.ts (the books alone), all columns
//   ack and nack with `multiple`             here          here              here         here              here
//   channel lost, then the next one          here, confirms.test.ts, all columns
//   refused by closing the channel           here, confirms.test.ts, all columns
//   deadline, abort                          here; give-up at any point: confirms.test.ts; when: deadlines.test.ts, aborts.test.ts
//   exchange held, known, refused            confirms.test.ts; when: exchange-check.test.ts; on a real broker: outcomes.test.ts
//   blocked; nothing written meanwhile       here; on a real broker: faults.test.ts
//   a message that cannot be encoded         here; on a real broker: outcomes.test.ts
//   a queue refused until a new channel      here, all columns, and in one turn with all others; when: refusals.test.ts
//   closed meanwhile                         here, all columns

import { expect } from 'chai'
import fc from 'fast-check'
import { VirtualTime } from '../consumer/virtual-time.ts'
import { goOn, RENEWAL, toTheBrink } from './publisher-renewal.ts'
import { PLAIN, type Scenario, World } from './publisher-world.ts'

/** What comes before and after the choices of a history. */
interface Frame {
  readonly scenario: Scenario
  readonly before: (world: World) => Promise<void>
  /** In one turn with the first choice. */
  readonly atOnce?: (world: World) => unknown
  readonly after?: (world: World) => Promise<void>
}

const plain = (lead: number): Frame => ({
  scenario: PLAIN,
  before: async (world) => {
    publish(world, lead)
    await world.time.settle()
  },
})

/** What else is published, and whether the last nack comes first. */
const renewal = (lead: number, nacked = false): Frame => ({
  scenario: RENEWAL,
  before: async (world) => {
    await toTheBrink(world)
    publish(world, lead)
    await world.time.settle()
  },
  atOnce: (world) => nacked && world.answer(world.sent.slice(0, 1), 'nack'),
  after: goOn,
})

function publish(world: World, times: number): void {
  for (let n = 0; n < times; n++) world.publish()
}

interface Played {
  /** How much was possible after the choices. */
  readonly width: number
  readonly renewed: number
}

/** Plays choices, each among what is possible then. */
async function play({ scenario, before, atOnce, after }: Frame, choices: readonly number[]): Promise<Played> {
  const time = new VirtualTime(1)
  time.install()
  const world = new World(time, scenario)
  try {
    await time.settle()
    await before(world)
    atOnce?.(world)
    for (const choice of choices) {
      const { actions } = world
      const rest = world.do(actions[choice % actions.length]!)
      if (rest) await rest // a wait for nothing would end the turn
    }
    const { length } = world.actions
    await time.settle()
    const { renewals } = world
    await after?.(world)
    await world.end()
    return { width: length, renewed: renewals }
  } catch (error) {
    throw new Error(`${(error as Error).message}; it was: ${world.events.join(', ')}`, { cause: error })
  } finally {
    time.uninstall()
  }
}

/** All histories of so many steps. @returns how many, and in how many of them the channel was renewed by one of the steps */
async function explore(frame: Frame, steps: number, prefix: readonly number[] = []) {
  const { width, renewed } = await play(frame, prefix)
  if (prefix.length === steps) return { played: 1, renewed: Number(renewed > 0) }
  const all = { played: 0, renewed: 0 }
  for (let choice = 0; choice < width; choice++) {
    const some = await explore(frame, steps, [...prefix, choice])
    all.played += some.played
    all.renewed += some.renewed
  }
  return all
}

async function sample(frames: readonly Frame[], lengths: fc.ArrayConstraints): Promise<void> {
  const histories = fc.tuple(fc.constantFrom(...frames), fc.array(fc.nat(9_999), lengths))
  await fc.assert(
    fc.asyncProperty(histories, async ([frame, choices]) => void (await play(frame, choices))),
    { numRuns: Number(process.env['FC_RUNS'] ?? 600) },
  )
}

describe('a publisher, whatever its broker does', function () {
  this.timeout(Number(process.env['FC_RUNS'] ? 3_600_000 : 240_000))

  it('settles each publish once and truthfully, in every order of few steps', async () => {
    const { played } = await explore(plain(3), 3)
    expect(played).to.be.greaterThan(1_000)
  })

  it('confirms the neighbours of a message that cannot be encoded, each its own', async () => {
    const { played } = await explore(plain(PLAIN.publishes.length), 2)
    expect(played).to.be.greaterThan(80)
  })

  it('settles each publish once and truthfully, in long histories', async () => {
    await sample([plain(0)], { minLength: 5, maxLength: 40 })
  })
})

describe('a publisher that takes a new channel, because a queue refuses all on the old one', function () {
  this.timeout(Number(process.env['FC_RUNS'] ? 3_600_000 : 240_000))

  for (const [what, frame, steps] of [
    ['nothing else is on the wire, and the last nack is to come', renewal(0), 2],
    ['nothing else is on the wire, and the last nack has just come', renewal(0, true), 3],
    ['one more is on the wire, one waits, and the last nack is to come', renewal(2), 2],
    ['one more is on the wire, one waits, and the last nack has just come', renewal(2, true), 2],
  ] as const)
    it(`settles each once and truthfully, and voids no confirm, when ${what}`, async () => {
      const { played, renewed } = await explore(frame, steps)
      expect(played).to.be.greaterThan(200)
      expect(renewed).to.be.greaterThan(20)
    })

  it('settles each once and truthfully, and voids no confirm, in long histories', async () => {
    const frames = [0, 1, 2, 3].map((lead) => renewal(lead))
    const mute = frames.map(({ scenario, before }) => ({ scenario, before }))
    await sample([...frames, ...mute], { minLength: 3, maxLength: 30 })
  })
})
