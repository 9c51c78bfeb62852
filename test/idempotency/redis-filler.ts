// Full buckets and overflows, so that a few ids of a test meet them: filled with entries of ids that nobody asks for.

import { randomBytes } from 'node:crypto'
import type { Cluster, Redis } from 'ioredis'
import { placeOf, writeIdentity } from '../../lib/idempotency/redis-packing.ts'
import { BUCKET_BYTES_MAX, FIELD_BYTES_MAX } from '../../lib/idempotency/redis-scripts.ts'

const ENTRY_BYTES = 16
const RETENTION_MS = 3_600_000

/** The key of the bucket of this id (`b`), or of its overflow (`m`). */
export function packedKey(scope: string, id: string, kind: 'b' | 'm'): string {
  const { shard, window } = placeOf(id)
  return `surehop:{${scope}:${shard.toString(16)}}:${kind}:${window.toString(36)}`
}

/** The field of the overflow in which this id would be. */
export function fieldOf(id: string): Buffer {
  const identity = Buffer.alloc(ENTRY_BYTES)
  writeIdentity(identity, placeOf(id), 0)
  return Buffer.from([identity[1]! % 128])
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

/** Leaves no room for these ids in the overflows either. */
export async function fillOverflows(redis: Redis, scope: string, ids: readonly string[]): Promise<void> {
  for (const id of ids.filter(isPacked)) {
    const key = packedKey(scope, id, 'm')
    await redis.hset(key, fieldOf(id), randomBytes(FIELD_BYTES_MAX))
    await redis.pexpire(key, RETENTION_MS)
  }
}

function isPacked(id: string): boolean {
  return placeOf(id).window >= 0
}
