// Random commands, and one store as they see it: for holding a backend to the pure decisions.

import { randomUUID } from 'node:crypto'
import { expect } from 'chai'
import fc from 'fast-check'
import { v7 } from 'uuid'
import type {
  Claim,
  ClaimResult,
  Ending,
  IdempotencyStore,
  RecordView,
  Scope,
} from '../../lib/idempotency/idempotency.ts'
import { placeOf } from '../../lib/idempotency/redis-packing.ts'

export const HOUR = 3_600_000
const owners = ['anna', 'bert', 'carl'] as const
const digests = [undefined, Buffer.alloc(32, 1), Buffer.alloc(32, 2)] as const

/** What is asked of a store; `silence` and `wipe` befall it. */
export type Command =
  | {
      kind: 'claim'
      owner: number
      parts: { id: number; generation: number; attempt: number; sequence: number; digest: number }[]
    }
  | {
      kind: 'settle'
      owner: number
      parts: { id: number; grant: number; off: number; digest: number; ending: Ending }[]
    }
  | { kind: 'renew'; owner: number; leave: boolean }
  | { kind: 'silence' }
  | { kind: 'wipe' }

const owner = fc.nat({ max: owners.length - 1 })
const id = fc.nat({ max: 3 })
const digest = fc.nat({ max: 2 })
const ending: fc.Arbitrary<Ending> = fc.oneof(
  fc.constant<Ending>({ state: 'completed' }),
  fc.integer({ min: 1, max: 4 }).map<Ending>((nextAttempt) => ({ state: 'failed', nextAttempt })),
  fc.constant<Ending>({ state: 'returned' }),
  fc.nat({ max: 2 }).map<Ending>((generation) => ({ state: 'dead', generation })),
)
const claimPart = fc.record({
  id,
  generation: fc.oneof({ weight: 3, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.nat({ max: 2 }) }),
  attempt: fc.integer({ min: 1, max: 4 }),
  sequence: fc.nat({ max: 5 }),
  digest: fc.oneof({ weight: 4, arbitrary: fc.constant(1) }, { weight: 1, arbitrary: digest }),
})
const off = fc.oneof(
  { weight: 6, arbitrary: fc.constant(0) },
  { weight: 1, arbitrary: fc.integer({ min: -1, max: 1 }) },
)
const settlePart = fc.record({ id, grant: fc.nat({ max: 2 }), off, digest, ending })
export const command: fc.Arbitrary<Command> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      kind: fc.constant('claim' as const),
      owner,
      parts: fc.array(claimPart, { minLength: 1, maxLength: 3 }),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('settle' as const),
      owner,
      parts: fc.array(settlePart, { maxLength: 3 }),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('renew' as const), owner, leave: fc.boolean() }) },
  { weight: 2, arbitrary: fc.constant<Command>({ kind: 'silence' }) },
  { weight: 1, arbitrary: fc.constant<Command>({ kind: 'wipe' }) },
)

/**
 * Two that are packed, and differ only in their time; two that are not. Of one shard, for a claim keeps its owner alive only in the
 * shards it touches.
 */
export function idsOfOneShard(): string[] {
  const packed = ofShard0(() => v7())
  return [packed, twinOf(packed), ofShard0(randomUUID), ofShard0(() => 'x'.repeat(100) + randomUUID())]
}

function ofShard0(make: () => string): string {
  for (;;) {
    const id = make()
    if (placeOf(id).shard === 0) return id
  }
}

/** The same random bits 16 s earlier or later, of the same 17 minutes. */
function twinOf(id: string): string {
  const ms = placeOf(id).idMs
  const other = (ms + (ms % 2 ** 20 < 2 ** 19 ? 2 ** 14 : -(2 ** 14))).toString(16).padStart(12, '0')
  return `${other.slice(0, 8)}-${other.slice(8)}${id.slice(13)}`
}

/** One store as the commands see it. Tokens differ between stores: they are spoken of by the order they were granted in. */
export class Side {
  readonly #store: () => IdempotencyStore
  readonly #grants = new Map<string, number[]>()
  readonly #scope: Scope
  readonly #ids: readonly string[]

  constructor(store: () => IdempotencyStore, scope: Scope, ids: readonly string[]) {
    this.#store = store
    this.#scope = scope
    this.#ids = ids
  }

  async answer(command: Command): Promise<unknown> {
    if (command.kind === 'claim') return this.#claim(command)
    if (command.kind === 'settle') return this.#settle(command)
    if (command.kind === 'renew')
      return this.#store().renew(this.#scope, owners[command.owner]!, { leave: command.leave })
    return undefined
  }

  /** Asks as `answer` does, of a store whose answer does not arrive, or is not listened to. */
  async unheard(command: Command): Promise<void> {
    if (command.kind === 'claim') await this.#store().claim(this.#scope, owners[command.owner]!, this.#claims(command))
    else await this.answer(command)
  }

  async views(): Promise<unknown[]> {
    return (await this.#store().look(this.#scope, this.#ids)).map(withoutTime)
  }

  #claims({ parts }: Extract<Command, { kind: 'claim' }>): Claim[] {
    return parts.map((part) => ({ ...part, id: this.#ids[part.id]!, digest: digests[part.digest] }))
  }

  async #claim(command: Extract<Command, { kind: 'claim' }>): Promise<unknown[]> {
    const claims = this.#claims(command)
    const answers = await this.#store().claim(this.#scope, owners[command.owner]!, claims)
    return answers.map((answer, i) => this.#normal(claims[i]!.id, answer))
  }

  async #settle({ owner, parts }: Extract<Command, { kind: 'settle' }>): Promise<unknown[]> {
    const settlements = parts.map((part) => {
      const id = this.#ids[part.id]!
      const fencingToken = (this.#grants.get(id)?.at(-1 - part.grant) ?? 3) + part.off
      return { id, fencingToken, digest: digests[part.digest], ending: part.ending }
    })
    return this.#store().settle(this.#scope, owners[owner]!, settlements)
  }

  #normal(id: string, answer: ClaimResult): unknown {
    if (answer.status === 'leased') return { status: 'leased' }
    if (answer.status === 'completed') return { status: 'completed' }
    if (!('fencingToken' in answer)) return answer
    const grants = this.#grants.get(id) ?? []
    const known = grants.indexOf(answer.fencingToken)
    // Of a settlement that a store without the record has taken as it was: no grant of its own.
    if (known < 0 && answer.status === 'ahead') return { ...answer, fencingToken: 'not granted' }
    if (known < 0) expect(answer.fencingToken, 'tokens grow').to.be.greaterThan(grants.at(-1) ?? 0)
    if (known < 0) this.#grants.set(id, [...grants, answer.fencingToken])
    return { ...answer, fencingToken: known < 0 ? grants.length : known }
  }
}

function withoutTime(view: RecordView): unknown {
  return view.state === 'completed' ? { state: 'completed' } : view
}
