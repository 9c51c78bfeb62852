/**
 * What the cases of the contract suite are written with: a store under test, its answers, and leases that fit how far away it is.
 */

import assert from 'node:assert/strict'
import { createHash, randomUUID } from 'node:crypto'
import { setTimeout as pause } from 'node:timers/promises'
import { v7 } from 'uuid'
import type { Claim, ClaimResult, Ending, IdempotencyStore, Scope, Settlement } from '../idempotency/idempotency.ts'

/** A short lease, ms: far longer than what a busy machine keeps an answer waiting. */
const BRIEF_MS = 250
/** So many answers must fit into a lease: an owner that has asked nothing for half of its lease is away. */
const ROUND_TRIPS = 10
/** So many answers are timed, after the first, for which a store connects. */
const TIMED = 5
const PATIENCE_MS = 10_000

/** A store under test with a scope of its own, and short words for what the cases do. */
export class Bench {
  readonly store: IdempotencyStore
  readonly scope: Scope
  #sequence = 0

  constructor(store: IdempotencyStore, scope: Partial<Scope> = {}) {
    this.store = store
    const name = `contract ${randomUUID()}`
    this.scope = { name, retentionMs: 3_600_000, leaseMs: 60_000, maxStarts: 3, ...scope }
  }

  /** The same store with another scope. */
  with(scope: Partial<Scope>): Bench {
    return new Bench(this.store, scope)
  }

  /** The same store with leases as short as it can answer within: one that is far away is no worse for that. */
  async brief(scope: Partial<Scope> = {}): Promise<Bench> {
    const leaseMs = Math.max(BRIEF_MS, ROUND_TRIPS * (await this.#roundTripMs()))
    return this.with({ leaseMs, ...scope })
  }

  claimOf(id: string, part: Partial<Claim> = {}): Claim {
    return { id, digest: bodyA, generation: 0, attempt: 1, sequence: ++this.#sequence, ...part }
  }

  async claim(owner: string, id: string, part: Partial<Claim> = {}): Promise<ClaimResult> {
    const [answer] = await this.store.claim(this.scope, owner, [this.claimOf(id, part)])
    return answer!
  }

  async grant(owner: string, id: string, part: Partial<Claim> = {}): Promise<Grant> {
    const answer = await this.claim(owner, id, part)
    assert.equal(answer.status, 'acquired')
    return answer as Grant
  }

  async settle(
    owner: string,
    id: string,
    token: number,
    ending: Ending,
    part: Pick<Settlement, 'digest'> = { digest: bodyA },
  ) {
    const settlement: Settlement = { id, fencingToken: token, ending, ...part }
    const [answer] = await this.store.settle(this.scope, owner, [settlement])
    return answer!
  }

  /** Claims for a fresh owner and ends the lease so. */
  async end(id: string, ending: Ending, part: Partial<Claim> = {}): Promise<Grant> {
    const grant = await this.grant('first', id, part)
    assert.equal(await this.settle('first', id, grant.fencingToken, ending), 'settled')
    return grant
  }

  async leave(owner: string): Promise<void> {
    await this.store.renew(this.scope, owner, { leave: true })
  }

  /** The middle one: what the machine held up says nothing of how far away the store is. */
  async #roundTripMs(): Promise<number> {
    const took: number[] = []
    await this.look(v7())
    for (let n = 0; n < TIMED; n++) {
      const began = performance.now()
      await this.look(v7())
      took.push(performance.now() - began)
    }
    return Math.ceil(took.sort((a, b) => a - b)[Math.floor(TIMED / 2)]!)
  }

  async look(id: string) {
    const [view] = await this.store.look(this.scope, [id])
    return view!
  }
}

/** The right to run it. */
export type Grant = Extract<ClaimResult, { status: 'acquired' }>

/** Digests of two bodies. */
export const bodyA = createHash('sha256').update('a').digest()
export const bodyB = createHash('sha256').update('b').digest()
export const completed: Ending = { state: 'completed' }
export const returned: Ending = { state: 'returned' }
export const failed = (nextAttempt: number): Ending => ({ state: 'failed', nextAttempt })
export const dead = (generation: number): Ending => ({ state: 'dead', generation })
export const verdicts: readonly Ending[] = [completed, failed(2), returned, dead(0)]

/** A packed id, and one that cannot be packed: stores may keep them in different ways. */
export const bothKinds = (): string[] => [v7(), `order ${randomUUID()}`]

/** Asks again until the answer fits; the time that must pass is a lease of some hundred milliseconds. */
export async function until<T>(ask: () => Promise<T>, fits: (answer: T) => boolean): Promise<T> {
  for (const deadline = Date.now() + PATIENCE_MS; ; await pause(10)) {
    const answer = await ask()
    if (fits(answer)) return answer
    assert.ok(Date.now() < deadline, `still ${JSON.stringify(answer)} after ${PATIENCE_MS} ms`)
  }
}
