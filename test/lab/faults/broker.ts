// Faults of the RabbitMQ cluster: nodes that die, pause or leave, a lost majority, alarms and full queues.

import type { Random } from '../random.ts'
import type { ClusterNode, Fault, World } from '../world.ts'
import { at, ctlSomewhere, hold, killAndReturn, NODES, nodesInUse, seconds, span } from './held.ts'

/** Length a full queue is set to: a few hundred messages in flight reach it at once. */
const FULL_AT = 20

/**
 * What the limit is raised to afterwards. Removed outright, RabbitMQ 3.10 never tells those it refused that there is room again: their
 * channels, and its own dead-lettering, stay refused until they are opened anew (seen here; `rabbit_fifo:evaluate_limit` ends early without a limit).
 */
const ROOMY = 10_000_000

export const brokerFaults: readonly Fault[] = [
  // Its channels end without a word; where it led a queue, the others elect.
  felt(
    node('kill-node', 'SIGKILL of a broker node', 1_000, 4_000, async (world, which, ms) =>
      killAndReturn(world, [await nodeInUse(world, which)], ms),
    ),
  ),
  // The replica that orders all writes of the work queue: publishes in flight are unknown or nacked.
  node('kill-leader', 'SIGKILL of the node that leads the work queue', 0, 3_000, async (world, which, ms) =>
    killAndReturn(world, [await world.rabbitmq.leaderOf(at(which, world.fleet.queues))], ms),
  ),
  // In good order, as an upgrade does it: connections are closed by the broker with a reason.
  felt(
    node('restart-node', 'broker node restarted in good order', 500, 2_000, async (world, which, ms) => {
      await (await nodeInUse(world, which)).stop()
      await hold(ms)
      await world.rabbitmq.whole()
    }),
  ),
  // Connections stay open, nothing is answered; it may lead a queue, and wakes with an old idea of who leads.
  node('freeze-node', 'broker node frozen (SIGSTOP)', 4_000, 20_000, async (world, which, ms) => {
    const frozen = await nodeInUse(world, which)
    await frozen.freeze()
    await hold(ms).finally(() => frozen.thaw())
    await world.rabbitmq.whole()
  }),
  // No quorum: nothing can be confirmed until one returns; publishes hang or their connections are refused.
  node('lose-majority', 'two of three broker nodes killed', 2_000, 8_000, (world, which, ms) =>
    killAndReturn(world, [at(which, world.rabbitmq.nodes), at(which + 1, world.rabbitmq.nodes)], ms),
  ),
  // All memory of the cluster is gone; only what reached the disks returns.
  felt(
    node('kill-all', 'all three broker nodes killed', 500, 3_000, (world, _, ms) =>
      killAndReturn(world, world.rabbitmq.nodes, ms),
    ),
  ),
  // Every publishing connection is blocked: no confirm comes, and nothing is read from it.
  node('memory-alarm', 'memory alarm', 2_000, 6_000, memoryAlarm),
  fullQueue(),
]

type Act = (world: World, which: number, ms: number) => Promise<void>

function node(id: string, name: string, leastMs: number, mostMs: number, act: Act): Fault {
  return {
    id,
    name,
    touches: 'broker',
    deal(random: Random) {
      const [which, ms] = [random.between(0, NODES - 1), span(random, leastMs, mostMs)]
      return { choices: `no. ${which + 1}, ${seconds(ms)}`, inject: (world) => act(world, which, ms) }
    },
  }
}

/** One that nobody felt proves nothing. */
function felt(fault: Fault): Fault {
  return { ...fault, provokes: ['unmoored'] }
}

async function nodeInUse(world: World, which: number): Promise<ClusterNode> {
  return world.rabbitmq.nodes[at(which, await nodesInUse(world))]!
}

async function memoryAlarm({ rabbitmq }: World, which: number, ms: number): Promise<void> {
  const alarmed = at(which, rabbitmq.nodes)
  const was = await alarmed.ctl('eval', 'vm_memory_monitor:get_memory_limit().')
  await alarmed.ctl('set_vm_memory_high_watermark', 'absolute', '1MB')
  await hold(ms).finally(() => alarmed.ctl('set_vm_memory_high_watermark', 'absolute', was.trim()))
}

// The queue is full, and nobody takes from it: publishes are nacked (`x-overflow: reject-publish`), the relay's too. Shorter than a
// lease, so that nobody wakes as a zombie here.
function fullQueue(): Fault {
  return {
    id: 'full-queue',
    name: 'work queue full (publishes nacked)',
    touches: 'consuming',
    deal(random: Random) {
      const [which, ms] = [random.between(0, 9), span(random, 1_500, 2_500)]
      const inject = async (world: World) => {
        const queue = at(which, world.fleet.queues)
        const policy = `full-${queue}`
        const limit = (length: number) =>
          ctlSomewhere(world, 'set_policy', policy, `^${queue}$`, `{"max-length": ${length}}`, '--apply-to', 'queues')
        await limit(FULL_AT)
        await freezeAllConsumers(world, ms).finally(() => limit(ROOMY))
      }
      return { choices: `queue draw ${which}, ${seconds(ms)}`, inject }
    },
  }
}

async function freezeAllConsumers({ fleet }: World, ms: number): Promise<void> {
  const all = [...fleet.living('consumer'), ...fleet.living('inbox-consumer')]
  await Promise.all(all.map((worker) => fleet.freeze(worker, ms)))
}
