// A copy that cannot be prepared, because of a defect of ours: no message is stuck by it, none is lost, and none is given up on too soon.
// And defects of a store of somebody else's, which stay its own.

import { expect } from 'chai'
import { VirtualTime } from './virtual-time.ts'
import { type Fault, World, type WorldOptions } from './world.ts'

const HOUR_MS = 3_600_000

const options: Omit<WorldOptions, 'behaviour'> = { instances: 1, concurrency: 2, attempts: 2, inPlace: false }

interface Told extends Partial<Omit<WorldOptions, 'behaviour'>> {
  readonly failures: number
  /** Without an id, which the consumer refuses. */
  readonly readable?: boolean
}

/** One message, for whose copies an instance meets these faults, one for each try. */
async function play({ failures, readable = true, ...rest }: Told, faults: readonly Fault[]): Promise<World> {
  const time = new VirtualTime(1)
  time.install()
  try {
    const world = new World(time, { ...options, ...rest, behaviour: () => ({ failures, ms: 10 }) })
    const [instance] = world.instances
    void instance!.start()
    for (const fault of faults) await instance!.suffer(fault)
    const message = { exchange: '', routingKey: 'work', content: Buffer.from('{}'), properties: { headers: {} } }
    if (readable) world.publish('m')
    else world.arrive({ id: 'm', message })
    const done = await time.pass(() => world.failures.length > 0 || world.quiet, HOUR_MS)
    if (world.failures[0]) throw world.failures[0]
    expect(done, 'it comes to its end').to.equal(true)
    return world
  } finally {
    time.uninstall()
  }
}

function times(count: number): Fault[] {
  return new Array(count).fill('defect of ours')
}

describe('a message of which a defect of ours cannot prepare a copy', () => {
  for (const [what, told] of [
    ['its next attempt', { failures: 1 }],
    ['its letter', { failures: 9, attempts: 1 }],
    ['its letter, in place', { failures: 9, attempts: 1, inPlace: true }],
    ['the letter of one that cannot be read', { failures: 0, readable: false }],
  ] as const)
    it(`is kept by the broker as it came, after three tries in a row: ${what}`, async () => {
      const { dead, runs, time } = await play(told, times(3))
      expect(dead).to.have.length(1)
      expect(Object.keys(dead[0]!.message.properties.headers ?? {})).to.not.include('surehop-reason')
      expect(runs.get('m') ?? 0).to.equal(told.failures > 0 ? 1 : 0)
      expect(time.now).to.be.lessThan(5_000)
    })

  it('goes its way when the third try is without', async () => {
    const { completed, dead } = await play({ failures: 1 }, times(2))
    expect([completed.has('m'), dead]).to.deep.equal([true, []])
  })

  it('is never given up on for what the broker refuses, however often', async () => {
    const { completed, dead } = await play({ failures: 1 }, [...times(2), ...new Array<Fault>(40).fill('nack')])
    expect([completed.has('m'), dead]).to.deep.equal([true, []])
  })
})

describe('a store that keeps what it is told, and changes it', () => {
  it('changes nothing of what is told of the next message', async () => {
    const time = new VirtualTime(1)
    time.install()
    try {
      const world = new World(time, { ...options, behaviour: () => ({ failures: 0, ms: 10 }) })
      const { memory } = world
      const settle = memory.settle.bind(memory)
      memory.settle = async (scope, owner, settlements) => {
        const results = await settle(scope, owner, settlements)
        for (const { ending } of settlements)
          void time.sleep(100).then(() => Object.assign(ending, { state: 'failed' }))
        return results
      }
      void world.instances[0]!.start()
      for (const id of ['m', 'n']) {
        world.publish(id)
        expect(await time.pass(() => world.quiet, HOUR_MS)).to.equal(true)
        await time.pass(() => false, time.now + 1_000)
        expect(await world.stateOf(id)).to.equal('completed')
      }
    } finally {
      time.uninstall()
    }
  })
})
