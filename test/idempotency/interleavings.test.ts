// Owners that crash, lose replies, come back as zombies; a store that is emptied: what must hold all the same.

import fc from 'fast-check'
import type { IdempotencyStore } from '../../lib/idempotency/idempotency.ts'
import { MemoryIdempotencyStore } from '../../lib/idempotency/memory.ts'
import { RedisIdempotencyStore } from '../../lib/idempotency/redis.ts'
import { HOUR } from './model-commands.ts'
import { type Step, scopeOf, step, verbs, World } from './owners-world.ts'
import { sharedRedis, silence } from './redis-under-test.ts'

function memoryWorld(): World {
  let nowMs = 1_700_000_000_000
  let inner = new MemoryIdempotencyStore({ now: () => ++nowMs })
  const store: IdempotencyStore = {
    claim: (...args) => inner.claim(...args),
    settle: (...args) => inner.settle(...args),
    renew: (...args) => inner.renew(...args),
    look: (...args) => inner.look(...args),
    check: () => inner.check(),
    close: () => inner.close(),
  }
  return new World(store, scopeOf(), {
    wipe: async () => {
      inner = new MemoryIdempotencyStore({ now: () => ++nowMs })
    },
    silence: async () => {
      nowMs += 2 * HOUR
    },
  })
}

async function runOrTell(steps: readonly Step[]): Promise<void> {
  await memoryWorld()
    .run(steps)
    .catch((error: unknown) => {
      throw new Error(`broken by ${JSON.stringify(steps)}: ${error}`)
    })
}

function* sequencesOf(steps: readonly Step[], length: number): Generator<readonly Step[]> {
  if (length === 0) return yield []
  for (const rest of sequencesOf(steps, length - 1)) for (const step of steps) yield [...rest, step]
}

describe('owners that crash, lose replies and come back', () => {
  const redis = sharedRedis()

  it('keep the promises in every interleaving of three steps of two owners after the first claim', async function () {
    this.timeout(120_000)
    const steps: Step[] = [
      ...verbs.flatMap<Step>((verb) => [
        [0, verb],
        [1, verb],
      ]),
      'wipe',
      'freeze',
    ]
    const firsts: Step[] = [
      [0, 'claim'],
      [0, 'claim!'],
    ]
    for (const rest of sequencesOf(steps, 3)) {
      for (const first of firsts) await runOrTell([first, ...rest])
    }
  })

  it('keep the promises in long runs of three owners', async () => {
    const runs = fc.array(step(3), { maxLength: 60 })
    await fc.assert(
      fc.asyncProperty(runs, (steps) => memoryWorld().run(steps)),
      { numRuns: 2_000 },
    )
  })

  it('keep the promises on Redis', async function () {
    this.timeout(120_000)
    // A machine that stands still for a second is no step.
    const store = new RedisIdempotencyStore(redis.client, { commandTimeoutMs: 30_000 })
    const runs = fc.array(step(3), { maxLength: 40 })
    const run = async (steps: readonly Step[]) => {
      const scope = scopeOf()
      const wipe = async () => {
        const keys = await redis.client.keys(`surehop:{${scope.name}:?}:*`)
        if (keys.length > 0) await redis.client.del(keys)
      }
      await new World(store, scope, { wipe, silence: () => silence(redis.client, scope.name) }).run(steps)
      await wipe()
    }
    await fc.assert(fc.asyncProperty(runs, run), { numRuns: 150 })
    await store.close()
  })
})
