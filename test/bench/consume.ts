/**
 * Ways to consume a queue that is full already, with a handler that does nothing. The hand-written loops hold as many
 * unacked deliveries as Surehop does, and ack each one.
 */
import { type Channel, type ConsumeMessage, connect as connectRaw } from 'amqplib'
import { Redis } from 'ioredis'
import { connect, RedisIdempotencyStore } from '../../lib/index.ts'
import { type Job, type Measured, Meter } from './job.ts'

const LEASE_MS = 15_000
const REMEMBER_MS = 14 * 24 * 3_600_000

/** amqplib: handler, ack. Handles duplicates again. */
export async function rawConsume(job: Job): Promise<Measured> {
  const meter = new Meter(job)
  const channel = await openChannel(job)
  await channel.consume(job.queue, async (message) => {
    if (!message) return
    await handler(meter)
    channel.ack(message)
  })
  return meter.done
}

/** amqplib and ioredis: `SET NX`, handler, `SET`, ack; the loop that one writes by hand. */
export function rawDeduplicated(job: Job): Promise<Measured> {
  return deduplicatedBy(new Redis(job.redisUrl), job)
}

/** The same with ioredis' auto-pipelining, which gathers the commands of one tick. */
export function rawPipelined(job: Job): Promise<Measured> {
  return deduplicatedBy(new Redis(job.redisUrl, { enableAutoPipelining: true }), job)
}

async function deduplicatedBy(redis: Redis, job: Job): Promise<Measured> {
  const meter = new Meter(job)
  const handle = async (channel: Channel, message: ConsumeMessage) => {
    const key = `${job.queue}:${message.properties.messageId}`
    const mine = await redis.set(key, 'processing', 'PX', LEASE_MS, 'NX')
    if (!mine) throw new Error('a message came twice')
    await handler(meter)
    await redis.set(key, 'done', 'PX', REMEMBER_MS)
    channel.ack(message)
  }
  const channel = await openChannel(job)
  await channel.consume(job.queue, (message) => message && void handle(channel, message))
  return meter.done
}

/** Surehop without a store: bounded concurrency, timeouts, retries and dead letters, but duplicates are handled again. */
export function surehopConsume(job: Job): Promise<Measured> {
  return bySurehop(job, undefined)
}

/** Surehop with its Redis store: leases, fencing, crash counting, body comparison. */
export async function surehopDeduplicated(job: Job): Promise<Measured> {
  await using store = new RedisIdempotencyStore({ url: job.redisUrl })
  return await bySurehop(job, store)
}

async function bySurehop(job: Job, idempotency: RedisIdempotencyStore | undefined): Promise<Measured> {
  const { prefetch, concurrency } = job
  const meter = new Meter(job)
  await using surehop = await connect({ amqp: job.amqpUrl, service: 'bench' })
  const options = { prefetch, concurrency, ...(idempotency ? { idempotency } : {}) }
  await using _ = await surehop.consume(job.queue, options, () => handler(meter))
  return await meter.done
}

async function handler(meter: Meter): Promise<void> {
  meter.count()
}

/** Never closed: what is under way at the last message measured ends with the process. */
async function openChannel({ amqpUrl, prefetch }: Job): Promise<Channel> {
  const connection = await connectRaw(amqpUrl, { noDelay: true })
  const channel = await connection.createChannel()
  await channel.prefetch(prefetch)
  return channel
}
