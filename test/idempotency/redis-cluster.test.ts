// The contract on a real Redis Cluster: three masters on loopback.

import { expect } from 'chai'
import { Cluster } from 'ioredis'
import { v7 } from 'uuid'
import { StoreUnavailable } from '../../lib/errors.ts'
import type { Claim, Scope } from '../../lib/idempotency/idempotency.ts'
import { RedisIdempotencyStore } from '../../lib/idempotency/redis.ts'
import { idempotencyStoreContract } from '../../lib/testing/index.ts'
import { startRedisCluster } from '../lab/cluster/redis-cluster.ts'
import type { RedisCluster } from '../lab/world.ts'
import { eventually } from '../support/eventually.ts'
import { fillBuckets } from './redis-filler.ts'

describe('on a Redis Cluster', function () {
  this.timeout(90_000)
  let masters: RedisCluster
  let cluster: Cluster

  before(async () => {
    masters = await startRedisCluster()
    cluster = new Cluster([...masters.startupNodes])
    cluster.on('error', () => {})
  })
  after(async () => {
    cluster?.disconnect()
    await masters?.close()
  })

  const open = () => new RedisIdempotencyStore(cluster)
  for (const { name, run } of idempotencyStoreContract({ name: 'RedisIdempotencyStore', open })) it(name, run)

  it('remembers what full buckets did not take', async () => {
    const scope: Scope = { name: 'full', retentionMs: 600_000, leaseMs: 60_000, maxStarts: 3 }
    const ids = Array.from({ length: 60 }, () => v7())
    await fillBuckets(cluster, scope.name, ids, 1)
    await using store = open()
    const ending = { state: 'completed' } as const
    const endings = ids.map((id) => ({ id, fencingToken: 1, digest: undefined, ending }))
    expect(new Set(await store.settle(scope, 'a', endings))).to.deep.equal(new Set(['settled']))
    expect(new Set(await store.settle(scope, 'a', endings))).to.deep.equal(new Set(['already']))
    const claims = ids.map((id, sequence) => ({ id, digest: undefined, generation: 0, attempt: 1, sequence }))
    const answers = await store.claim(scope, 'b', claims)
    expect(new Set(answers.map(({ status }) => status))).to.deep.equal(new Set(['completed']))
  })

  it('is checked on every master', async () => {
    await using store = open()
    expect(await store.check()).to.deep.equal([])
    await cluster.nodes('master')[1]!.config('SET', 'maxmemory-policy', 'volatile-lru')
    expect((await store.check()).join()).to.contain('volatile-lru')
  })

  it('is told by a node of it that was given as one Redis', async () => {
    const { host, port } = masters.startupNodes[0]!
    await using store = new RedisIdempotencyStore(`redis://${host}:${port}`)
    const scope: Scope = { name: 'plain', retentionMs: 600_000, leaseMs: 60_000, maxStarts: 3 }
    const one = { digest: undefined, generation: 0, attempt: 1 }
    const claims = Array.from({ length: 60 }, (_, sequence): Claim => ({ ...one, id: v7(), sequence }))
    const asked = [store.renew(scope, 'a'), ...claims.map((claim) => store.claim(scope, 'a', [claim]))]
    const told = (await Promise.allSettled(asked)).flatMap((end) =>
      end.status === 'rejected' ? String(end.reason) : [],
    )
    for (const answer of ['CROSSSLOT', 'MOVED']) expect(told.join()).to.contain(`(${answer} `)
    for (const text of told) expect(text).to.contain("it is a node of a cluster: give ioredis' Cluster")
  })

  it('fails closed while a slot is being moved, and goes on where it was afterwards', async () => {
    const scope: Scope = { name: 'moved', retentionMs: 600_000, leaseMs: 60_000, maxStarts: 3 }
    const claims = Array.from({ length: 60 }, (_, i): Claim => {
      return { id: v7(), digest: undefined, generation: 0, attempt: 1, sequence: i }
    })
    await using store = open()
    const first = await store.claim(scope, 'a', claims)
    await eventually(async () => expect(cluster.nodes('master')).to.have.length(3))
    const nodes = cluster.nodes('master')
    const slot = await nodes[0]!.cluster('KEYSLOT', `surehop:{${scope.name}:0}:o`)
    const counts = await Promise.all(nodes.map((node) => node.cluster('COUNTKEYSINSLOT', slot)))
    const from = nodes[counts.findIndex((count) => count > 0)]!
    const to = nodes.find((node) => node !== from)!
    const [fromId, toId] = await Promise.all([from.cluster('MYID'), to.cluster('MYID')])
    await to.cluster('SETSLOT', slot, 'IMPORTING', fromId)
    await from.cluster('SETSLOT', slot, 'MIGRATING', toId)
    const { host, port } = to.options
    const [key] = await from.cluster('GETKEYSINSLOT', slot, 1)
    await from.call('MIGRATE', host!, port!, '', 0, 5_000, 'KEYS', key!)
    const error = await store.claim(scope, 'b', claims).catch((thrown: unknown) => thrown)
    expect(error).to.be.instanceOf(StoreUnavailable)
    const rest = await from.cluster('GETKEYSINSLOT', slot, 1_000)
    await from.call('MIGRATE', host!, port!, '', 0, 5_000, 'KEYS', ...rest)
    for (const node of [to, from]) await node.cluster('SETSLOT', slot, 'NODE', toId)
    expect(await eventually(() => store.claim(scope, 'a', claims))).to.deep.equal(first)
    const others = await eventually(() => store.claim(scope, 'b', claims))
    expect(new Set(others.map(({ status }) => status))).to.deep.equal(new Set(['leased']))
  })

  it('fails closed while a master is gone, and goes on by itself when it is back', async () => {
    const scope: Scope = { name: 'gone', retentionMs: 600_000, leaseMs: 60_000, maxStarts: 3 }
    const claims = Array.from({ length: 60 }, (_, i): Claim => {
      return { id: v7(), digest: undefined, generation: 0, attempt: 1, sequence: i }
    })
    await using store = open()
    // Otherwise Redis puts off writing its file while the disk is busy.
    for (const master of cluster.nodes('master')) await master.config('SET', 'appendfsync', 'always')
    const first = await store.claim(scope, 'a', claims)
    await masters.servers[1]!.kill9()
    const began = performance.now()
    const error = await store.claim(scope, 'a', claims).catch((thrown: unknown) => thrown)
    expect(error).to.be.instanceOf(StoreUnavailable)
    expect(performance.now() - began).to.be.lessThan(8_000)
    await masters.servers[1]!.start()
    const again = await eventually(() => store.claim(scope, 'a', claims), { withinMs: 30_000 })
    expect(again, 'it was on disk').to.deep.equal(first)
    expect(await store.renew(scope, 'a')).to.equal('held')
  })
})
