// Faults of the Postgres behind the outbox and the inbox: stopped, killed, silent, cut off.

import type { Random } from '../random.ts'
import type { Fault, World } from '../world.ts'
import { hold, seconds, span } from './held.ts'

export const postgresFaults: readonly Fault[] = [
  // Sessions are told that it goes; open transactions are rolled back.
  on('postgres-stop', 'Postgres stopped and started', 1_000, 5_000, async ({ postgres }, ms) => {
    await postgres.stop()
    await hold(ms)
    await postgres.start()
  }),
  // COMMITs without an answer: did they count? Recovery reads the log when it starts again.
  on('postgres-kill', 'SIGKILL of Postgres', 500, 4_000, async ({ postgres }, ms) => {
    await postgres.kill9()
    await hold(ms)
    await postgres.start()
  }),
  // Statements without an answer, locks that stay; all of it goes on when it wakes.
  on('postgres-freeze', 'Postgres frozen (SIGSTOP)', 2_000, 12_000, async ({ postgres }, ms) => {
    await postgres.freeze()
    await hold(ms).finally(() => postgres.thaw())
  }),
  // The same doubt over COMMITs while the server never stops.
  on('postgres-cut', 'connections to Postgres reset', 200, 2_000, async ({ postgresProxy }, ms) => {
    await postgresProxy.refuse()
    postgresProxy.cut()
    await hold(ms).finally(() => postgresProxy.accept())
  }),
]

function on(
  id: string,
  name: string,
  leastMs: number,
  mostMs: number,
  act: (world: World, ms: number) => Promise<void>,
): Fault {
  return {
    id,
    name,
    touches: 'postgres',
    deal(random: Random) {
      const ms = span(random, leastMs, mostMs)
      return { choices: seconds(ms), inject: (world) => act(world, ms) }
    },
  }
}
