/**
 * Remembers decisions in Redis (7 or newer; plain, Sentinel or Cluster), shared by all processes of a service.
 *
 * Promises: each decision is one script on one key, so that of two deciders the first wins; no certain answer is
 * `StoreUnavailable`, never a guess; a record takes about 150 bytes and ends by itself after the retention.
 * Does NOT promise that Redis never forgets: after a failover or a restart without persistence a transaction is undecided again.
 * Then the service's `check` decides; messages that were sent are sent again with the same ids. `check()` warns of the settings
 * that make it likely.
 */
import { warningsOf } from '../idempotency/redis-check.ts'
import { RedisLink, type RedisTarget } from '../idempotency/redis-link.ts'
import { checkOptions, integer, maybeEmptyText, type Rules } from '../options.ts'
import type { Decider, Decision, DecisionScope, DecisionStore, DecisionView } from './decisions.ts'
import { checkedScript, decideScript, lookScript, publishedScript } from './redis-decisions.ts'

/** Options of {@link RedisDecisionStore}. */
export interface RedisDecisionStoreOptions {
  /** How long a command may take before the answer is `StoreUnavailable`, ms. Default 1,000. */
  readonly commandTimeoutMs?: number | undefined
  /** How long the first use waits for the connection, ms. Default 5,000. */
  readonly connectTimeoutMs?: number | undefined
  /** First part of every key. Default `surehop`. */
  readonly prefix?: string | undefined
}

const RULES: Rules = { commandTimeoutMs: integer(1), connectTimeoutMs: integer(1), prefix: maybeEmptyText() }
const DECISIONS = { name: 'decision', whileDown: 'Nothing is decided or sent by check-back until it can.' }
/** So many keys at most in one script call: Redis does nothing else meanwhile. */
const BATCH_MAX = 512

/**
 * A {@link DecisionStore} in Redis.
 * @param redis your ioredis client (`Redis` or `Cluster`), of which a duplicate with fail-closed settings is made, or a URL.
 *   What you lend you close; the store closes only its own connection.
 */
export class RedisDecisionStore implements DecisionStore {
  readonly #link: RedisLink
  readonly #prefix: string

  constructor(redis: RedisTarget, options: RedisDecisionStoreOptions = {}) {
    checkOptions('RedisDecisionStore', options, RULES)
    const { commandTimeoutMs = 1_000, connectTimeoutMs = 5_000, prefix = 'surehop' } = options
    this.#prefix = prefix
    this.#link = new RedisLink(redis, { commandTimeoutMs, connectTimeoutMs, purpose: DECISIONS })
  }

  async decide(scope: DecisionScope, transactionId: string, decision: Decision, by: Decider): Promise<DecisionView> {
    const args = [retentionOf(scope), decision, by]
    return viewOf(await this.#link.run(decideScript, [this.#key(scope, transactionId)], args))
  }

  async look(scope: DecisionScope, transactionIds: readonly string[]): Promise<DecisionView[]> {
    const keys = transactionIds.map((id) => this.#key(scope, id))
    const size = this.#link.isCluster ? 1 : BATCH_MAX
    const parts = Array.from({ length: Math.ceil(keys.length / size) }, (_, i) => keys.slice(i * size, (i + 1) * size))
    const replies = await Promise.all(parts.map((part) => this.#link.run(lookScript, part, [])))
    return (replies as unknown[][]).flat().map(viewOf)
  }

  async published(scope: DecisionScope, transactionId: string, halfId: string): Promise<void> {
    await this.#link.run(publishedScript, [this.#key(scope, transactionId)], [retentionOf(scope), halfId])
  }

  async checked(scope: DecisionScope, transactionId: string): Promise<number> {
    return Number(await this.#link.run(checkedScript, [this.#key(scope, transactionId)], [retentionOf(scope)]))
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

  /** With the name's length: "a:b" and "c" are not "a" and "b:c". */
  #key({ name }: DecisionScope, transactionId: string): string {
    return `${this.#prefix}:decision:${name.length}:${name}:${transactionId}`
  }
}

function retentionOf({ retentionMs }: DecisionScope): string {
  return String(Math.ceil(retentionMs))
}

/** `[decision, decidedAt, by, published, checks]`; what is absent is null. */
function viewOf(reply: unknown): DecisionView {
  const [decision, decidedAt, by, published, checks] = (reply as (Buffer | null)[]).map((field) => field?.toString())
  return {
    decision: decision as Decision | undefined,
    decidedAt: decidedAt === undefined ? undefined : Number(decidedAt),
    by: by as Decider | undefined,
    published,
    checks: Number(checks ?? 0),
  }
}
