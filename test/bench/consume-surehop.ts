/** Consuming with Surehop, from a queue that is full already, with a handler that does nothing. */

import { connect, RedisIdempotencyStore } from '../../lib/index.ts'
import { type Job, type Measured, Meter } from './job.ts'

/** Without a store: bounded concurrency, timeouts, retries and dead letters, but duplicates are handled again. */
export function surehopConsume(job: Job): Promise<Measured> {
  return bySurehop(job, undefined)
}

/** With the Redis store: leases, fencing, crash counting, body comparison. */
export async function surehopDeduplicated(job: Job): Promise<Measured> {
  await using store = new RedisIdempotencyStore({ url: job.redisUrl })
  return await bySurehop(job, store)
}

async function bySurehop(job: Job, idempotency: RedisIdempotencyStore | undefined): Promise<Measured> {
  const { prefetch, concurrency } = job
  const meter = new Meter(job)
  await using surehop = await connect({ amqp: job.amqpUrl, service: 'bench' })
  const options = { prefetch, concurrency, ...(idempotency ? { idempotency } : {}) }
  await using _ = await surehop.consume(job.queue, options, async () => meter.count())
  return await meter.done
}
