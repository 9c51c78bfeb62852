import { randomUUID } from 'node:crypto'
import { expect } from 'chai'
import { Redis } from 'ioredis'
import { v7 } from 'uuid'
import { StoreUnavailable } from '../../lib/errors.ts'
import type { Claim, Scope } from '../../lib/idempotency/idempotency.ts'
import { RedisIdempotencyStore } from '../../lib/idempotency/redis.ts'
import { eventually } from '../support/eventually.ts'
import { freePort } from '../support/ports.ts'
import { type Server, startRedis } from '../support/services.ts'
import { fillBuckets } from './redis-filler.ts'

const scope: Scope = { name: 'outage', retentionMs: 600_000, leaseMs: 60_000, maxStarts: 3 }
const claimOf = (id: string = v7()): Claim => ({ id, digest: undefined, generation: 0, attempt: 1, sequence: 1 })

/** What a call was refused with, and how long that took. */
async function refusal(call: Promise<unknown>): Promise<{ error: StoreUnavailable; tookMs: number }> {
  const began = performance.now()
  const error = await call.then(
    () => undefined,
    (thrown: unknown) => thrown,
  )
  expect(error).to.be.instanceOf(StoreUnavailable)
  return { error: error as StoreUnavailable, tookMs: performance.now() - began }
}

describe('the Redis store without a certain answer', function () {
  this.timeout(60_000)
  let server: Server
  let client: Redis
  let store: RedisIdempotencyStore
  before(async () => {
    server = await startRedis()
  })
  beforeEach(() => {
    client = new Redis(server.url)
    client.on('error', () => {})
    store = new RedisIdempotencyStore(client, { commandTimeoutMs: 400 })
  })
  afterEach(async () => {
    await store.close()
    client.disconnect()
  })
  after(() => server.close())

  it('says at once that nothing listens, where, and no password', async () => {
    const port = await freePort()
    await using nowhere = new RedisIdempotencyStore({ url: `redis://user:s3cret@127.0.0.1:${port}` })
    for (let n = 0; n < 3; n++) {
      const { error, tookMs } = await refusal(nowhere.claim(scope, 'a', [claimOf()]))
      expect(tookMs).to.be.lessThan(8_000)
      expect(error.message).to.match(new RegExp(`Redis at 127.0.0.1:${port} .*nothing listens there`))
    }
    await refusal(nowhere.check())
  })

  it('names a refused login without the password, also in the cause', async () => {
    await using locked = new RedisIdempotencyStore({ url: `redis://nobody:s3cret@127.0.0.1:${server.port}` })
    const { error } = await refusal(locked.claim(scope, 'a', [claimOf()]))
    expect(error.message).to.contain('it refuses the login')
    expect(JSON.stringify([error, error.cause, Object.entries(error.cause as object)])).not.to.contain('s3cret')
  })

  it('P26: gives up on a frozen Redis within the command timeout, and goes on by itself when it thaws', async () => {
    const claim = claimOf()
    await store.claim(scope, 'a', [claimOf()])
    await server.freeze()
    for (let n = 0; n < 4; n++) {
      const { error, tookMs } = await refusal(store.claim(scope, 'a', [claim]))
      expect(tookMs).to.be.lessThan(8_000)
      expect(error.message).to.match(/did not answer in time \(waited 400 ms\)|cannot be used/)
    }
    await server.thaw()
    const [answer] = await eventually(() => store.claim(scope, 'a', [claim]))
    expect(answer).to.include({ status: 'acquired', starts: 1 })
  })

  it('refuses at once while Redis is down, and goes on by itself when it is back', async () => {
    const claim = claimOf()
    const [first] = await store.claim(scope, 'a', [claim])
    expect(await store.renew(scope, 'a')).to.equal('held')
    await server.stop()
    await eventually(async () => (await refusal(store.renew(scope, 'a'))).tookMs < 100)
    await server.start()
    const [again] = await eventually(() => store.claim(scope, 'a', [claim]))
    expect(again, 'it was on disk').to.deep.equal(first)
  })

  it('tells an owner that Redis came back empty', async () => {
    const claim = claimOf()
    const [first] = await store.claim(scope, 'a', [claim])
    await client.flushall()
    expect(await store.renew(scope, 'a')).to.equal('lapsed')
    const [again] = await store.claim(scope, 'b', [claim])
    expect(again).to.include({ status: 'acquired' })
    expect(JSON.stringify(again) > JSON.stringify(first), 'the token grew').to.equal(true)
  })

  for (const [bucket, room] of [
    ['a bucket', 1],
    ['an overflow', 0],
  ] as const)
    it(`changes nothing when Redis is full and ${bucket} should take more`, async () => {
      const [held, fresh] = [claimOf(), claimOf()]
      await fillBuckets(client, scope.name, [held.id], room)
      const [grant] = await store.claim(scope, 'a', [held])
      const token = (grant as { fencingToken: number }).fencingToken
      await client.config('SET', 'maxmemory', '1')
      const ending = { id: held.id, fencingToken: token, digest: undefined, ending: { state: 'completed' } } as const
      const { error } = await refusal(store.settle(scope, 'a', [ending]))
      expect(error.message).to.contain('it is full')
      await refusal(store.claim(scope, 'a', [fresh]))
      expect((await store.look(scope, [held.id, fresh.id])).map(({ state }) => state)).to.deep.equal([
        'leased',
        'absent',
      ])
      await client.config('SET', 'maxmemory', '0')
      expect(await store.settle(scope, 'a', [ending])).to.deep.equal(['settled'])
    })

  it('refuses a replica, and says so', async () => {
    await store.claim(scope, 'a', [claimOf()])
    await client.replicaof('127.0.0.1', await freePort())
    const { error } = await refusal(store.claim(scope, 'a', [claimOf()]))
    expect(error.message).to.contain('it is a replica')
    await client.replicaof('NO', 'ONE')
    await eventually(() => store.claim(scope, 'a', [claimOf()]))
  })

  it('loads its scripts again when Redis has dropped them', async () => {
    await store.claim(scope, 'a', [claimOf()])
    await client.script('FLUSH')
    const many = Array.from({ length: 5 }, () => store.claim(scope, 'a', [claimOf()]))
    expect((await Promise.all(many)).flat().every(({ status }) => status === 'acquired')).to.equal(true)
  })

  it('leaves the client it was lent alone', async () => {
    await store.claim(scope, 'a', [claimOf()])
    await store.close()
    expect(await client.ping()).to.equal('PONG')
  })
})

