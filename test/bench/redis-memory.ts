/**
 * How much of Redis' memory one remembered id takes: the growth of `used_memory`, keys and expiry included. Surehop packs ids that
 * were made at about the same time together, so it depends on how many there are per second; it tidies them up in passing half an hour later.
 * Needs a Redis that nobody else writes to meanwhile.
 */
import { Redis } from 'ioredis'
import { v7 } from 'uuid'
import type { Scope } from '../../lib/idempotency/idempotency.ts'
import { RedisIdempotencyStore } from '../../lib/idempotency/redis.ts'
import { keysOf, tidyKeys } from '../../lib/idempotency/redis-batch.ts'
import { archiveOf, SHARDS, windowAt } from '../../lib/idempotency/redis-packing.ts'
import { tidyScript } from '../../lib/idempotency/redis-scripts.ts'
import { REMEMBER_MS } from './consume-amqplib.ts'
import { type Job, type Measured, stopwatch } from './job.ts'

const BATCH = 500
const NOT_IN_ANY_WINDOW = 1_700_000_000_000

/** When the ids of a job were made, epoch ms. */
interface Span {
  readonly firstMs: number
  readonly lastMs: number
}

/** Bytes that Redis has handed out. */
export async function usedMemory(redis: Redis): Promise<number> {
  return Number(/^used_memory:(\d+)/m.exec(await redis.info('memory'))?.[1])
}

/** The ids are UUIDv7 as they would have been made at that rate. */
export function surehopAt(perSecond: number): (job: Job) => Promise<Measured> {
  const msAt = (n: number) => NOT_IN_ANY_WINDOW + Math.floor((n * 1_000) / perSecond)
  return (job) => surehop(job, (n) => v7({ msecs: msAt(n) }), { firstMs: msAt(0), lastMs: msAt(job.messages) })
}

/** Ids that are no UUIDv7 tell no time, and take a key each. */
export function surehopOtherIds(job: Job): Promise<Measured> {
  return surehop(job, (n) => `order-${n.toString().padStart(12, '0')}`)
}

/** `SET id done PX`, with the name of the queue before it, as by hand. */
export async function byHand(job: Job): Promise<Measured> {
  const redis = new Redis(job.redisUrl, { enableAutoPipelining: true })
  const remember = (id: string) => redis.set(`${job.queue}:${id}`, 'done', 'PX', REMEMBER_MS)
  const measured = await grown(job, redis, (ids) => Promise.all(ids.map(remember)))
  redis.disconnect()
  return measured
}

/** The record of a finished run. */
export async function powertools(job: Job): Promise<Measured> {
  const { idempotentBy } = await import('./peer-powertools.ts')
  const redis = new Redis(job.redisUrl)
  const idempotent = await idempotentBy(job, async () => {})
  const measured = await grown(job, redis, (ids) => Promise.all(ids.map((id) => idempotent(id))))
  redis.disconnect()
  return measured
}

async function surehop(job: Job, name: (n: number) => string, made?: Span): Promise<Measured> {
  const scope: Scope = { name: job.queue, retentionMs: REMEMBER_MS, leaseMs: 15_000, maxStarts: 3 }
  const redis = new Redis(job.redisUrl)
  await using store = new RedisIdempotencyStore(redis, { commandTimeoutMs: 10_000 })
  const before = await usedMemory(redis)
  const measured = await grown(job, redis, (ids) => complete(store, scope, ids), name)
  if (made) await tidy(redis, job, made)
  const compactBytes = ((await usedMemory(redis)) - before) / job.messages
  redis.disconnect()
  return { ...measured, compactBytes }
}

async function complete(store: RedisIdempotencyStore, scope: Scope, ids: readonly string[]): Promise<void> {
  const ending = { state: 'completed' } as const
  const endings = ids.map((id) => ({ id, fencingToken: 1, digest: undefined, ending }))
  const answers = await store.settle(scope, 'bench', endings)
  if (answers.some((answer) => answer !== 'settled')) throw new Error('not all were settled')
}

/** What the store does in passing, of all the time from the first of these ids to the last. */
async function tidy(redis: Redis, { queue }: Job, { firstMs, lastMs }: Span): Promise<void> {
  const keys = keysOf('surehop', queue)
  for (let archive = archiveOf(windowAt(firstMs)); archive <= archiveOf(windowAt(lastMs)); archive++)
    for (let shard = 0; shard < SHARDS; shard++) {
      const tidied = tidyKeys(keys, shard, archive)
      await redis.eval(tidyScript.lua, tidied.length, ...tidied)
    }
}

/** Bytes per id as they are written, and what it costs to write them. */
async function grown(
  { messages }: Job,
  redis: Redis,
  remember: (ids: readonly string[]) => Promise<unknown>,
  name: (n: number) => string = () => v7(),
): Promise<Measured> {
  const before = await usedMemory(redis)
  const stop = stopwatch(messages)
  for (let i = 0; i < messages; i += BATCH)
    await remember(Array.from({ length: Math.min(BATCH, messages - i) }, (_, n) => name(i + n)))
  const { cpuUs = 0 } = stop()
  return { bytes: ((await usedMemory(redis)) - before) / messages, cpuUs }
}
