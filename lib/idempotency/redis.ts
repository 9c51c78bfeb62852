/**
 * Remembers in Redis (7 or newer; plain, Sentinel or Cluster), shared by all processes of a service.
 *
 * Promises: each claim and each settlement is decided atomically, by Redis' own clock; one call of `claim` or `settle` is one
 * round trip (one per shard on a Cluster); at one id per second and more, a completed UUIDv7 takes 19 to 30 bytes of Redis'
 * memory some half an hour later, if others are settled then (`redis-packing.ts`); no certain answer is `StoreUnavailable`, never a guess.
 * Does NOT promise: that Redis never forgets. After a failover or a restart without persistence a message may run again;
 * `check()` warns of the settings that make it likely. The 3 bytes kept of a completed message's digest overlook 1 in 16 million
 * of other bodies under its id.
 */

import { checkOptions, integer, maybeEmptyText, type Rules } from '../options.ts'
import type {
  Claim,
  ClaimResult,
  IdempotencyStore,
  RecordView,
  Scope,
  Settlement,
  SettleResult,
} from './idempotency.ts'
import * as batch from './redis-batch.ts'
import { warningsOf } from './redis-check.ts'
import { RedisLink, type RedisTarget } from './redis-link.ts'
import { archiveOf, type Place, placeOf, SHARDS, windowAt } from './redis-packing.ts'
import { RedisPresence } from './redis-presence.ts'
import { claimScript, lookScript, renewScript, settleScript, tidyScript } from './redis-scripts.ts'

export type { RedisClient, RedisTarget } from './redis-link.ts'

/** Options of {@link RedisIdempotencyStore}. */
export interface RedisIdempotencyStoreOptions {
  /** How long a command may take before the answer is `StoreUnavailable`, ms. Default 1,000. */
  readonly commandTimeoutMs?: number | undefined
  /** How long the first use waits for the connection, ms. Default 5,000. */
  readonly connectTimeoutMs?: number | undefined
  /** First part of every key. Default `surehop`. */
  readonly prefix?: string | undefined
}

const RULES: Rules = { commandTimeoutMs: integer(1), connectTimeoutMs: integer(1), prefix: maybeEmptyText() }

/** So many ids at most in one script call: Redis does nothing else meanwhile. */
const BATCH_MAX = 512

/** Buckets are tidied when their archive, of 17 minutes, is so many behind the present: for what comes late, again after hours and after a day. */
const TIDIED_BEHIND = [2, 12, 96]
/** After so many settlements, each a part, a process has tidied once. */
export const TIDIED_PARTS = TIDIED_BEHIND.length * SHARDS

const allShards = Array.from({ length: SHARDS }, (_, shard) => shard)

/**
 * An {@link IdempotencyStore} in Redis.
 * @param redis your ioredis client (`Redis` or `Cluster`), of which a duplicate with fail-closed settings is made, or a URL.
 *   What you lend you close; the store closes only its own connection.
 */
export class RedisIdempotencyStore implements IdempotencyStore {
  readonly #link: RedisLink
  readonly #prefix: string
  readonly #keys = new Map<string, batch.ScopeKeys>()
  readonly #presence = new RedisPresence()
  /** Per scope, how many parts have been tidied in the archive of the present. */
  readonly #tidied = new Map<string, { readonly present: number; readonly parts: number }>()
  /** Processes begin with different parts, for some make few settlements. */
  readonly #firstPart = Math.floor(Math.random() * TIDIED_PARTS)

  constructor(redis: RedisTarget, options: RedisIdempotencyStoreOptions = {}) {
    checkOptions('RedisIdempotencyStore', options, RULES)
    const { commandTimeoutMs = 1_000, connectTimeoutMs = 5_000, prefix = 'surehop' } = options
    this.#prefix = prefix
    this.#link = new RedisLink(redis, { commandTimeoutMs, connectTimeoutMs })
  }

  async claim(scope: Scope, owner: string, claims: readonly Claim[]): Promise<ClaimResult[]> {
    return this.#inParts(claims, async (part, places) => {
      const call = batch.claimCall(this.#keysOf(scope), scope, part, places)
      const reply = (await this.#link.run(claimScript, call.keys, [owner, call.payload])) as Buffer
      this.#presence.note(scope, owner, call.shards, reply, batch.ownersAt(part.length))
      return places.map((place, i) => batch.claimResult(reply, i, part[i]!, place))
    })
  }

