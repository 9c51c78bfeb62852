// The contract on a real Redis Cluster: three masters on loopback.

import { expect } from 'chai'
import { Cluster, Redis } from 'ioredis'
import { v7 } from 'uuid'
import { StoreUnavailable } from '../../lib/errors.ts'
import type { Claim, Scope } from '../../lib/idempotency/idempotency.ts'
import { RedisIdempotencyStore } from '../../lib/idempotency/redis.ts'
import { idempotencyStoreContract } from '../../lib/testing/index.ts'
import { eventually } from '../support/eventually.ts'
import { type Server, startRedis } from '../support/services.ts'

const MASTERS = 3
const SLOTS = 16_384

/** Deals out the slots, lets the masters meet, and waits until all agree that the cluster stands. */
async function join(servers: readonly Server[]): Promise<void> {
  const clients = servers.map(({ url }) => new Redis(url))
  const first = servers[0]!
  for (const [i, client] of clients.entries()) {
    const [from, to] = [i, i + 1].map((n) => Math.floor((n * SLOTS) / servers.length))
    await client.call('CLUSTER', 'SET-CONFIG-EPOCH', i + 1)
    await client.call('CLUSTER', 'ADDSLOTSRANGE', from!, to! - 1)
    if (i > 0) await client.call('CLUSTER', 'MEET', '127.0.0.1', first.port)
  }
  const stands = async (client: Redis) => {
    const info = String(await client.call('CLUSTER', 'INFO'))
    return /cluster_state:ok/.test(info) && new RegExp(`cluster_known_nodes:${servers.length}`).test(info)
  }
  await eventually(async () => (await Promise.all(clients.map(stands))).every(Boolean), { withinMs: 30_000 })
  for (const client of clients) client.disconnect()
}

describe('on a Redis Cluster', function () {
  this.timeout(90_000)
  let servers: Server[] = []
  let cluster: Cluster

  before(async () => {
    const args = ['--cluster-enabled', 'yes', '--cluster-node-timeout', '1500']
    servers = await Promise.all(Array.from({ length: MASTERS }, () => startRedis({ args })))
    await join(servers)
    cluster = new Cluster(servers.map(({ port }) => ({ host: '127.0.0.1', port })))
    cluster.on('error', () => {})
  })
  after(async () => {
    cluster?.disconnect()
    await Promise.all(servers.map((server) => server.close()))
  })

  const open = () => new RedisIdempotencyStore(cluster)
  for (const { name, run } of idempotencyStoreContract({ name: 'RedisIdempotencyStore', open })) it(name, run)

  it('is checked on every master', async () => {
    await using store = open()
    expect(await store.check()).to.deep.equal([])
    await cluster.nodes('master')[1]!.config('SET', 'maxmemory-policy', 'volatile-lru')
    expect((await store.check()).join()).to.contain('volatile-lru')
  })

  it('fails closed while a master is gone, and goes on by itself when it is back', async () => {
    const scope: Scope = { name: 'gone', retentionMs: 600_000, leaseMs: 60_000, maxStarts: 3 }
    const claims = Array.from({ length: 60 }, (_, i): Claim => {
      return { id: v7(), digest: undefined, generation: 0, attempt: 1, sequence: i }
    })
    await using store = open()
    const first = await store.claim(scope, 'a', claims)
    await servers[1]!.kill9()
    const began = performance.now()
    const error = await store.claim(scope, 'a', claims).catch((thrown: unknown) => thrown)
    expect(error).to.be.instanceOf(StoreUnavailable)
    expect(performance.now() - began).to.be.lessThan(2_500)
    await servers[1]!.start()
    const again = await eventually(() => store.claim(scope, 'a', claims), { withinMs: 30_000 })
    expect(again, 'it was on disk').to.deep.equal(first)
    expect(await store.renew(scope, 'a')).to.equal('held')
  })
})
