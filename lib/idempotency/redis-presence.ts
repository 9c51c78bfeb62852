/**
 * Notices that an owner's presence in Redis was broken, even if it is back and the reply that would have told was lost.
 *
 * Redis keeps, per shard, since when an owner has been there without a gap. Whoever saw one "since" and now sees another
 * was away in between: it fell silent for longer than its lease, or Redis came back empty.
 */

import type { Scope } from './idempotency.ts'
import { SHARDS } from './redis-packing.ts'

interface Known {
  /** Per shard, microseconds; 0 where the owner was never seen. */
  readonly since: Float64Array
  lapsed: boolean
}

/** What is known of the presence of owners, per scope. */
export class RedisPresence {
  readonly #known = new Map<string, Known>()

  /** Notes what a script reported: one double per shard, from `at` on. */
  note(scope: Scope, owner: string, shards: readonly number[], reply: Buffer, at: number): void {
    const known = this.#of(scope, owner)
    for (const [i, shard] of shards.entries()) {
      const since = reply.readDoubleLE(at + i * 8)
      const before = known.since[shard]!
      if (before !== 0 && before !== since) known.lapsed = true
      known.since[shard] = since
    }
  }

  /** Has the presence been broken since this was last asked? */
  take(scope: Scope, owner: string, forget: boolean): boolean {
    const known = this.#of(scope, owner)
    const { lapsed } = known
    known.lapsed = false
    if (forget) this.#known.delete(nameOf(scope, owner))
    return lapsed
  }

  #of(scope: Scope, owner: string): Known {
    const name = nameOf(scope, owner)
    let known = this.#known.get(name)
    if (known === undefined) {
      known = { since: new Float64Array(SHARDS), lapsed: false }
      this.#known.set(name, known)
    }
    return known
  }
}

function nameOf(scope: Scope, owner: string): string {
  return `${scope.name}\0${owner}`
}