  async settle(scope: Scope, owner: string, settlements: readonly Settlement[]): Promise<SettleResult[]> {
    this.#tidy(scope)
    return this.#inParts(settlements, async (part, places) => {
      const call = batch.settleCall(this.#keysOf(scope), scope, part, places)
      const reply = (await this.#link.run(settleScript, call.keys, [owner, call.payload])) as Buffer
      return places.map((_, i) => batch.settleResult(reply, i))
    })
  }

  async renew(scope: Scope, owner: string, options: { readonly leave?: boolean } = {}): Promise<'held' | 'lapsed'> {
    const { owners } = this.#keysOf(scope)
    const payload = batch.renewPayload(scope, options.leave === true)
    await this.#perNode(async (shards) => {
      const keys = shards.map((shard) => owners[shard]!)
      const reply = (await this.#link.run(renewScript, keys, [owner, payload])) as Buffer
      this.#presence.note(scope, owner, shards, reply, 0)
    })
    return this.#presence.take(scope, owner, options.leave === true) ? 'lapsed' : 'held'
  }

  async look(scope: Scope, ids: readonly string[]): Promise<RecordView[]> {
    const asked = ids.map((id) => ({ id }))
    return this.#inParts(asked, async (_, places) => {
      const call = batch.lookCall(this.#keysOf(scope), places)
      const seen = (await this.#link.run(lookScript, call.keys, [call.payload])) as Buffer[]
      return places.map((place, i) => batch.recordView(seen[i]!, place))
    })
  }

  async check(): Promise<readonly string[]> {
    return warningsOf(this.#link)
  }

  async close(): Promise<void> {
    await this.#link.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  /** Calls `run` with all items at once where Redis may have them so; else by shard. Answers in the order asked. */
  async #inParts<T extends { readonly id: string }, R>(
    items: readonly T[],
    run: (part: readonly T[], places: readonly Place[]) => Promise<R[]>,
  ): Promise<R[]> {
    const places = items.map(({ id }) => placeOf(id))
    if (!this.#link.isCluster && items.length <= BATCH_MAX) return items.length === 0 ? [] : run(items, places)
    const answers: R[] = new Array(items.length)
    const parts = this.#link.isCluster ? byShard(places) : [places.map((_, i) => i)]
    await Promise.all(
      parts.flatMap(slices).map(async (at) => {
        const got = await run(
          at.map((i) => items[i]!),
          at.map((i) => places[i]!),
        )
        for (const [n, i] of at.entries()) answers[i] = got[n]!
      }),
    )
    return answers
  }

  async #perNode(run: (shards: readonly number[]) => Promise<void>): Promise<void> {
    const groups = this.#link.isCluster ? allShards.map((shard) => [shard]) : [allShards]
    await Promise.all(groups.map(run))
  }

  /** A part with each settlement, all of them once in 17 minutes; only in passing: what fails here is memory, not truth. */
  #tidy(scope: Scope): void {
    const present = archiveOf(windowAt(Date.now()))
    const last = this.#tidied.get(scope.name)
    const parts = last?.present === present ? last.parts : 0
    if (parts === TIDIED_PARTS) return
    this.#tidied.set(scope.name, { present, parts: parts + 1 })
    const part = (this.#firstPart + parts) % TIDIED_PARTS
    const behind = TIDIED_BEHIND[Math.floor(part / SHARDS)]!
    const keys = batch.tidyKeys(this.#keysOf(scope), part % SHARDS, present - behind)
    this.#link.run(tidyScript, keys, []).catch(() => {})
  }

  #keysOf({ name }: Scope): batch.ScopeKeys {
    let keys = this.#keys.get(name)
    if (keys === undefined) {
      keys = batch.keysOf(this.#prefix, name)
      this.#keys.set(name, keys)
    }
    return keys
  }
}

function byShard(places: readonly Place[]): number[][] {
  const groups: number[][] = []
  for (const [i, { shard }] of places.entries()) {
    groups[shard] ??= []
    groups[shard].push(i)
  }
  return groups.filter((group) => group !== undefined)
}

function slices(indices: readonly number[]): number[][] {
  const count = Math.ceil(indices.length / BATCH_MAX)
  return Array.from({ length: count }, (_, n) => indices.slice(n * BATCH_MAX, (n + 1) * BATCH_MAX))
}
