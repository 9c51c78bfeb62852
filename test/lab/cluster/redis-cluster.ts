// A private Redis Cluster: three masters that share the slots, without replicas.
//
//   joining -> stands <-> down (a master is gone: every key is refused, at the latest after the node timeout) -> closed
//
// Promises: a master keeps its port, its data and its slots over kill and stop; `whole` heals whatever was done to the masters, and
// gives each the slots of its share that nobody has.
// Does not promise: what stood in slots that were given away; they come back empty.

import { eventually } from '../../support/eventually.ts'
import { startRedis } from '../../support/redis.ts'
import type { Server } from '../../support/server.ts'
import type { RedisCluster } from '../world.ts'
import { ask, fieldOf, revive, startAll } from './redis-ask.ts'

const MASTERS = 3
const SLOTS = 16_384
const NODE_TIMEOUT_MS = 1_500
const WHOLE_WITHIN_MS = 90_000

/** Brings a cluster up beside all others. */
export async function startRedisCluster(): Promise<RedisCluster> {
  const args = ['--cluster-enabled', 'yes', '--cluster-node-timeout', `${NODE_TIMEOUT_MS}`]
  const servers = await startAll(Array.from({ length: MASTERS }, () => startRedis({ args })))
  const cluster = clusterOf(servers)
  try {
    // Before they meet: two masters of one epoch would have to settle which one yields.
    for (const [i, server] of servers.entries()) await ask(server, 'CLUSTER', 'SET-CONFIG-EPOCH', i + 1)
    await cluster.whole()
    return cluster
  } catch (error) {
    await cluster.close()
    throw error
  }
}

function clusterOf(servers: readonly Server[]): RedisCluster {
  const close = async () => void (await Promise.all(servers.map((server) => server.close())))
  return {
    servers,
    startupNodes: servers.map(({ port }) => ({ host: '127.0.0.1', port })),
    async whole() {
      await revive(servers)
      await join(servers)
    },
    close,
    [Symbol.asyncDispose]: close,
  }
}

/** Lets the masters meet and take their slots, as far as that is not done, and waits until all agree that the cluster stands. */
async function join(servers: readonly Server[]): Promise<void> {
  const first = servers[0]!
  await Promise.all(servers.map((server) => ask(server, 'CLUSTER', 'MEET', '127.0.0.1', first.port)))
  const check = async () => {
    await Promise.all(servers.map((server, i) => takeShare(server, shareOf(i))))
    await Promise.all(servers.map(stands))
  }
  await eventually(check, { withinMs: WHOLE_WITHIN_MS, what: 'a Redis Cluster that stands' })
}

function shareOf(i: number): readonly [from: number, to: number] {
  const [from, end] = [i, i + 1].map((n) => Math.floor((n * SLOTS) / MASTERS))
  return [from!, end! - 1]
}

async function takeShare(server: Server, [from, to]: readonly [number, number]): Promise<void> {
  const ranges = (await ask(server, 'CLUSTER', 'SLOTS')) as readonly [number, number][]
  const had = (slot: number) => ranges.some(([least, most]) => slot >= least && slot <= most)
  const free = Array.from({ length: to - from + 1 }, (_, i) => from + i).filter((slot) => !had(slot))
  if (free.length > 0) await ask(server, 'CLUSTER', 'ADDSLOTS', ...free)
}

async function stands(server: Server): Promise<void> {
  const info = await ask(server, 'CLUSTER', 'INFO')
  const [state, known, slots] = ['state', 'known_nodes', 'slots_ok'].map((field) => fieldOf(info, `cluster_${field}`))
  if (state === 'ok' && known === `${MASTERS}` && slots === `${SLOTS}`) return
  throw new Error(`${server.url} says ${state}, knows ${known} nodes, and ${slots} slots are in order`)
}
