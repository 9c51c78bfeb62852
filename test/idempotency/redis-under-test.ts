// The Redis that the tests of the idempotency store share: REDIS_URL, else a private one for the whole run.

import { Redis } from 'ioredis'
import { type Services, startServices } from '../support/services.ts'

/** All owners of a scope were silent for longer than their lease: what time would do, without waiting. */
export async function silence(client: Redis, scope: string): Promise<void> {
  for (const key of await client.keys(`surehop:{${scope}:?}:o`)) {
    for (const [owner, entry] of Object.entries(await client.hgetallBuffer(key))) {
      entry.writeDoubleLE(Date.now() - 1, 0)
      await client.hset(key, owner, entry)
    }
  }
}

/** Starts it before the tests of the current suite, and stops it after. */
export function sharedRedis(): { readonly url: string; readonly client: Redis } {
  let services: Services | undefined
  let client: Redis | undefined
  before(async function () {
    this.timeout(60_000)
    services = await startServices({ redis: true })
    client = new Redis(services.redisUrl)
  })
  after(async () => {
    client?.disconnect()
    await services?.stop()
  })
  return {
    get url() {
      return services!.redisUrl
    },
    get client() {
      return client!
    },
  }
}
