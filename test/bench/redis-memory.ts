// How much of Redis' memory one completed message takes, by how many complete per second.
//
//   npx tsx test/bench/redis-memory.ts [ids]       (default 1,000,000 per rate; always a private Redis)
//
// The ids are UUIDv7 as they would have been made at that rate. They are completed through the store, then the buckets are
// compacted as the store does in passing 17 minutes later. Bytes are the growth of `used_memory`, keys and expiry included.

import { Redis } from 'ioredis'
import { v7 } from 'uuid'
import type { Scope } from '../../lib/idempotency/idempotency.ts'
import { RedisIdempotencyStore } from '../../lib/idempotency/redis.ts'
import { compactScript } from '../../lib/idempotency/redis-scripts.ts'
import { startRedis } from '../support/services.ts'

const ids = Number(process.argv[2] ?? 1_000_000)
const BATCH = 500
const NOT_IN_ANY_WINDOW = 1_700_000_000_000
const scope: Scope = { name: 'orders.inbox', retentionMs: 14 * 86_400_000, leaseMs: 15_000, maxStarts: 3 }

async function usedMemory(redis: Redis): Promise<number> {
  return Number(/^used_memory:(\d+)/m.exec(await redis.info('memory'))?.[1])
}

async function complete(store: RedisIdempotencyStore, batch: readonly string[]): Promise<void> {
  const endings = batch.map((id) => ({
    id,
    fencingToken: 1,
    digest: undefined,
    ending: { state: 'completed' } as const,
  }))
  const answers = await store.settle(scope, 'bench', endings)
  if (answers.some((answer) => answer !== 'settled')) throw new Error('not all were settled')
}

async function compact(redis: Redis): Promise<void> {
  for await (const keys of redis.scanStream({ count: 1_000 }) as AsyncIterable<string[]>) {
    const buckets = keys.filter((key) => key.includes(':b:'))
    await redis.eval(compactScript.lua, buckets.length, ...buckets)
  }
}

/** Bytes per id: as they are written, and compacted. */
async function measure(redis: Redis, store: RedisIdempotencyStore, name: (i: number) => string): Promise<number[]> {
  await redis.flushall('SYNC')
  const before = await usedMemory(redis)
  for (let i = 0; i < ids; i += BATCH) {
    await complete(
      store,
      Array.from({ length: Math.min(BATCH, ids - i) }, (_, n) => name(i + n)),
    )
  }
  const written = await usedMemory(redis)
  await compact(redis)
  return [written, await usedMemory(redis)].map((used) => (used - before) / ids)
}

await using server = await startRedis({ args: ['--appendonly', 'no'] })
const redis = new Redis(server.url)
const store = new RedisIdempotencyStore(redis, { commandTimeoutMs: 10_000 })
console.log(`bytes per completed id, ${ids} ids`)
console.log('ids per second   as written   compacted')
const print = (what: string, bytes: readonly number[]) =>
  console.log(what.padEnd(14), ...bytes.map((b) => b.toFixed(1).padStart(12)))
for (const rate of [1, 10, 100, 1_000, 10_000]) {
  const at = (i: number) => v7({ msecs: NOT_IN_ANY_WINDOW + Math.floor((i * 1_000) / rate) })
  print(String(rate), await measure(redis, store, at))
}
print('not UUIDv7', await measure(redis, store, (i) => `order-${i.toString().padStart(12, '0')}`))
await store.close()
redis.disconnect()
