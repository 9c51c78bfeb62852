// The whole consumer, from delivery to ack, against a broker and a store of this test's own, with everything that can go wrong
// going wrong between any two steps. See `world.ts`; the services come in in the other tests.

import { expect } from 'chai'
import fc from 'fast-check'
import { VirtualTime } from './virtual-time.ts'
import { type Fault, World, type WorldOptions } from './world.ts'

const HOUR_MS = 3_600_000
const FAULTS = 6_000

interface Plan extends Omit<WorldOptions, 'behaviour'> {
  readonly seed: number
  readonly messages: readonly {
    readonly failures: number
    readonly ms: number
    readonly copies: number
    readonly at: number
  }[]
  readonly faults: readonly { readonly at: number; readonly on: number; readonly fault: Fault | 'store down' }[]
}

function planOf(faults: readonly (Fault | 'store down')[], most: number): fc.Arbitrary<Plan> {
  const at = fc.nat(FAULTS)
  const ms = fc.oneof(fc.nat(20), fc.nat(1_500))
  return fc.record({
    seed: fc.nat(),
    instances: fc.integer({ min: 1, max: 3 }),
    concurrency: fc.integer({ min: 1, max: 3 }),
    attempts: fc.integer({ min: 1, max: 4 }),
    inPlace: fc.boolean(),
    messages: fc.array(fc.record({ failures: fc.nat(5), ms, copies: fc.integer({ min: 1, max: 3 }), at }), {
      minLength: 1,
      maxLength: 6,
    }),
    faults:
      faults.length === 0
        ? fc.constant([])
        : fc.array(fc.record({ at, on: fc.nat(2), fault: fc.constantFrom(...faults) }), { maxLength: most }),
  })
}

/** Plays a plan to its end, in time of its own, and gives the world as it is then. */
async function play(plan: Plan): Promise<World> {
  const time = new VirtualTime(plan.seed)
  time.install()
  try {
    const behaviour = (id: string) => plan.messages[Number(id.slice(1))]!
    const world = new World(time, { ...plan, behaviour })
    let open = plan.messages.length + plan.faults.length + 1
    const part = async (at: number, run: () => Promise<unknown> | undefined) => {
      await time.sleep(at)
      await run()
      open--
    }
    void part(1, () => Promise.all(world.instances.map((instance) => instance.start())))
    for (const [n, { copies, at }] of plan.messages.entries())
      void part(at, async () => {
        for (let i = 0; i < copies; i++) world.publish(`m${n}`)
      })
    for (const { at, on, fault } of plan.faults)
      void part(at, async () => {
        if (fault !== 'store down') return world.instances[on % plan.instances]!.suffer(fault)
        world.storeDown = true
        await time.sleep(500 + 2_500 * on)
        world.storeDown = false
      })
    const done = await time.pass(() => world.failures.length > 0 || (open === 0 && world.quiet), HOUR_MS)
    if (world.failures[0]) throw world.failures[0]
    expect(done, 'every message comes to its end').to.equal(true)
    return world
  } finally {
    time.uninstall()
  }
}

function endedOnce(plan: Plan, world: World): void {
  for (const n of plan.messages.keys()) {
    const id = `m${n}`
    const dead = world.dead.filter((copy) => copy.id === id).length
    expect(world.completed.has(id) || dead > 0, `${id} ended`).to.equal(true)
    if (world.completed.has(id)) expect(world.effects.get(id)).to.be.at.least(1)
  }
}

describe('consumer, all of it: what can go wrong goes wrong', function () {
  this.timeout(120_000)

  it('runs each message to its end exactly once, in exactly the attempts allowed, over any number of copies and instances', async () => {
    await fc.assert(
      fc.asyncProperty(planOf([], 0), async (plan) => {
        const world = await play(plan)
        for (const [n, { failures }] of plan.messages.entries()) {
          const id = `m${n}`
          const succeeds = failures < plan.attempts
          expect(world.effects.get(id) ?? 0, `effects of ${id}`).to.equal(succeeds ? 1 : 0)
          expect(world.runs.get(id), `runs of ${id}`).to.equal(succeeds ? failures + 1 : plan.attempts)
          expect(world.dead.filter((copy) => copy.id === id).length, `letters of ${id}`).to.equal(succeeds ? 0 : 1)
        }
      }),
      { numRuns: 150 },
    )
  })

  it('repeats no effect and miscounts no attempt when replies, confirms and channels are lost, and the store refuses', async () => {
    const faults = ['lose reply of store', 'store refuses', 'lose confirm', 'nack', 'lose channel'] as const
    await fc.assert(
      fc.asyncProperty(planOf(faults, 12), async (plan) => {
        const world = await play(plan)
        endedOnce(plan, world)
        for (const [n, { failures }] of plan.messages.entries()) {
          const id = `m${n}`
          expect(world.effects.get(id) ?? 0, `effects of ${id}`).to.be.at.most(1)
          expect(world.failedRuns.get(id) ?? 0, `failures of ${id}`).to.be.at.most(Math.min(failures, plan.attempts))
        }
      }),
      { numRuns: 250 },
    )
  })

  // The quickest to find the store again must not run what another has just done and not yet recorded.
  it('repeats no effect through outages of the store longer than a lease, while no process dies', async () => {
    await fc.assert(
      fc.asyncProperty(planOf(['store down', 'lose reply of store', 'lose channel'], 6), async (plan) => {
        const world = await play(plan)
        endedOnce(plan, world)
        for (const n of plan.messages.keys()) expect(world.effects.get(`m${n}`) ?? 0, 'effects').to.be.at.most(1)
      }),
      { numRuns: 250 },
    )
  })

  it('loses nothing and runs nothing that is completed, through crashes, closings, outages and all the rest', async () => {
    const faults = [
      'crash',
      'close',
      'store down',
      'lose reply of store',
      'lose confirm',
      'nack',
      'lose channel',
    ] as const
    await fc.assert(
      fc.asyncProperty(planOf(faults, 12), async (plan) => {
        const world = await play(plan)
        endedOnce(plan, world)
        const bad = plan.faults.filter(({ fault }) => ['crash', 'close', 'store down'].includes(fault)).length
        for (const n of plan.messages.keys())
          expect(world.failedRuns.get(`m${n}`) ?? 0, 'failed runs').to.be.at.most(plan.attempts + bad)
      }),
      { numRuns: 250 },
    )
  })
})
