// How much of this process' CPU claiming and settling one message costs, beside a hand-written SET NX + SET loop.
//
//   npx tsx test/bench/idempotency-cpu.ts            (REDIS_URL, else a private Redis)
//
// CPU is user and system time of this process only, per message, in batches as a consumer makes them.

import { createHash } from 'node:crypto'
import { Redis } from 'ioredis'
import { v7 } from 'uuid'
import type { ClaimResult, Scope } from '../../lib/idempotency/idempotency.ts'
import { RedisIdempotencyStore } from '../../lib/idempotency/redis.ts'
import { startServices } from '../support/services.ts'

const MESSAGES = 50_000
const digest = createHash('sha256').update('body').digest()
const scope: Scope = { name: `bench-${process.pid}`, retentionMs: 600_000, leaseMs: 15_000, maxStarts: 3 }

interface Measured {
  readonly cpuUs: number
  readonly perSecond: number
}

async function measure(batch: number, run: (ids: readonly string[]) => Promise<void>): Promise<Measured> {
  // As if a thousand were made per second: else all would fall into one bucket per shard, as no traffic does.
  const ids = Array.from({ length: MESSAGES }, (_, i) => v7({ msecs: Date.now() - i }))
  const began = process.hrtime.bigint()
  const cpu = process.cpuUsage()
  for (let i = 0; i < ids.length; i += batch) await run(ids.slice(i, i + batch))
  const used = process.cpuUsage(cpu)
  const seconds = Number(process.hrtime.bigint() - began) / 1e9
  return { cpuUs: (used.user + used.system) / ids.length, perSecond: Math.round(ids.length / seconds) }
}

function surehop(store: RedisIdempotencyStore): (ids: readonly string[]) => Promise<void> {
  let sequence = 0
  return async (ids) => {
    const claims = ids.map((id) => ({ id, digest, generation: 0, attempt: 1, sequence: ++sequence }))
    const answers = await store.claim(scope, 'bench', claims)
    const ends = ids.map((id, i) => ({
      id,
      fencingToken: tokenOf(answers[i]!),
      digest,
      ending: { state: 'completed' } as const,
    }))
    await store.settle(scope, 'bench', ends)
  }
}

function tokenOf(answer: ClaimResult): number {
  if (answer.status !== 'acquired') throw new Error(`expected acquired, got ${answer.status}`)
  return answer.fencingToken
}

/** Two commands per message, all of a batch at once: what one writes by hand, without tokens, starts or digests. */
function handWritten(redis: Redis): (ids: readonly string[]) => Promise<void> {
  return async (ids) => {
    await Promise.all(ids.map((id) => redis.set(`${scope.name}:${id}`, 'processing', 'PX', 15_000, 'NX')))
    await Promise.all(ids.map((id) => redis.set(`${scope.name}:${id}`, 'done', 'PX', 600_000)))
  }
}

const services = await startServices({ redis: true })
const redis = new Redis(services.redisUrl)
const pipelined = new Redis(services.redisUrl, { enableAutoPipelining: true })
const store = new RedisIdempotencyStore(redis)
try {
  const contestants = {
    surehop: surehop(store),
    'SET NX + SET': handWritten(redis),
    'the same, auto-pipelined': handWritten(pipelined),
  }
  for (const run of Object.values(contestants)) await measure(50, run)
  console.log('way                        batch   CPU µs/message   messages/s')
  for (const batch of [1, 10, 50, 100]) {
    for (const [name, run] of Object.entries(contestants)) {
      const { cpuUs, perSecond } = await measure(batch, run)
      console.log(
        `${name.padEnd(26)} ${`${batch}`.padStart(5)} ${cpuUs.toFixed(1).padStart(16)} ${`${perSecond}`.padStart(12)}`,
      )
    }
  }
} finally {
  await store.close()
  redis.disconnect()
  pipelined.disconnect()
  await services.stop()
}