describe('the check of a Redis', function () {
  this.timeout(60_000)
  let server: Server
  let client: Redis
  before(async () => {
    server = await startRedis()
    client = new Redis(server.url)
  })
  after(async () => {
    client.disconnect()
    await server.close()
  })

  const warnings = async (url = server.url) => {
    await using store = new RedisIdempotencyStore({ url })
    return (await store.check()).join('\n')
  }

  it('is content with noeviction and an append-only file', async () => {
    expect(await warnings()).to.equal('')
  })

  it('warns of eviction', async () => {
    await client.config('SET', 'maxmemory-policy', 'allkeys-lru')
    expect(await warnings()).to.contain('maxmemory-policy is allkeys-lru')
    await client.config('SET', 'maxmemory-policy', 'noeviction')
  })

  it('warns where nothing is kept on disk, and is content with snapshots', async () => {
    await client.config('SET', 'appendonly', 'no')
    expect(await warnings()).to.contain('keeps nothing on disk')
    await client.config('SET', 'save', '3600 1')
    expect(await warnings()).to.equal('')
  })

  it('says what it was not allowed to check', async () => {
    const password = randomUUID()
    await client.acl('SETUSER', 'guest', 'on', `>${password}`, '~*', '+@all', '-config')
    const url = `redis://guest:${password}@127.0.0.1:${server.port}`
    expect(await warnings(url)).to.contain('whether it saves snapshots could not be checked')
    await client.acl('SETUSER', 'guest', '-info')
    expect(await warnings(url)).to.contain('INFO is not allowed')
  })
})
