// Faults of the working processes: sudden death, a pause longer than the lease, a wrong clock.

import { eventually } from '../../support/eventually.ts'
import type { Random } from '../random.ts'
import type { Fault, Fleet, Role, Touches, World } from '../world.ts'
import { at, hold, inWork, seconds, span } from './held.ts'

const LANE: Readonly<Record<Role, Touches>> = {
  producer: 'publishing',
  'outbox-writer': 'publishing',
  relay: 'relaying',
  consumer: 'consuming',
  'inbox-consumer': 'consuming',
  operator: 'operating',
  'half-producer': 'deciding',
  'half-checker': 'deciding',
}
/** Drawn from so many, counted round among those that live: a multiple of every usual number of them. */
const WHICH = 12

export const processFaults: readonly Fault[] = [
  // Publishes on the wire without an answer: unknown, offered again with the same ids by the next producer.
  kill('producer'),
  // Transactions open or just committed: a row must go out if its COMMIT counted, and only then.
  kill('outbox-writer'),
  // Rows published but not yet marked sent: sent again with the same ids by the next relay.
  kill('relay'),
  // Effects without a record: the lease runs out and the next consumer repeats them. The README's limit of a store apart from the effect.
  { ...kill('consumer'), limit: 'process-dies' },
  // Effect and record are one transaction here: nothing may be repeated.
  kill('inbox-consumer'),
  zombie('consumer'),
  zombie('inbox-consumer'),
  slumber('consumer'),
  clock('producer'),
  clock('outbox-writer'),
  clock('relay'),
  clock('consumer'),
  clock('inbox-consumer'),
]

function kill(role: Role): Fault {
  return {
    id: `kill-${role}`,
    name: `SIGKILL of ${article(role)}`,
    touches: LANE[role],
    deal(random: Random) {
      const which = random.between(1, WHICH)
      return { choices: `draw ${which}`, inject: ({ fleet }) => fleet.kill9(at(which, fleet.living(role))) }
    },
  }
}

// Frozen in the middle of handlers, for longer than its lease, while the broker gives its messages to others, who take them over when
// the lease has run out. Then it wakes inside its handlers, and tries its effects and its records: all of that must be refused.
function zombie(role: Consuming): Fault {
  return {
    id: `zombie-${role}`,
    name: `${article(role)} cut off and frozen beyond its lease, then awake`,
    touches: LANE[role],
    provokes: ['takenOver', 'refused'],
    ...(role === 'consumer' && { limit: 'process-dies' as const }),
    deal(random: Random) {
      const [which, beyondMs] = [random.between(1, WHICH), span(random, 1_000, 5_000)]
      const inject = (world: World) =>
        frozenInWork(world, { role, which }, async (worker) => {
          const { fleet, brokerProxies } = world
          fleet.cutOff(worker, brokerProxies)
          await Promise.all([hold(fleet.leaseMs + beyondMs), takenOver(fleet, worker)])
        })
      return { choices: `draw ${which}, ${seconds(beyondMs)} beyond its lease`, inject }
    },
  }
}

// The same, and nobody cuts anything: its connections stand, and it is the broker that misses its heartbeats.
function slumber(role: Consuming): Fault {
  return {
    id: `slumber-${role}`,
    name: `${article(role)} frozen until the broker misses its heartbeats, then awake`,
    touches: LANE[role],
    provokes: ['takenOver', 'refused'],
    limit: 'process-dies',
    deal(random: Random) {
      const which = random.between(1, WHICH)
      const inject = (world: World) => frozenInWork(world, { role, which }, (worker) => takenOver(world.fleet, worker))
      return { choices: `draw ${which}`, inject }
    },
  }
}

type Consuming = 'consumer' | 'inbox-consumer'

/** What was written when it stopped can be read then, ms. */
const STOPPED_AFTER_MS = 100
/** Heartbeats of 10 s: the broker gives up after two to three of them; then somebody must be free. */
const TAKEN_WITHIN_MS = 60_000

/** Freezes one that has begun what it has not ended, and for as long as `during` takes; one that was done just then goes on, and another is found. */
async function frozenInWork(
  { fleet }: World,
  { role, which }: { readonly role: Consuming; readonly which: number },
  during: (worker: number) => Promise<unknown>,
): Promise<void> {
  for (let caught = false; !caught; ) {
    const worker = at(which, await inWork(fleet, role))
    await fleet.freeze(worker, async () => {
      await hold(STOPPED_AFTER_MS)
      caught = fleet.inWork(worker) > 0
      if (caught) await during(worker)
    })
  }
}

/** Waits until another has begun what it had begun. Where nobody ever does, the row says that it proves nothing. */
async function takenOver(fleet: Fleet, worker: number): Promise<void> {
  const before = fleet.takenFrom(worker)
  const more = () => fleet.takenFrom(worker) > before
  await eventually(more, { withinMs: TAKEN_WITHIN_MS, what: 'a message taken over' }).catch(() => {})
}

// Minutes ahead or behind from now on; the other processes' clocks are right. It stays wrong until the process is replaced. Consumers
// meet then: one after the other loses its connections in the middle of handlers, and the others ask for what it still holds.
function clock(role: Role): Fault {
  const consuming = role === 'consumer' || role === 'inbox-consumer' ? role : undefined
  return {
    id: `clock-${role}`,
    name: `clock of ${article(role)} off by minutes`,
    touches: LANE[role],
    ...(consuming && { provokes: ['putOff'] as const }),
    deal(random: Random) {
      const [which, minutes] = [random.between(1, WHICH), random.between(2, 30) * random.pick([-1, 1])]
      const inject = async (world: World) => {
        await world.fleet.restartWithClock(at(which, world.fleet.living(role)), minutes * 60_000)
        if (consuming) await meet(world, consuming)
      }
      return { choices: `draw ${which}, ${minutes > 0 ? '+' : ''}${minutes} min`, inject }
    },
  }
}

const MEETINGS = 6
const BETWEEN_MS = 1_000

/** Their handlers run on beside those who get their messages next. */
async function meet({ fleet, brokerProxies }: World, role: Consuming): Promise<void> {
  for (let meeting = 0; meeting < MEETINGS; meeting++) {
    fleet.cutOff(at(meeting, await inWork(fleet, role)), brokerProxies)
    await hold(BETWEEN_MS)
  }
}

function article(role: Role): string {
  return `${/^[aeiou]/.test(role) ? 'an' : 'a'} ${role.replace('-', ' ')}`
}
