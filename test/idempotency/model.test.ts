// The Lua of the Redis store against the pure decisions: the same commands must get the same answers.

import { randomUUID } from 'node:crypto'
import { expect } from 'chai'
import fc from 'fast-check'
import type { Scope } from '../../lib/idempotency/idempotency.ts'
import { MemoryIdempotencyStore } from '../../lib/idempotency/memory.ts'
import { RedisIdempotencyStore } from '../../lib/idempotency/redis.ts'
import { command, HOUR, idsOfOneShard, Side } from './model-commands.ts'
import { fillBuckets, fillOverflows, tidy } from './redis-filler.ts'
import { sharedRedis, silence } from './redis-under-test.ts'

describe('the Redis store', () => {
  const redis = sharedRedis()
  let store: RedisIdempotencyStore
  beforeEach(() => {
    // A machine that stands still for a second is no answer of Redis.
    store = new RedisIdempotencyStore(redis.client, { commandTimeoutMs: 30_000 })
  })
  afterEach(() => store.close())

  const keysOf = (scope: Scope) => redis.client.keys(`surehop:{${scope.name}:?}:*`)

  async function wipe(scope: Scope): Promise<void> {
    const keys = await keysOf(scope)
    if (keys.length > 0) await redis.client.del(keys)
  }

  /** Before the command of that number, others fill the buckets up to this room, and it may be the overflows. */
  const crowd = fc.record({
    at: fc.nat({ max: 12 }),
    room: fc.nat({ max: 2 }),
    overflows: fc.constantFrom(undefined, 'slices' as const, 'parts' as const),
  })
  /** Before the commands of these numbers, the buckets are tidied as if they were old. */
  const tidyings = fc.uniqueArray(fc.nat({ max: 20 }), { maxLength: 3 })

  it('answers as the pure decisions do, whatever is asked of it, however full its buckets are, and whenever they are tidied', async function () {
    this.timeout(120_000)
    await fc.assert(
      fc.asyncProperty(
        fc.array(command, { minLength: 1, maxLength: 25 }),
        fc.option(crowd),
        tidyings,
        async (commands, crowd, tidyings) => {
          const scope: Scope = { name: randomUUID(), retentionMs: 24 * HOUR, leaseMs: HOUR, maxStarts: 3 }
          const ids = idsOfOneShard()
          let nowMs = Date.now()
          let model = new MemoryIdempotencyStore({ now: () => ++nowMs })
          let presenceIsEqual = true
          const left = new Side(() => model, scope, ids)
          const right = new Side(() => store, scope, ids)
          for (const [number, command] of commands.entries()) {
            if (number === crowd?.at) {
              await fillBuckets(redis.client, scope.name, ids, crowd.room)
              if (crowd.overflows) await fillOverflows(redis.client, scope.name, ids, crowd.overflows)
            }
            if (tidyings.includes(number)) await tidy(redis.client, scope.name, ids)
            if (command.kind === 'silence') await silence(redis.client, scope.name)
            if (command.kind === 'silence') nowMs += 2 * HOUR
            if (command.kind === 'wipe') await wipe(scope)
            if (command.kind === 'wipe') model = new MemoryIdempotencyStore({ now: () => ++nowMs })
            presenceIsEqual &&= command.kind !== 'wipe'
            const [expected, actual] = [await left.answer(command), await right.answer(command)]
            if (command.kind !== 'renew' || presenceIsEqual) expect(actual).to.deep.equal(expected)
            expect(await right.views()).to.deep.equal(await left.views())
          }
          await wipe(scope)
        },
      ),
      { numRuns: Number(process.env['FC_RUNS'] ?? 400) },
    )
  })
})
