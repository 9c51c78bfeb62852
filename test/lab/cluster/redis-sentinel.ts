// A private Redis with a replica, and three Sentinels that promote the replica when the master is gone for two seconds.
//
//   whole -> master lost -> replica promoted -> (the old master back, as a replica) whole -> closed
//
// Promises: a server keeps its port and its data over kill and stop, and the role it was given last; `master` is the one that most
// Sentinels name and that says so itself; `whole` heals whatever was done to the servers and the Sentinels.
// Does not promise: that the promoted replica knows what the master acknowledged last. Replication is asynchronous.

import { eventually } from '../../support/eventually.ts'
import { startRedis, startSentinel } from '../../support/redis.ts'
import type { Server } from '../../support/server.ts'
import type { RedisSentinel } from '../world.ts'
import { ask, fieldOf, pairsOf, revive, startAll } from './redis-ask.ts'

const NAME = 'surehop'
const SENTINELS = 3
const QUORUM = 2
const DOWN_AFTER_MS = 2_000
const FAILOVER_WITHIN_MS = 6_000
// A Sentinel whose own clock jumped, as on a machine that stood still, does nothing for half a minute.
const WHOLE_WITHIN_MS = 120_000

/** Brings master, replica and Sentinels up beside all others. */
export async function startRedisSentinel(): Promise<RedisSentinel> {
  const servers = await startAll([startRedis(), startRedis()])
  const all = [...servers]
  const close = async () => void (await Promise.all(all.map((server) => server.close())))
  try {
    await follow(servers[1]!, servers[0]!)
    const sentinels = await startAll(Array.from({ length: SENTINELS }, () => startSentinel(watching(servers[0]!))))
    all.push(...sentinels)
    const sentinel = sentinelOf(servers, sentinels, close)
    await sentinel.whole()
    return sentinel
  } catch (error) {
    await close()
    throw error
  }
}

async function follow(replica: Server, master: Server): Promise<void> {
  await ask(replica, 'REPLICAOF', '127.0.0.1', master.port)
  await ask(replica, 'CONFIG', 'REWRITE')
}

function watching({ port }: Server): readonly string[] {
  return [
    `sentinel monitor ${NAME} 127.0.0.1 ${port} ${QUORUM}`,
    `sentinel down-after-milliseconds ${NAME} ${DOWN_AFTER_MS}`,
    `sentinel failover-timeout ${NAME} ${FAILOVER_WITHIN_MS}`,
  ]
}

function sentinelOf(
  servers: readonly Server[],
  sentinels: readonly Server[],
  close: () => Promise<void>,
): RedisSentinel {
  const master = () => masterOf(servers, sentinels)
  return {
    name: NAME,
    sentinels: sentinels.map(({ port }) => ({ host: '127.0.0.1', port })),
    servers,
    master,
    async whole() {
      const check = async () => {
        await revive([...servers, ...sentinels])
        const leads = await master()
        await Promise.all(sentinels.map(isContent))
        await Promise.all(servers.filter((server) => server !== leads).map((server) => follows(server, leads)))
      }
      await eventually(check, { withinMs: WHOLE_WITHIN_MS, what: 'a master with a replica and three Sentinels' })
    },
    close,
    [Symbol.asyncDispose]: close,
  }
}

async function masterOf(servers: readonly Server[], sentinels: readonly Server[]): Promise<Server> {
  const named = await Promise.all(
    sentinels.map((one) => ask(one, 'SENTINEL', 'GET-MASTER-ADDR-BY-NAME', NAME).catch(() => undefined)),
  )
  const votes = (server: Server) =>
    named.filter((it) => Number((it as string[] | undefined)?.[1]) === server.port).length
  const leads = servers.find((server) => votes(server) >= QUORUM)
  const role = leads && fieldOf(await ask(leads, 'INFO', 'replication'), 'role')
  if (leads && role === 'master') return leads
  throw new Error(
    `There is no master now: most Sentinels name ${leads?.url ?? 'none'}, whose role is ${role ?? 'none'}.`,
  )
}

async function follows(replica: Server, master: Server): Promise<void> {
  const info = await ask(replica, 'INFO', 'replication')
  const [role, port, link] = ['role', 'master_port', 'master_link_status'].map((field) => fieldOf(info, field))
  if (role === 'slave' && port === `${master.port}` && link === 'up') return
  // The Sentinels would tell a master of yesterday so themselves, ten seconds later.
  if (role === 'master') await follow(replica, master)
  throw new Error(`${replica.url} is ${role}, follows port ${port}, and its link is ${link}`)
}

async function isContent(sentinel: Server): Promise<void> {
  const view = pairsOf(await ask(sentinel, 'SENTINEL', 'MASTER', NAME))
  const [flags, others, replicas] = ['flags', 'num-other-sentinels', 'num-slaves'].map((name) => view.get(name))
  if (flags === 'master' && others === `${SENTINELS - 1}` && replicas === '1') return
  throw new Error(`a Sentinel sees a master that is ${flags}, ${others} other Sentinels and ${replicas} replicas`)
}
