// How much is done before its record is made. A handler whose effect is done gives its place to the next message while the record is
// on its way: what a death can repeat, or an outage of the store can leave undecided, is more than what runs, and must be bounded.

import { expect } from 'chai'
import { VirtualTime } from './virtual-time.ts'
import { World } from './world.ts'

const CONCURRENCY = 3
const MESSAGES = 30

describe('effects without a record', () => {
  let time: VirtualTime
  beforeEach(() => {
    time = new VirtualTime(1)
    time.install()
  })
  afterEach(() => time.uninstall())

  it('are at most twice as many as handlers may run, whatever the prefetch, while the store grants more and records nothing', async () => {
    const behaviour = () => ({ failures: 0, ms: 1 })
    const options = { instances: 1, concurrency: CONCURRENCY, prefetch: 50, attempts: 1, inPlace: false, behaviour }
    const world = new World(time, options)
    const recording = slowly(world)
    for (let n = 0; n < MESSAGES; n++) world.publish(`m${n}`)
    void world.instances[0]!.start()
    let most = 0
    const done = () => {
      most = Math.max(most, world.effects.size - world.completed.size)
      return world.completed.size === MESSAGES
    }
    await time.pass(done, time.now + 2_000)
    expect([world.effects.size, world.completed.size]).to.deep.equal([2 * CONCURRENCY, 0])
    recording.go()
    expect(await time.pass(done, time.now + 60_000), 'all is recorded at last').to.equal(true)
    expect(most).to.equal(2 * CONCURRENCY)
    expect(world.failures).to.deep.equal([])
  })
})

/** A store that records nothing before it is told to. */
function slowly({ memory }: World): { readonly go: () => void } {
  const settle = memory.settle.bind(memory)
  let go = () => {}
  const told = new Promise<void>((resolve) => {
    go = resolve
  })
  memory.settle = (...of) => told.then(() => settle(...of))
  return { go }
}
