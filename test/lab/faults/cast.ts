// Faults of those who are in the fleet only in some rows: an operator who looks at dead letters and sends them again, and senders of
// half messages and who answers for them; and what the broker and the network do to their queues and links.

import { eventually } from '../../support/eventually.ts'
import type { Random } from '../random.ts'
import type { Cast, Fault, Fleet, Role, World } from '../world.ts'
import { at, hold, killAndReturn, seconds, span } from './held.ts'

/** Drawn from so many, counted round among those that live. */
const WHICH = 12
const BUSY_WITHIN_MS = 60_000

export const castFaults: readonly Fault[] = [
  // In the middle of a look, or between the publish of a copy and the ack of its letter: then both are there.
  {
    ...kills('kill-operator', 'SIGKILL of an operator who sends letters again', 'operator', ['operator']),
    tries: ['replays cut short by a death'],
  },
  killLeader('operator-broker-kill', 'SIGKILL of the node that leads the dead letters', 'operator'),
  cuts('operator-links-cut', 'connections reset while letters are sent again', 'operator'),
  // Between prepare, work and commit: nobody will say how it ended.
  {
    ...kills('kill-half-producer', 'SIGKILL of a sender of half messages', 'halves', ['half-producer']),
    tries: ['cut short by a death'],
  },
  // In the middle of a check, or between its answer and what follows from it.
  {
    ...kills('kill-half-checker', 'SIGKILL of who answers for half messages', 'halves', [
      'half-checker',
      'half-producer',
    ]),
    tries: ['checks cut short by a death'],
  },
  killLeader('half-broker-kill', 'SIGKILL of the node that leads the half messages', 'halves'),
  cuts('half-links-cut', 'connections reset while half messages are decided', 'halves'),
]

// Several times in one turn: each finds them at another step.
function kills(id: string, name: string, cast: Cast, roles: readonly Role[]): Fault {
  return {
    ...{ id, name, cast, touches: cast === 'operator' ? 'operating' : 'deciding' },
    deal(random: Random) {
      const deaths = Array.from({ length: random.between(2, 4) }, () => deathOf(random))
      const inject = async ({ fleet }: World) => {
        for (const { which, afterMs } of deaths) {
          await hold(afterMs)
          for (const role of roles) await fleet.kill9(await inTheMiddle(fleet, role, which))
        }
      }
      return {
        choices: deaths.map(({ which, afterMs }) => `draw ${which} after ${seconds(afterMs)}`).join(', '),
        inject,
      }
    },
  }
}

/** One that has begun something and not ended it, by the ledger. */
async function inTheMiddle(fleet: Fleet, role: Role, which: number): Promise<number> {
  const busy = () => {
    const living = fleet.living(role).filter((worker) => fleet.inWork(worker) > 0)
    return living.length > 0 ? at(which, living) : Promise.reject(new Error(`no ${role} is at work`))
  }
  return eventually(async () => busy(), { withinMs: BUSY_WITHIN_MS, what: `a ${role} in the middle of its work` })
}

function deathOf(random: Random): { readonly which: number; readonly afterMs: number } {
  return { which: random.between(1, WHICH), afterMs: span(random, 300, 2_500) }
}

function killLeader(id: string, name: string, cast: Cast): Fault {
  return {
    ...{ id, name, cast, touches: 'broker' },
    deal(random: Random) {
      const ms = span(random, 500, 3_000)
      const inject = async (world: World) =>
        killAndReturn(world, [await world.rabbitmq.leaderOf(world.fleet.castQueues[cast])], ms)
      return { choices: seconds(ms), inject }
    },
  }
}

function cuts(id: string, name: string, cast: Cast): Fault {
  return {
    ...{ id, name, cast, touches: 'broker-network' },
    deal(random: Random) {
      const [times, everyMs] = [random.between(2, 5), span(random, 300, 1_500)]
      const inject = async ({ brokerProxies }: World) => {
        for (let cut = 0; cut < times; cut++) {
          for (const proxy of brokerProxies) proxy.cut('rst')
          await hold(everyMs)
        }
      }
      return { choices: `${times} times, every ${seconds(everyMs)}`, inject }
    },
  }
}
