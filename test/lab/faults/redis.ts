// Faults of the Redis behind the idempotency store: away, silent, forgetful, failed over.

import { Redis } from 'ioredis'
import { eventually } from '../../support/eventually.ts'
import type { Server } from '../../support/server.ts'
import { monotonicNs } from '../ledger.ts'
import type { Random } from '../random.ts'
import type { Fault, World } from '../world.ts'
import { at, hold, inWork, seconds, span } from './held.ts'

/** Of what Redis was told: since ever. */
const ALL = 0
/**
 * The last writes a replica may lack when its master dies, ms. Replication follows in milliseconds; a machine that is busy with
 * everything else may keep it waiting.
 */
const BEHIND_MS = 5_000

export const redisFaults: readonly Fault[] = [
  // No record can be read or made: nothing may be run, nothing may be lost.
  onRedis('redis-stop', 'Redis stopped and started', 1_000, 6_000, async ({ redis }, ms) => {
    await redis.stop()
    await hold(ms)
    await redis.start()
  }),
  // The same without goodbye; its append-only file has all that it answered for.
  onRedis('redis-kill', 'SIGKILL of Redis', 500, 4_000, async ({ redis }, ms) => {
    await redis.kill9()
    await hold(ms)
    await redis.start()
  }),
  // Commands were sent and stay without an answer; some of them are carried out when it wakes, long after nobody waits for them. Then
  // leases have run out, and others ask for what a consumer had done or begun: the broker gives it away meanwhile.
  onRedis('redis-freeze', 'Redis frozen (SIGSTOP)', 2_000, 10_000, async ({ redis, fleet, brokerProxies }, ms) => {
    const [worker] = await inWork(fleet, 'consumer')
    await redis.freeze()
    if (fleet.living('consumer').includes(worker!)) fleet.cutOff(worker!, brokerProxies)
    await hold(ms).finally(() => redis.thaw())
  }),
  // Claims and records without an answer: were they made?
  onRedis('redis-cut', 'connections to Redis reset', 200, 2_000, async ({ redisProxy }, ms) => {
    await redisProxy.refuse()
    redisProxy.cut()
    await hold(ms).finally(() => redisProxy.accept())
  }),
  // Redis forgets all: what was completed is remembered by nobody. The README's limit.
  { ...onRedis('redis-empty', 'Redis restarted empty', 500, 3_000, returnEmpty), limit: 'redis-forgets' },
  {
    // A replica that lacks the last writes becomes the master. The README's limit.
    ...onRedis('sentinel-failover', 'Redis master killed, failover by Sentinel', 500, 3_000, failOver),
    needs: 'sentinel',
    limit: 'redis-forgets',
  },
  {
    // A third of the records is out of reach; the rest works on.
    ...onCluster('cluster-kill', 'one master of a Redis Cluster killed, back with its data'),
    needs: 'redis-cluster',
  },
  {
    // A third of the records is forgotten. The README's limit.
    ...onCluster('cluster-empty', 'one master of a Redis Cluster killed, back empty', forget),
    needs: 'redis-cluster',
    limit: 'redis-forgets',
  },
]

function onRedis(
  id: string,
  name: string,
  leastMs: number,
  mostMs: number,
  act: (world: World, ms: number) => Promise<void>,
): Fault {
  return {
    id,
    name,
    touches: 'redis',
    deal(random: Random) {
      const ms = span(random, leastMs, mostMs)
      return { choices: seconds(ms), inject: (world) => act(world, ms) }
    },
  }
}

// Nobody gets in before all is forgotten, as if its disk had been lost.
async function returnEmpty({ redis, redisProxy, fleet }: World, ms: number): Promise<void> {
  await redisProxy.refuse()
  redisProxy.cut()
  const from = monotonicNs()
  await redis.kill9()
  await hold(ms)
  await redis.start()
  await forget(redis)
  fleet.redisForgot({ since: ALL, from, at: monotonicNs() })
  await redisProxy.accept()
}

async function forget({ url }: Pick<Server, 'url'>): Promise<void> {
  const client = new Redis(url, { lazyConnect: true })
  await client.connect()
  await client.flushall('SYNC').finally(() => client.disconnect())
}

async function failOver({ sentinel, fleet }: World, ms: number): Promise<void> {
  if (!sentinel) throw new Error('expected a world with Sentinel, got one without: the row needs to ask for it')
  const old = await sentinel.master()
  const from = monotonicNs()
  await old.kill9()
  fleet.redisForgot({ since: from - BEHIND_MS * 1e6, from, at: monotonicNs() })
  await eventually(async () => (await sentinel.master()) !== old || Promise.reject(new Error('still the old one')), {
    withinMs: 60_000,
    what: 'another Redis master',
  })
  await hold(ms)
  await sentinel.whole()
}

function onCluster(id: string, name: string, after?: (server: Server) => Promise<void>): Fault {
  return {
    id,
    name,
    touches: 'redis',
    deal(random: Random) {
      const [which, ms] = [random.between(0, 2), span(random, 500, 4_000)]
      const inject = async ({ redisCluster, fleet }: World) => {
        if (!redisCluster)
          throw new Error('expected a world with a Redis Cluster, got one without: the row needs to ask')
        const server = at(which, redisCluster.servers)
        const from = monotonicNs()
        await server.kill9()
        await hold(ms)
        await server.start()
        if (after) {
          await after(server)
          fleet.redisForgot({ since: ALL, from, at: monotonicNs() })
        }
        await redisCluster.whole()
      }
      return { choices: `master ${which + 1}, ${seconds(ms)}`, inject }
    },
  }
}
