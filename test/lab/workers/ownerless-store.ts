// A sabotaged store: it records the end of a run whoever holds the lease by now, as one without a fence would. For the lab's own tests.

import { Redis } from 'ioredis'
import type {
  Claim,
  ClaimResult,
  IdempotencyStore,
  RecordView,
  Scope,
  Settlement,
  SettleResult,
} from '../../../lib/index.ts'
import type { Job } from './job.ts'

/** What a late owner says stands: the message counts as completed for all, whoever runs it, or has completed it. */
export class OwnerlessStore implements IdempotencyStore {
  readonly #store: IdempotencyStore
  readonly #redis: Redis
  readonly #written: string

  constructor(store: IdempotencyStore, { redis, names }: Job) {
    if (redis.kind !== 'single') throw new Error(`expected a single Redis, got a ${redis.kind}`)
    this.#store = store
    this.#redis = new Redis(redis.url)
    this.#written = `${names.prefix}:written-over`
  }

  async claim(scope: Scope, owner: string, claims: readonly Claim[]): Promise<ClaimResult[]> {
    const results = await this.#store.claim(scope, owner, claims)
    const written = await this.#redis.smismember(this.#written, ...claims.map(({ id }) => id))
    return results.map((result, i) => (written[i] === 1 ? { status: 'completed', completedAt: 0 } : result))
  }

  async settle(scope: Scope, owner: string, settlements: readonly Settlement[]): Promise<SettleResult[]> {
    const results = await this.#store.settle(scope, owner, settlements)
    const late = settlements.filter(({ ending }, i) => results[i] !== 'settled' && ending.state === 'completed')
    if (late.length > 0) await this.#redis.sadd(this.#written, ...late.map(({ id }) => id))
    return results.map((result, i) => (late.includes(settlements[i]!) ? 'settled' : result))
  }

  renew(scope: Scope, owner: string, options?: { readonly leave?: boolean }): Promise<'held' | 'lapsed'> {
    return this.#store.renew(scope, owner, options)
  }

  look(scope: Scope, ids: readonly string[]): Promise<RecordView[]> {
    return this.#store.look(scope, ids)
  }

  check(): Promise<readonly string[]> {
    return this.#store.check()
  }

  async close(): Promise<void> {
    this.#redis.disconnect()
    await this.#store.close()
  }
}
