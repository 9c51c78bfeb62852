import { MemoryIdempotencyStore } from '../../lib/idempotency/memory.ts'
import { RedisIdempotencyStore } from '../../lib/idempotency/redis.ts'
import { idempotencyStoreContract } from '../../lib/testing/index.ts'
import { sharedRedis } from './redis-under-test.ts'

describe('the contract of idempotency stores', () => {
  const redis = sharedRedis()
  const stores = [
    { name: 'MemoryIdempotencyStore', open: () => new MemoryIdempotencyStore() },
    { name: 'RedisIdempotencyStore on a lent client', open: () => new RedisIdempotencyStore(redis.client) },
    { name: 'RedisIdempotencyStore on a URL', open: () => new RedisIdempotencyStore({ url: redis.url }) },
  ]
  for (const { name, run } of stores.flatMap(idempotencyStoreContract)) it(name, run)
})
