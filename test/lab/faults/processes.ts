// Faults of the working processes: sudden death, a pause longer than the lease, a wrong clock.

import type { Random } from '../random.ts'
import type { Fault, Role, Touches, World } from '../world.ts'
import { at, seconds, span } from './held.ts'

const LANE: Readonly<Record<Role, Touches>> = {
  producer: 'publishing',
  'outbox-writer': 'publishing',
  relay: 'relaying',
  consumer: 'consuming',
  'inbox-consumer': 'consuming',
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

// Frozen in the middle of its work for longer than its lease: others take its messages over, then it wakes and goes on where it was.
function zombie(role: 'consumer' | 'inbox-consumer'): Fault {
  return {
    id: `zombie-${role}`,
    name: `${article(role)} frozen beyond its lease, then awake`,
    touches: LANE[role],
    ...(role === 'consumer' && { limit: 'process-dies' as const }),
    deal(random: Random) {
      const [which, beyondMs] = [random.between(1, WHICH), span(random, 1_000, 5_000)]
      const inject = ({ fleet }: World) => fleet.freeze(at(which, fleet.living(role)), fleet.leaseMs + beyondMs)
      return { choices: `draw ${which}, ${seconds(beyondMs)} beyond its lease`, inject }
    },
  }
}

// Minutes ahead or behind from now on; the other processes' clocks are right. It stays wrong until the process is replaced.
function clock(role: Role): Fault {
  return {
    id: `clock-${role}`,
    name: `clock of ${article(role)} off by minutes`,
    touches: LANE[role],
    deal(random: Random) {
      const [which, minutes] = [random.between(1, WHICH), random.between(2, 30) * random.pick([-1, 1])]
      const inject = async ({ fleet }: World) => {
        await fleet.restartWithClock(at(which, fleet.living(role)), minutes * 60_000)
      }
      return { choices: `draw ${which}, ${minutes > 0 ? '+' : ''}${minutes} min`, inject }
    },
  }
}

function article(role: Role): string {
  return `${/^[aeiou]/.test(role) ? 'an' : 'a'} ${role.replace('-', ' ')}`
}
