// Sentinels and a Redis Cluster that nobody else uses: their servers are killed and frozen.

import { expect } from 'chai'
import { eventually } from '../../support/eventually.ts'
import { find } from '../../support/provision.ts'
import type { RedisCluster, RedisSentinel } from '../world.ts'
import { ask, fieldOf } from './redis-ask.ts'
import { startRedisCluster } from './redis-cluster.ts'
import { startRedisSentinel } from './redis-sentinel.ts'

describe('private Redis under Sentinels', function () {
  this.timeout(180_000)
  let sentinel: RedisSentinel

  before(async function () {
    // Where Redis comes in containers only, there are no Sentinels.
    if (find('redis') === undefined) return this.skip()
    sentinel = await startRedisSentinel()
  })

  after(() => sentinel?.close())

  it('promotes the replica when the master is killed; the old master comes back as its replica, with its data', async () => {
    const before = await sentinel.master()
    await ask(before, 'SET', 'kept', 'yes')
    expect(await ask(before, 'WAIT', 1, 5_000)).to.equal(1)
    await before.kill9()
    const now = await eventually(() => sentinel.master(), { withinMs: 60_000 })
    expect(now).to.not.equal(before)
    expect(await ask(now, 'GET', 'kept')).to.equal('yes')
    await sentinel.whole()
    expect(await sentinel.master()).to.equal(now)
    expect(await ask(before, 'GET', 'kept')).to.equal('yes')
    expect(fieldOf(await ask(before, 'INFO', 'replication'), 'role')).to.equal('slave')
  })

  it('keeps a role that was given over a restart', async () => {
    const master = await sentinel.master()
    await master.restart()
    expect(fieldOf(await ask(master, 'INFO', 'replication'), 'role')).to.equal('master')
    await sentinel.whole()
  })
})

describe('private Redis Cluster', function () {
  this.timeout(120_000)
  let cluster: RedisCluster

  before(async function () {
    if (find('redis') === undefined) return this.skip()
    cluster = await startRedisCluster()
  })

  after(() => cluster?.close())

  it('stands again with its data after all its masters were killed', async () => {
    const key = await keyOf(cluster)
    await Promise.all(cluster.servers.map((server) => server.kill9()))
    await cluster.whole()
    expect(await ask(cluster.servers[1]!, 'GET', key)).to.equal('yes')
  })

  it('stands again, with empty slots, after a master lost all it had', async () => {
    const key = await keyOf(cluster)
    await ask(cluster.servers[1]!, 'FLUSHALL')
    await ask(cluster.servers[1]!, 'CLUSTER', 'FLUSHSLOTS')
    await cluster.whole()
    expect(await ask(cluster.servers[1]!, 'GET', key)).to.equal(null)
  })
})

/** Sets a key that the second master keeps. */
async function keyOf({ servers }: RedisCluster): Promise<string> {
  for (let n = 0; ; n++) {
    const slot = Number(await ask(servers[0]!, 'CLUSTER', 'KEYSLOT', `kept-${n}`))
    if (slot < 6_000 || slot > 10_000) continue
    await ask(servers[1]!, 'SET', `kept-${n}`, 'yes')
    return `kept-${n}`
  }
}
