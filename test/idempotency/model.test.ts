// The Lua of the Redis store against the pure decisions: the same commands must get the same answers.

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
import { MemoryIdempotencyStore } from '../../lib/idempotency/memory.ts'
import { RedisIdempotencyStore } from '../../lib/idempotency/redis.ts'
import { placeOf } from '../../lib/idempotency/redis-packing.ts'
import { sharedRedis } from './redis-under-test.ts'

const HOUR = 3_600_000
const owners = ['anna', 'bert', 'carl'] as const
const digests = [undefined, Buffer.alloc(32, 1), Buffer.alloc(32, 2)] as const

type Command =
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
const command: fc.Arbitrary<Command> = fc.oneof(
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

/** One store as the commands see it. Tokens differ between stores: they are spoken of by the order they were granted in. */
class Side {
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

  async views(): Promise<unknown[]> {
    return (await this.#store().look(this.#scope, this.#ids)).map(withoutTime)
  }

  async #claim({ owner, parts }: Extract<Command, { kind: 'claim' }>): Promise<unknown[]> {
    const claims = parts.map<Claim>((part) => ({ ...part, id: this.#ids[part.id]!, digest: digests[part.digest] }))
    const answers = await this.#store().claim(this.#scope, owners[owner]!, claims)
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
    if (known < 0) expect(answer.fencingToken, 'tokens grow').to.be.greaterThan(grants.at(-1) ?? 0)
    if (known < 0) this.#grants.set(id, [...grants, answer.fencingToken])
    return { ...answer, fencingToken: known < 0 ? grants.length : known }
  }
}

/** Two that are packed, two that are not. Of one shard, for a claim keeps its owner alive only in the shards it touches. */
function idsOfOneShard(): string[] {
  const makers = [() => v7(), () => v7(), () => randomUUID(), () => 'x'.repeat(100) + randomUUID()]
  return makers.map((make) => {
    for (;;) {
      const id = make()
      if (placeOf(id).shard === 0) return id
    }
  })
}

function withoutTime(view: RecordView): unknown {
  return view.state === 'completed' ? { state: 'completed' } : view
}

describe('the Redis store', () => {
  const redis = sharedRedis()
  let store: RedisIdempotencyStore
  beforeEach(() => {
    store = new RedisIdempotencyStore(redis.client)
  })
  afterEach(() => store.close())

  const keysOf = (scope: Scope, kind = '*') => redis.client.keys(`surehop:{${scope.name}:?}:${kind}`)

  async function wipe(scope: Scope): Promise<void> {
    const keys = await keysOf(scope)
    if (keys.length > 0) await redis.client.del(keys)
  }

  /** All owners were silent for longer than their lease: what time would do, without waiting. */
  async function silence(scope: Scope): Promise<void> {
    for (const key of await keysOf(scope, 'o')) {
      for (const [owner, entry] of Object.entries(await redis.client.hgetallBuffer(key))) {
        entry.writeDoubleLE(1, 0)
        await redis.client.hset(key, owner, entry)
      }
    }
  }

  it('answers as the pure decisions do, whatever is asked of it', async function () {
    this.timeout(120_000)
    await fc.assert(
      fc.asyncProperty(fc.array(command, { minLength: 1, maxLength: 25 }), async (commands) => {
        const scope: Scope = { name: randomUUID(), retentionMs: 24 * HOUR, leaseMs: HOUR, maxStarts: 3 }
        const ids = idsOfOneShard()
        let nowMs = Date.now()
        let model = new MemoryIdempotencyStore({ now: () => ++nowMs })
        let presenceIsEqual = true
        const left = new Side(() => model, scope, ids)
        const right = new Side(() => store, scope, ids)
        for (const command of commands) {
          if (command.kind === 'silence') await silence(scope)
          if (command.kind === 'silence') nowMs += 2 * HOUR
          if (command.kind === 'wipe') await wipe(scope)
          if (command.kind === 'wipe') model = new MemoryIdempotencyStore({ now: () => ++nowMs })
          presenceIsEqual &&= command.kind !== 'wipe'
          const [expected, actual] = [await left.answer(command), await right.answer(command)]
          if (command.kind !== 'renew' || presenceIsEqual) expect(actual).to.deep.equal(expected)
          expect(await right.views()).to.deep.equal(await left.views())
        }
        await wipe(scope)
      }),
      { numRuns: Number(process.env['FC_RUNS'] ?? 400) },
    )
  })
})
