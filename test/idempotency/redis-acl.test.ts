import { readFileSync } from 'node:fs'
import { expect } from 'chai'
import { Cluster, Redis } from 'ioredis'
import { v7 } from 'uuid'
import type { Ending, Scope } from '../../lib/idempotency/idempotency.ts'
import { RedisIdempotencyStore } from '../../lib/idempotency/redis.ts'
import { placeOf } from '../../lib/idempotency/redis-packing.ts'
import { RedisDecisionStore } from '../../lib/transactional-message/redis.ts'
import { startRedisCluster } from '../lab/cluster/redis-cluster.ts'
import { type Server, startRedis } from '../support/services.ts'
import { packedKey, tidy } from './redis-filler.ts'

const scope: Scope = { name: `orders ${v7()}`, retentionMs: 14 * 24 * 3_600_000, leaseMs: 60_000, maxStarts: 3 }
const decisions = { name: `orders ${v7()}`, retentionMs: 600_000 }

/** Name and rules of the user, as the README gives them. */
function userOfReadme(): { name: string; password: string; rules: string[] } {
  const readme = readFileSync(new URL('../../README.md', import.meta.url), 'utf8')
  const [, name = '', password = '', rules = ''] = /^ACL SETUSER (\S+) on '>(.*?)' (.*)$/m.exec(readme) ?? []
  return { name, password, rules: rules.split(' ') }
}

/** Makes that user. */
async function addUser(admin: Redis): Promise<{ name: string; password: string }> {
  const { name, password, rules } = userOfReadme()
  await admin.call('ACL', 'SETUSER', name, 'on', `>${password}`, ...rules)
  return { name, password }
}

async function run(store: RedisIdempotencyStore, ids: readonly string[], ending: Ending): Promise<void> {
  const claims = ids.map((id) => ({ id, digest: undefined, generation: 0, attempt: 1, sequence: 1 }))
  const claimed = await store.claim(scope, 'a', claims)
  const settlements = claimed.map((answer, i) => {
    if (answer.status !== 'acquired') throw new Error(`expected acquired, got ${answer.status}`)
    return { id: ids[i]!, fencingToken: answer.fencingToken, digest: undefined, ending }
  })
  expect(new Set(await store.settle(scope, 'a', settlements))).to.deep.equal(new Set(['settled']))
}

/** Everything that a store asks of Redis. */
async function exercise(store: RedisIdempotencyStore, ids: readonly string[]): Promise<void> {
  await run(store, ids, { state: 'completed' })
  await run(store, ['1'], { state: 'completed' })
  await run(store, ['2'], { state: 'failed', nextAttempt: 2 })
  await run(store, ['3'], { state: 'dead', generation: 0 })
  expect(await store.renew(scope, 'a')).to.equal('held')
  const seen = await store.look(scope, [ids[0]!, '1', '2', '3'])
  expect(seen.map(({ state }) => state)).to.deep.equal(['completed', 'completed', 'released', 'dead'])
  expect(await store.check()).to.deep.equal([])
  expect(await store.renew(scope, 'a', { leave: true })).to.equal('held')
}

describe('a Redis user with the permissions of the README', function () {
  this.timeout(60_000)
  let server: Server
  let admin: Redis
  let url: string
  before(async () => {
    server = await startRedis()
    admin = new Redis(server.url)
    const { name, password } = await addUser(admin)
    url = `redis://${name}:${encodeURIComponent(password)}@127.0.0.1:${server.port}`
  })
  after(async () => {
    admin.disconnect()
    await server.close()
  })

  it('may do all that the idempotency store asks for, its check and its tidying included', async () => {
    await using store = new RedisIdempotencyStore(url)
    const msecs = Date.now()
    const all = Array.from({ length: 4_000 }, () => v7({ msecs }))
    const ids = all.filter((id) => placeOf(id).shard === 0)
    await exercise(store, ids.slice(0, 130))
    await run(store, ids.slice(130), { state: 'completed' })
    const bucket = packedKey(scope.name, ids[0]!, 'b')
    const reserved = (await admin.memory('USAGE', bucket))!
    using client = closing(new Redis(url))
    await tidy(client.redis, scope.name, ids)
    expect(await admin.memory('USAGE', bucket)).to.be.lessThan(reserved)
    expect(await admin.call('ACL', 'LOG')).to.deep.equal([])
  })

  it('may do so on a Redis Cluster', async () => {
    const masters = await startRedisCluster()
    const admins = masters.startupNodes.map((node) => new Redis({ ...node }))
    try {
      const [user] = await Promise.all(admins.map(addUser))
      const redisOptions = { username: user!.name, password: user!.password }
      const cluster = new Cluster([...masters.startupNodes], { redisOptions })
      using _ = { [Symbol.dispose]: () => cluster.disconnect() }
      await using store = new RedisIdempotencyStore(cluster)
      await exercise(store, [v7()])
      for (const each of admins) expect(await each.call('ACL', 'LOG')).to.deep.equal([])
    } finally {
      for (const each of admins) each.disconnect()
      await masters.close()
    }
  })

  it('may do all that the decision store asks for', async () => {
    await using store = new RedisDecisionStore(url)
    expect(await store.decide(decisions, 't', 'committed', 'service')).to.include({ decision: 'committed' })
    await store.published(decisions, 't', 'h')
    expect(await store.checked(decisions, 't')).to.equal(1)
    expect(await store.look(decisions, ['t'])).to.have.length(1)
    expect(await store.check()).to.deep.equal([])
    expect(await admin.call('ACL', 'LOG')).to.deep.equal([])
  })

  it('may not touch what others keep there', async () => {
    using client = closing(new Redis(url))
    for (const command of ['SET other 1', 'FLUSHALL', 'KEYS *', 'CONFIG SET save never']) {
      const [name = '', ...args] = command.split(' ')
      const refused = client.redis.call(name, ...args).catch(({ message }: Error) => message)
      expect(await refused, command).to.match(/^NOPERM/)
    }
  })
})

function closing(redis: Redis): { redis: Redis } & Disposable {
  return { redis, [Symbol.dispose]: () => redis.disconnect() }
}
