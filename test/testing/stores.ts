// Stores for the tests of the contract suite: sound ones that are slow, and wrong ones.

import { setTimeout as pause } from 'node:timers/promises'
import type { Claim, IdempotencyStore, Scope, Settlement } from '../../lib/idempotency/idempotency.ts'
import { MemoryIdempotencyStore } from '../../lib/idempotency/memory.ts'
import { type Asked, decideClaim, decideSettle, type IdempotencyRecord } from '../../lib/idempotency/record.ts'

/** So far away is its backend, ms: each question takes so long, half of it each way. */
export class FarStore extends MemoryIdempotencyStore {
  readonly #roundTripMs: number

  constructor(roundTripMs: number) {
    super()
    this.#roundTripMs = roundTripMs
  }

  override claim(scope: Scope, owner: string, claims: readonly Claim[]) {
    return this.asked(() => super.claim(scope, owner, claims))
  }

  override settle(scope: Scope, owner: string, settlements: readonly Settlement[]) {
    return this.asked(() => super.settle(scope, owner, settlements))
  }

  override renew(scope: Scope, owner: string, options?: { readonly leave?: boolean }) {
    return this.asked(() => super.renew(scope, owner, options))
  }

  override look(scope: Scope, ids: readonly string[]) {
    return this.asked(() => super.look(scope, ids))
  }

  protected async asked<T>(ask: () => Promise<T>): Promise<T> {
    await pause(this.#roundTripMs / 2)
    const [answer] = await Promise.all([ask(), pause(this.#roundTripMs / 2)])
    return answer
  }
}

/** On a machine that stands still once: one answer comes so late, and its store executes it before, or after. */
export class HeldUpStore extends FarStore {
  readonly #heldUp: HeldUp
  #asked = 0

  constructor(heldUp: HeldUp) {
    super(0)
    this.#heldUp = heldUp
  }

  protected override async asked<T>(ask: () => Promise<T>): Promise<T> {
    const { call, forMs, before } = this.#heldUp
    if (++this.#asked !== call) return ask()
    if (before) await pause(forMs)
    const answer = await ask()
    if (!before) await pause(forMs)
    return answer
  }
}

/** Which call, from 1. */
export interface HeldUp {
  readonly call: number
  readonly forMs: number
  readonly before: boolean
}

/** One that refuses an id twice in one claim: `IdempotencyStore` says that it stands once. */
export class StrictStore extends MemoryIdempotencyStore {
  override claim(scope: Scope, owner: string, claims: readonly Claim[]) {
    const ids = new Set(claims.map(({ id }) => id))
    if (ids.size < claims.length) return Promise.reject(new Error('an id stands twice in one claim'))
    return super.claim(scope, owner, claims)
  }
}

/** Remembers for a tenth of the time. */
export class ForgetfulStore extends MemoryIdempotencyStore {
  override settle(scope: Scope, owner: string, settlements: readonly Settlement[]) {
    return super.settle({ ...scope, retentionMs: scope.retentionMs / 10 }, owner, settlements)
  }
}

/** Takes a moment between what it reads and what it writes. */
export type Gap = 'takeover' | 'settlement' | 'nowhere'

/** Keeps records for good, and owners until they leave: for tests of what several ask at once. */
export class GappedStore extends MemoryIdempotencyStore implements IdempotencyStore {
  readonly #gap: Gap
  readonly #records = new Map<string, IdempotencyRecord | undefined>()
  readonly #left = new Set<string>()

  constructor(gap: Gap) {
    super()
    this.#gap = gap
  }

  override claim(scope: Scope, owner: string, claims: readonly Claim[]) {
    return Promise.all(claims.map((claim) => this.#claimed(scope, owner, claim)))
  }

  override async settle(_scope: Scope, owner: string, settlements: readonly Settlement[]) {
    return Promise.all(
      settlements.map(async (settlement) => {
        const before = this.#records.get(settlement.id)
        const { result, record } = decideSettle(before, { settlement, owner, nowMs: Date.now() })
        if (this.#gap === 'settlement') await pause(1)
        if (record !== before) this.#records.set(settlement.id, record)
        return result
      }),
    )
  }

  override async renew(_scope: Scope, owner: string, { leave = false } = {}) {
    if (leave) this.#left.add(owner)
    return 'held' as const
  }

  override async look(_scope: Scope, ids: readonly string[]) {
    return ids.map((id) => {
      const record = this.#records.get(id)
      if (record === undefined) return { state: 'absent' as const }
      return record.state === 'leased' ? { ...record, live: !this.#left.has(record.owner) } : record
    })
  }

  async #claimed({ leaseMs, maxStarts }: Scope, owner: string, claim: Claim) {
    const before = this.#records.get(claim.id)
    const nowMs = Date.now()
    const held = before?.state === 'leased' && !this.#left.has(before.owner)
    const asked: Asked = {
      ...{ claim, owner, leaseMs, maxStarts, nowUs: nowMs * 1_000 },
      askerUntilMs: undefined,
      holderUntilMs: held ? nowMs + leaseMs : undefined,
    }
    const { result, record } = decideClaim(before, asked)
    if (this.#gap === 'takeover' && before !== undefined) await pause(1)
    if (record !== before) this.#records.set(claim.id, record)
    return result
  }
}
