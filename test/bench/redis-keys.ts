/** Takes the keys of one run out of Redis again, whoever wrote them: all have the name of the run's queue in them. */

import { Redis } from 'ioredis'

export class RedisKeys {
  readonly #redis: Redis

  constructor(redisUrl: string) {
    this.#redis = new Redis(redisUrl)
  }

  async drop(queue: string): Promise<void> {
    const scanned = this.#redis.scanStream({ match: `*${queue}*`, count: 5_000 })
    for await (const keys of scanned as AsyncIterable<string[]>) if (keys.length > 0) await this.#redis.unlink(keys)
  }

  async version(): Promise<string> {
    return /redis_version:(\S+)/.exec(await this.#redis.info('server'))?.[1] ?? 'unknown'
  }

  [Symbol.dispose](): void {
    this.#redis.disconnect()
  }
}
