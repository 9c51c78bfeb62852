import { randomUUID } from 'node:crypto'
import { expect } from 'chai'
import { v7 } from 'uuid'
import type { Scope } from '../../lib/idempotency/idempotency.ts'
import { RedisIdempotencyStore, TIDIED_PARTS } from '../../lib/idempotency/redis.ts'
import { BUCKET_BYTES_MAX, SLICE_BYTES_MAX } from '../../lib/idempotency/redis-lua-packed.ts'
import { placeOf, writeIdentity } from '../../lib/idempotency/redis-packing.ts'

import { eventually } from '../support/eventually.ts'
import { fieldsOf, fillBuckets, fillOverflows, packedKey, tidy } from './redis-filler.ts'
import { sharedRedis } from './redis-under-test.ts'

describe('what the Redis store keeps', () => {
  const redis = sharedRedis()
  let store: RedisIdempotencyStore
  let scope: Scope
  beforeEach(() => {
    store = new RedisIdempotencyStore(redis.client)
    scope = { name: `kept ${randomUUID()}`, retentionMs: 3_600_000, leaseMs: 60_000, maxStarts: 3 }
  })
  afterEach(() => store.close())

  const keys = (kind: string) => redis.client.keys(`surehop:{${scope.name}:?}:${kind}:*`)
  const bucketOf = (id: string) => packedKey(scope.name, id, 'b')
  const overflowOf = (id: string) => packedKey(scope.name, id, 'm')

  async function complete(ids: readonly string[], by = store): Promise<string[]> {
    const endings = ids.map((id) => ({
      id,
      fencingToken: 1,
      digest: undefined,
      ending: { state: 'completed' } as const,
    }))
    return by.settle(scope, 'a', endings)
  }

  const claimOf = (id: string, digest?: Buffer) => ({ id, digest, generation: 0, attempt: 1, sequence: 1 })

  async function states(ids: readonly string[]): Promise<string[]> {
    return [...new Set((await store.look(scope, ids)).map(({ state }) => state))]
  }

  async function areCompletedForClaims(ids: readonly string[]): Promise<void> {
    const claims = ids.map((id) => claimOf(id))
    const answers = await store.claim(scope, 'b', claims)
    expect(new Set(answers.map(({ status }) => status))).to.deep.equal(new Set(['completed']))
  }

  it('is 16 bytes for a completed UUIDv7, and no key of its own', async () => {
    const ids = Array.from({ length: 500 }, () => v7())
    await complete(ids)
    expect(await keys('i')).to.deep.equal([])
    const lengths = await Promise.all((await keys('b')).map((key) => redis.client.strlen(key)))
    expect(lengths.reduce((a, b) => a + b)).to.equal(16 * ids.length)
    expect(await states(ids)).to.deep.equal(['completed'])
  })

  it('lives at least the retention after the last change, and not for ever', async () => {
    const claims = [v7(), 'text'].map((id) => ({ id, digest: undefined, generation: 0, attempt: 1, sequence: 1 }))
    await store.claim(scope, 'a', claims)
    await complete([v7(), 'other'])
    const kept = [...(await keys('i')), ...(await keys('b'))]
    expect(kept).to.have.length(4)
    for (const key of kept)
      expect(await redis.client.pttl(key)).to.be.within(scope.retentionMs - 5_000, scope.retentionMs * 1.05)
  })

  it('is left as it is, with its time to live, by claims and settlements that are refused', async () => {
    const id = v7()
    const claim = { id, digest: undefined, generation: 0, attempt: 1, sequence: 1 }
    const [granted] = await store.claim(scope, 'a', [claim])
    if (granted?.status !== 'acquired') throw new Error(`expected acquired, got ${granted?.status}`)
    const [key] = await keys('i')
    const before = await redis.client.getBuffer(key!)
    await redis.client.pexpire(key!, 30_000)
    const settlement = { id, digest: undefined, ending: { state: 'completed' } as const }
    const { fencingToken } = granted
    expect(await store.settle(scope, 'b', [{ ...settlement, fencingToken }])).to.deep.equal(['lost'])
    expect(await store.settle(scope, 'a', [{ ...settlement, fencingToken: fencingToken - 1 }])).to.deep.equal(['lost'])
    expect((await store.claim(scope, 'b', [claim]))[0]?.status).to.equal('leased')
    expect(await redis.client.getBuffer(key!)).to.deep.equal(before)
    expect(await redis.client.pttl(key!)).to.be.within(1, 30_000)
    expect(await store.settle(scope, 'a', [{ ...settlement, fencingToken }])).to.deep.equal(['settled'])
  })

  it('prolongs a bucket that is written to late', async () => {
    const id = v7()
    await complete([id])
    await redis.client.pexpire(bucketOf(id), 1_000)
    await complete([sibling(id)])
    expect(await redis.client.pttl(bucketOf(id))).to.be.greaterThan(scope.retentionMs - 5_000)
  })

  it('is not mistaken where the bytes of an id stand across two entries', async () => {
    const id = v7()
    const identity = Buffer.alloc(16)
    writeIdentity(identity, placeOf(id), 0)
    await redis.client.set(bucketOf(id), Buffer.concat([Buffer.alloc(7, 0xff), identity, Buffer.alloc(9, 0xff)]))
    expect(await states([id])).to.deep.equal(['absent'])
    await complete([id])
    expect(await states([id])).to.deep.equal(['completed'])
  })

  it('goes to the overflow, all of it, where a bucket is full, is found there, and is no key of its own', async () => {
    const id = v7()
    const ids = [id, ...Array.from({ length: 200 }, (_, n) => sibling(id, n))]
    await fillBuckets(redis.client, scope.name, ids, 20)
    for (let i = 0; i < ids.length; i += 30)
      expect(new Set(await complete(ids.slice(i, i + 30)))).to.deep.equal(new Set(['settled']))
    expect(await redis.client.get(bucketOf(id))).to.equal('moved')
    const fields = await redis.client.hvalsBuffer(overflowOf(id))
    expect(Buffer.concat(fields)).to.have.length(BUCKET_BYTES_MAX + 16 * (ids.length - 20))
    expect(await keys('i')).to.deep.equal([])
    expect(await states(ids)).to.deep.equal(['completed'])
    await using other = new RedisIdempotencyStore(redis.client)
    const answers = await other.claim(
      scope,
      'b',
      ids.map((id) => claimOf(id)),
    )
    expect(new Set(answers.map(({ status }) => status))).to.deep.equal(new Set(['completed']))
    expect(new Set(await complete(ids, other))).to.deep.equal(new Set(['already']))
    expect((await other.claim(scope, 'b', [claimOf(sibling(id, 200))]))[0]?.status).to.equal('acquired')
  })

  it('is found in a bucket that was full before the id was settled, and became full after it was claimed', async () => {
    const [before, between] = [v7(), v7()]
    await complete([before])
    const digest = Buffer.alloc(32, 1)
    const [granted] = await store.claim(scope, 'a', [claimOf(between, digest)])
    if (granted?.status !== 'acquired') throw new Error(`expected acquired, got ${granted?.status}`)
    await fillBuckets(redis.client, scope.name, [before, between], 0)
    const { fencingToken } = granted
    const ended = { id: between, fencingToken, digest, ending: { state: 'completed' } as const }
    expect(await store.settle(scope, 'a', [ended, ended])).to.deep.equal(['settled', 'already'])
    expect(await store.settle(scope, 'a', [ended])).to.deep.equal(['already'])
    expect(await redis.client.get(bucketOf(between))).to.equal('moved')
    await using other = new RedisIdempotencyStore(redis.client)
    const claims = [claimOf(before), claimOf(between, digest), claimOf(between, Buffer.alloc(32, 2))]
    const answers = await other.claim(scope, 'b', claims)
    expect(answers.map(({ status }) => status)).to.deep.equal(['completed', 'completed', 'conflict'])
  })

  it('is found where a bucket stayed full beside its overflow, and both become one when more comes', async () => {
    const inBucket = v7()
    const [second, third] = [sibling(inBucket, 1), sibling(inBucket, 2)]
    const entry = (id: string) => {
      const bytes = Buffer.alloc(16)
      writeIdentity(bytes, placeOf(id), 0)
      return bytes
    }
    await complete([inBucket])
    await fillBuckets(redis.client, scope.name, [inBucket], 0)
    await redis.client.hset(overflowOf(inBucket), new Map([[fieldsOf(second).slice, entry(second)]]))
    await redis.client.pexpire(overflowOf(inBucket), 1_000)
    await redis.client.pexpire(bucketOf(inBucket), 10 * scope.retentionMs)
    expect(await states([inBucket, second])).to.deep.equal(['completed'])
    expect(await states([third])).to.deep.equal(['absent'])
    expect(await complete([third, second, inBucket, third])).to.deep.equal(['settled', 'already', 'already', 'already'])
    expect(await redis.client.get(bucketOf(inBucket))).to.equal('moved')
    expect(await states([inBucket, second, third])).to.deep.equal(['completed'])
    for (const key of [bucketOf(inBucket), overflowOf(inBucket)])
      expect(await redis.client.pttl(key)).to.be.greaterThan(9 * scope.retentionMs)
  })

  it('stays in a full bucket that does not fit into its overflow', async () => {
    const id = v7()
    await complete([id])
    await fillBuckets(redis.client, scope.name, [id], 0)
    await fillOverflows(redis.client, scope.name, [id], 'parts')
    const late = sibling(id)
    await complete([late])
    expect(await redis.client.strlen(bucketOf(id))).to.equal(BUCKET_BYTES_MAX)
    expect(await states([id, late])).to.deep.equal(['completed'])
  })

  it('is found in a bucket that is longer than one is today, and goes to its overflow', async () => {
    const old = v7()
    const young = sibling(old)
    await complete([old])
    await redis.client.append(bucketOf(old), Buffer.alloc(256 * 1024))
    await complete([young])
    expect(await redis.client.strlen(bucketOf(old))).to.be.greaterThan(256 * 1024)
    expect(await redis.client.hlen(overflowOf(old))).to.equal(1)
    expect(await states([old, young])).to.deep.equal(['completed'])
  })

  it('is a key of its own where the overflow is full too, so that no id makes others slow', async () => {
    const id = v7()
    await fillBuckets(redis.client, scope.name, [id], 0)
    await fillOverflows(redis.client, scope.name, [id], 'parts')
    await complete([id])
    expect(await keys('i')).to.have.length(1)
    expect(await states([id])).to.deep.equal(['completed'])
    expect((await store.claim(scope, 'b', [claimOf(id)]))[0]?.status).to.equal('completed')
  })

  it('says to the minute when it was completed, whatever time the id carries, and packs it where that is within weeks', async () => {
    const DAY_MS = 86_400_000
    const carried = [-20_000, -60, -41, 0, 2, 3, 20_000].map((days) => Math.max(0, Date.now() + days * DAY_MS))
    const ids = carried.map((msecs) => v7({ msecs }))
    await complete(ids)
    const near = (what: string, at: number) => expect(Math.abs(Date.now() - at), what).to.be.lessThan(120_000)
    const answers = await store.claim(
      scope,
      'b',
      ids.map((id) => claimOf(id)),
    )
    for (const [n, view] of (await store.look(scope, ids)).entries()) {
      near(`look: ${ids[n]}`, view.state === 'completed' ? view.completedAt : 0)
      const answer = answers[n]!
      near(`claim: ${ids[n]}`, answer.status === 'completed' ? answer.completedAt : 0)
    }
    expect(await keys('i')).to.have.length(4)
  })

  it('prolongs a full bucket together with its overflow: neither is forgotten before the other', async () => {
    const id = v7()
    await fillBuckets(redis.client, scope.name, [id], 0)
    await complete([id])
    for (const key of [bucketOf(id), overflowOf(id)]) await redis.client.pexpire(key, 1_000)
    await complete([sibling(id)])
    for (const key of [bucketOf(id), overflowOf(id)])
      expect(await redis.client.pttl(key)).to.be.within(scope.retentionMs - 5_000, scope.retentionMs * 1.05)
  })

  it('goes to a part of its slice where that is full, and is found in both', async () => {
    const inSlice = v7()
    await fillBuckets(redis.client, scope.name, [inSlice], 0)
    await complete([inSlice])
    await fillOverflows(redis.client, scope.name, [inSlice], 'slices')
    const inPart = Array.from({ length: 40 }, (_, n) => sibling(inSlice, n))
    expect(new Set(await complete(inPart))).to.deep.equal(new Set(['settled']))
    const ids = [inSlice, ...inPart]
    const sizes = async (field: Buffer) => (await redis.client.hgetBuffer(overflowOf(inSlice), field))?.length
    expect(await sizes(fieldsOf(inSlice).slice)).to.equal(SLICE_BYTES_MAX)
    const parts = new Map(inPart.map((id) => [fieldsOf(id).part.toString('hex'), fieldsOf(id).part]))
    const lengths = await Promise.all([...parts.values()].map(sizes))
    expect(lengths.reduce((sum = 0, length = 0) => sum + length, 0)).to.equal(16 * inPart.length)
    expect(await keys('i')).to.deep.equal([])
    expect(await states(ids)).to.deep.equal(['completed'])
    expect(new Set(await complete(ids))).to.deep.equal(new Set(['already']))
    await areCompletedForClaims(ids)
  })

  it('remembers an owner that fell silent for an hour, and then no longer; one that left, not at all', async () => {
    const hour = 3_600_000
    const owners = `surehop:{${scope.name}:3}:o`
    for (const owner of ['silent', 'forgotten', 'gone']) await store.renew(scope, owner)
    await store.renew(scope, 'gone', { leave: true })
    const silentFor = async (owner: string, ms: number) => {
      const entry = (await redis.client.hgetBuffer(owners, owner))!
      entry.writeDoubleLE(Date.now() - ms, 0)
      await redis.client.hset(owners, owner, entry)
    }
    await silentFor('silent', hour - 60_000)
    await silentFor('forgotten', hour + 1_000)
    // A renewal looks through one hash in sixteen.
    await eventually(async () => {
      await store.renew(scope, 'another')
      expect(await redis.client.hkeys(owners)).to.have.members(['silent', 'another'])
    })
    for (let n = 0; n < 100; n++) await store.renew(scope, 'another')
    expect(await redis.client.hkeys(owners)).to.have.members(['silent', 'another'])
  })

  it('remembers owners for as long as the longest of them needs, whoever writes last', async () => {
    const day = 24 * 3_600_000
    await store.renew({ ...scope, leaseMs: day }, 'long')
    await store.claim({ ...scope, leaseMs: 300 }, 'short', [claimOf(v7())])
    await store.renew({ ...scope, leaseMs: 300 }, 'short')
    for (const key of await redis.client.keys(`surehop:{${scope.name}:?}:o`))
      expect(await redis.client.pttl(key)).to.be.greaterThan(2 * day - 60_000)
    const brief = { ...scope, name: `brief ${randomUUID()}`, leaseMs: 300 }
    await store.renew(brief, 'short')
    for (const key of await redis.client.keys(`surehop:{${brief.name}:?}:o`))
      expect(await redis.client.pttl(key)).to.be.within(3_600_000, 3 * 3_600_000)
  })

  describe('half an hour later', () => {
    /** Two archives ago, seen from the test: the file may have been read many minutes before. */
    const old = (n: number) => Date.now() - 2 * 64 * 2 ** 14 - n
    const inPassing = async (done: () => Promise<unknown>) => {
      await using other = new RedisIdempotencyStore(redis.client)
      for (let settled = 0; settled < TIDIED_PARTS; settled++) await complete([v7()], other)
      await eventually(done)
    }

    it('is in an archive, with others of 17 minutes, and in no bucket', async () => {
      const ids = Array.from({ length: 300 }, (_, n) => v7({ msecs: old(n * 1_000) }))
      await complete(ids)
      const buckets = [...new Set(ids.map(bucketOf))]
      const archiveOf = (id: string) => packedKey(scope.name, id, 'a')
      const older = ids.findLast((id) => {
        return ids.some((other) => archiveOf(other) === archiveOf(id) && placeOf(other).window > placeOf(id).window)
      })!
      await redis.client.pexpire(bucketOf(older), 10 * scope.retentionMs)
      await tidy(redis.client, scope.name, ids)
      expect(await keys('b')).to.deep.equal([])
      const archives = await keys('a')
      expect(archives).to.have.length.lessThan(buckets.length / 4)
      const lengths = await Promise.all(archives.map((key) => redis.client.strlen(key)))
      expect(lengths.reduce((a, b) => a + b)).to.equal(17 * ids.length)
      for (const key of archives)
        expect(await redis.client.pttl(key)).to.be.greaterThan((key === archiveOf(older) ? 9 : 0.9) * scope.retentionMs)
      expect(await states(ids)).to.deep.equal(['completed'])
      expect(new Set(await complete(ids))).to.deep.equal(new Set(['already']))
      await areCompletedForClaims(ids)
    })

    it('is in its archive after some settlements of others', async () => {
      const id = v7({ msecs: old(0) })
      await complete([id])
      await inPassing(async () => expect(await redis.client.exists(bucketOf(id))).to.equal(0))
      expect(await redis.client.strlen(packedKey(scope.name, id, 'a'))).to.equal(17)
      expect(await states([id])).to.deep.equal(['completed'])
    })

    it('is not taken for another id of the same random bits and another time', async () => {
      const id = v7({ msecs: old(0) })
      const others = twins(id)
      await complete([id, others[3]!])
      await tidy(redis.client, scope.name, [id])
      expect(await keys('b')).to.deep.equal([])
      const views = (await store.look(scope, others)).map(({ state }) => state)
      const expected = others.map((_, n) => (n === 3 ? 'completed' : 'absent'))
      expect(views).to.deep.equal(expected)
      const answers = await store.claim(
        scope,
        'b',
        others.map((id) => claimOf(id)),
      )
      const statuses = answers.map(({ status }) => (status === 'acquired' ? 'absent' : status))
      expect(statuses).to.deep.equal(expected)
      await redis.client.del(await keys('i'))
      expect(await complete(others)).to.deep.equal(others.map((_, n) => (n === 3 ? 'already' : 'settled')))
      await tidy(redis.client, scope.name, [id])
      expect(await keys('b')).to.deep.equal([])
      expect(await states([id, ...others])).to.deep.equal(['completed'])
    })

    it('is in a new bucket if it comes late, and joins the archive', async () => {
      const id = v7({ msecs: old(0) })
      const late = sibling(id)
      await complete([id])
      await tidy(redis.client, scope.name, [id])
      expect((await store.claim(scope, 'b', [claimOf(late)]))[0]?.status).to.equal('acquired')
      await store.renew(scope, 'b', { leave: true })
      await redis.client.del(await keys('i'))
      expect(await complete([late, id, late])).to.deep.equal(['settled', 'already', 'already'])
      expect(await redis.client.strlen(bucketOf(id))).to.equal(16)
      expect(await states([id, late])).to.deep.equal(['completed'])
      await tidy(redis.client, scope.name, [id])
      expect(await redis.client.strlen(packedKey(scope.name, id, 'a'))).to.equal(34)
      expect(await states([id, late])).to.deep.equal(['completed'])
    })

    it('stays in its bucket where that is large, was full, or the archive has no room', async () => {
      const [large, full, small] = [0, 1, 2].map((n) => v7({ msecs: old(n * 2 ** 14) }))
      const many = Array.from({ length: 33 }, (_, n) => sibling(large!, n))
      const archive = packedKey(scope.name, small!, 'a')
      await redis.client.set(archive, Buffer.alloc(BUCKET_BYTES_MAX, 1), 'PX', 60_000)
      await complete([...many, small!])
      await fillBuckets(redis.client, scope.name, [full!], 0)
      await complete([full!])
      await tidy(redis.client, scope.name, [large!, full!, small!])
      expect(await redis.client.strlen(bucketOf(large!))).to.equal(33 * 16)
      expect(await redis.client.get(bucketOf(full!))).to.equal('moved')
      expect(await redis.client.strlen(bucketOf(small!))).to.equal(16)
      expect(await states([...many, full!, small!])).to.deep.equal(['completed'])
    })

    it('takes no more than its bytes where APPEND had reserved more', async () => {
      const first = v7({ msecs: old(0) })
      const siblings = [first, ...Array.from({ length: 66 }, (_, n) => sibling(first, n))]
      await complete(siblings.slice(0, 40))
      await complete(siblings.slice(40))
      const bucket = bucketOf(first)
      const [before, ttl] = [(await redis.client.memory('USAGE', bucket))!, await redis.client.pttl(bucket)]
      await inPassing(async () => {
        expect(await redis.client.memory('USAGE', bucket)).to.be.lessThan(before - 500)
      })
      expect(await redis.client.pttl(bucket)).to.be.within(ttl - 15_000, ttl)
      expect(await states(siblings)).to.deep.equal(['completed'])
    })
  })
})

/** All other ids of the same archive that differ in nothing but their window. */
function twins(id: string): string[] {
  const bytes = Buffer.from(id.replaceAll('-', ''), 'hex')
  const ms = bytes.readUIntBE(0, 6)
  const first = ms - (ms % 2 ** 20) + (ms % 2 ** 14)
  return Array.from({ length: 64 }, (_, n) => first + n * 2 ** 14)
    .filter((other) => other !== ms)
    .map((other) => {
      bytes.writeUIntBE(other, 0, 6)
      return idOf(bytes)
    })
}

/** Another id of the same bucket: the same change in two bytes leaves the shard alone. */
function sibling(id: string, n = 0): string {
  const bytes = Buffer.from(id.replaceAll('-', ''), 'hex')
  bytes[15]! ^= n + 1
  bytes[14]! ^= n + 1
  return idOf(bytes)
}

function idOf(bytes: Buffer): string {
  return bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5')
}
