// Full buckets and overflows, so that a few ids of a test meet them: filled with entries of ids that nobody asks for.

import { randomBytes } from 'node:crypto'
import type { Cluster, Redis } from 'ioredis'
import { keysOf, tidyKeys } from '../../lib/idempotency/redis-batch.ts'
import { BUCKET_BYTES_MAX, PART_BYTES_MAX, SLICE_BYTES_MAX } from '../../lib/idempotency/redis-lua-packed.ts'
import { archiveOf, placeOf, writeIdentity } from '../../lib/idempotency/redis-packing.ts'
import { tidyScript } from '../../lib/idempotency/redis-scripts.ts'

const ENTRY_BYTES = 16
const RETENTION_MS = 3_600_000

/** The key of the bucket of this id (`b`), of its overflow (`m`), or of its archive (`a`). */
export function packedKey(scope: string, id: string, kind: 'b' | 'm' | 'a'): string {
  const { shard, window } = placeOf(id)
  const number = kind === 'a' ? archiveOf(window) : window
  return `surehop:{${scope}:${shard.toString(16)}}:${kind}:${number.toString(36)}`
}

/** The fields of the overflow in which this id would be: the slice of its 128 ms, and the part of that. */
export function fieldsOf(id: string): { slice: Buffer; part: Buffer } {
  const identity = Buffer.alloc(ENTRY_BYTES)
  writeIdentity(identity, placeOf(id), 0)
  const slice = Math.floor((placeOf(id).idMs % 2 ** 14) / 128)
  return { slice: Buffer.from([slice]), part: Buffer.from([slice, identity[0]! % 8]) }
}

/** Does what the store does in passing when the windows of these ids are old. */
export async function tidy(redis: Redis | Cluster, scope: string, ids: readonly string[]): Promise<void> {
  const places = ids.filter(isPacked).map(placeOf)
  const all = places.map(({ shard, window }) => tidyKeys(keysOf('surehop', scope), shard, archiveOf(window)))
  for (const keys of new Map(all.map((keys) => [keys[0], keys])).values())
    await redis.eval(tidyScript.lua, keys.length, ...keys)
}

/** What others complete meanwhile: leaves room for so many entries in the buckets of these ids, and keeps what is there. */
export async function fillBuckets(
  redis: Redis | Cluster,
  scope: string,
  ids: readonly string[],
  room: number,
): Promise<void> {
  for (const key of new Set(ids.filter(isPacked).map((id) => packedKey(scope, id, 'b')))) {
    const missing = BUCKET_BYTES_MAX - room * ENTRY_BYTES - (await redis.strlen(key))
    if (missing > 0) await redis.append(key, randomBytes(missing))
    await redis.pexpire(key, RETENTION_MS)
  }
}

/** Leaves no room for these ids in the slices of their overflows either; and, if asked to, none in the parts of those. */
export async function fillOverflows(
  redis: Redis,
  scope: string,
  ids: readonly string[],
  full: 'slices' | 'parts',
): Promise<void> {
  for (const id of ids.filter(isPacked)) {
    const key = packedKey(scope, id, 'm')
    const { slice, part } = fieldsOf(id)
    await fillField(redis, key, slice, SLICE_BYTES_MAX)
    if (full === 'parts') await fillField(redis, key, part, PART_BYTES_MAX)
    await redis.pexpire(key, RETENTION_MS)
  }
}

async function fillField(redis: Redis, key: string, field: Buffer, size: number): Promise<void> {
  const had = (await redis.hgetBuffer(key, field)) ?? Buffer.alloc(0)
  await redis.hset(key, field, Buffer.concat([had, randomBytes(Math.max(0, size - had.length))]))
}

function isPacked(id: string): boolean {
  return placeOf(id).window >= 0
}
