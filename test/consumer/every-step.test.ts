// Each way a message can go, from delivery to its last ack, and at each single step of it each fault there is, and pairs of them: all,
// none by chance. What more of them do together, in any number of messages, is in `model.test.ts`.
//
//   ingredient \ invariant            lost nothing  settled once, on its channel  effect once  attempts exact  concurrency
//   channel lost, handler running     here, model   here, model                   here, model  here, model     model
//   reply of the store lost, refused  here, model   here, model                   here, model  here, model     model
//   confirm lost, nack                here, model   here, model                   here, model  here, model     model
//   crash (restart 100 ms later)      here, model   here, model                   but once more: before its record
//   close() and start                 here, model   here, model                   here         here            model
//   store away for two leases         here, model   here, model                   here, model  here            model

import { expect } from 'chai'
import { VirtualTime } from './virtual-time.ts'
import { type Fault, World, type WorldOptions } from './world.ts'

const HOUR_MS = 3_600_000
const AWAY_MS = 6_000
const RUN_MS = 50
const LATER_MS = 10
const ATTEMPTS = 2

type Trouble = Fault | 'store away'

/** One way of a message. */
interface Way extends Omit<WorldOptions, 'behaviour' | 'attempts' | 'concurrency'> {
  readonly failures: number
  readonly copies: number
  /** How many messages, 1 by default; those that come later take less time. */
  readonly messages?: number
  /** An odd number heeds its signal. */
  readonly ms?: number
}

const ways: Record<string, Way> = {
  'succeeds at once': { failures: 0, copies: 1, instances: 1, inPlace: false },
  'succeeds at the second attempt': { failures: 1, copies: 1, instances: 1, inPlace: false },
  'succeeds at the second attempt, in place': { failures: 1, copies: 1, instances: 1, inPlace: true },
  'heeds its signal, and succeeds at the second attempt': {
    failures: 1,
    copies: 1,
    instances: 1,
    inPlace: false,
    ms: 51,
  },
  'outlasts a lost channel, and succeeds at the second attempt': {
    failures: 1,
    copies: 1,
    instances: 1,
    inPlace: false,
    ms: 400,
  },
  'ends as a dead letter': { failures: 9, copies: 1, instances: 1, inPlace: false },
  'ends as a dead letter, in place': { failures: 9, copies: 1, instances: 1, inPlace: true },
  'is one of four, which end in another order': { failures: 1, copies: 1, messages: 4, instances: 1, inPlace: false },
  'is there twice, for two instances': { failures: 1, copies: 2, instances: 2, inPlace: false },
}

const troubles: readonly Trouble[] = [
  'lose channel',
  'lose reply of store',
  'store refuses',
  'lose confirm',
  'nack',
  'crash',
  'close',
  'store away',
]

/** Those that a message can meet twice within moments. */
const pairs: readonly Trouble[] = ['lose channel', 'lose reply of store', 'lose confirm', 'crash']
const CLOSE_BY = 5

interface Played {
  readonly world: World
  /** How many steps it took: answers, timers, ends of handlers. */
  readonly steps: number
}

/** One trouble, after so many steps. */
interface Event {
  readonly trouble: Trouble
  readonly after: number
  readonly on: number
}

/** Plays a way to its end, with trouble on the way, earliest first. */
async function play(way: Way, events: readonly Event[]): Promise<Played> {
  const time = new VirtualTime(1)
  time.install()
  try {
    const { failures, ms = RUN_MS } = way
    const behaviour = (id: string) => ({ failures, ms: ms + LATER_MS * (3 - Number(id)) })
    const world = new World(time, { ...way, attempts: ATTEMPTS, concurrency: 3, behaviour })
    await begin(world, way, time)
    let steps = 0
    let open = 0
    const over = () => world.failures.length > 0 || (open === 0 && world.quiet)
    for (const event of events) {
      await time.pass(() => over() || steps++ >= event.after, HOUR_MS)
      if (over()) break
      open++
      void befall(world, event).then(() => open--)
    }
    const done = await time.pass(() => {
      steps++
      return over()
    }, HOUR_MS)
    if (world.failures[0]) throw world.failures[0]
    expect(done, 'it comes to its end').to.equal(true)
    return { world, steps }
  } finally {
    time.uninstall()
  }
}

async function begin(world: World, way: Way, time: VirtualTime): Promise<void> {
  let begun = false
  void Promise.all(world.instances.map((instance) => instance.start())).then(() => {
    for (const id of idsOf(way)) for (let i = 0; i < way.copies; i++) world.publish(id)
    begun = true
  })
  await time.pass(() => begun, HOUR_MS)
}

async function befall(world: World, { trouble, on }: Event): Promise<void> {
  if (trouble !== 'store away') return world.instances[on]!.suffer(trouble)
  world.storeDown = true
  await world.time.sleep(AWAY_MS)
  world.storeDown = false
}

async function keepsItsPromises(way: Way, world: World, events: readonly Event[]): Promise<void> {
  const again = events.filter(({ trouble }) => trouble === 'crash').length
  const succeeds = way.failures < ATTEMPTS
  for (const id of idsOf(way)) {
    const letters = world.dead.filter((copy) => copy.id === id).length
    expect(world.completed.has(id) || letters > 0, 'ended').to.equal(true)
    expect(await world.stateOf(id), 'record').to.equal(letters > 0 ? 'dead' : 'completed')
    expect(world.effects.get(id) ?? 0, 'effects').to.be.at.most(succeeds ? 1 + again : 0)
    expect(world.failedRuns.get(id) ?? 0, 'failed runs').to.be.at.most(Math.min(way.failures, ATTEMPTS + again))
    if (events.every(({ trouble }) => trouble === 'lose channel') && !succeeds)
      expect(letters, 'letters').to.equal(way.copies)
    if (events.length > 0) continue
    expect(world.runs.get(id), 'runs').to.equal(succeeds ? way.failures + 1 : ATTEMPTS)
    expect(letters, 'letters').to.equal(succeeds ? 0 : 1)
  }
}

function idsOf({ messages = 1 }: Way): string[] {
  return Array.from({ length: messages }, (_, n) => String(n))
}

async function holds(way: Way, ...events: readonly Event[]): Promise<number> {
  try {
    const { world, steps } = await play(way, events)
    await keepsItsPromises(way, world, events)
    return steps
  } catch (error) {
    const told = events.map(({ trouble, after, on }) => `"${trouble}" of instance ${on} after step ${after}`)
    throw new Error(`${told.join(', then ')}: ${(error as Error).message}`, { cause: error })
  }
}

describe('a message on its way through a consumer', function () {
  this.timeout(240_000)

  for (const [name, way] of Object.entries(ways)) {
    it(`that ${name}: no fault`, () => holds(way))

    it(`that ${name}: a fault before or after each step`, async () => {
      const steps = await holds(way)
      expect(steps).to.be.greaterThan(5)
      for (const trouble of troubles)
        for (let on = 0; on < way.instances; on++)
          for (let after = 0; after < steps; after++) await holds(way, { trouble, after, on })
    })
  }

  it('that succeeds at the second attempt: two faults, the second within some steps of the first', async () => {
    const way = ways['succeeds at the second attempt']!
    const steps = await holds(way)
    for (const one of pairs)
      for (const other of pairs)
        for (let after = 0; after < steps; after++)
          for (let later = after; later < after + CLOSE_BY; later++)
            await holds(way, { trouble: one, after, on: 0 }, { trouble: other, after: later, on: 0 })
  })
})
