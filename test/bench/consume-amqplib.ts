/**
 * Consuming with amqplib by hand, from a queue that is full already, with a handler that does nothing. The loops hold as many
 * unacked deliveries as Surehop does, and ack each one.
 */
import { type Channel, type ConsumeMessage, connect } from 'amqplib'
import type { Redis } from 'ioredis'
import { type Job, type Measured, Meter } from './job.ts'

const LEASE_MS = 15_000
export const REMEMBER_MS = 14 * 24 * 3_600_000

/** Handler, ack. Handles duplicates again. */
export function rawConsume(job: Job): Promise<Measured> {
  const meter = new Meter(job)
  return consumedBy(job, meter, () => handler(meter))
}

/** `SET NX`, handler, `SET`, ack; the loop that one writes by hand. */
export async function rawDeduplicated(job: Job): Promise<Measured> {
  const { Redis } = await import('ioredis')
  return deduplicatedBy(new Redis(job.redisUrl), job)
}

/** The same with ioredis' auto-pipelining, which gathers the commands of one tick. */
export async function rawPipelined(job: Job): Promise<Measured> {
  const { Redis } = await import('ioredis')
  return deduplicatedBy(new Redis(job.redisUrl, { enableAutoPipelining: true }), job)
}

function deduplicatedBy(redis: Redis, job: Job): Promise<Measured> {
  const meter = new Meter(job)
  return consumedBy(job, meter, async ({ properties }) => {
    const key = `${job.queue}:${properties.messageId}`
    const mine = await redis.set(key, 'processing', 'PX', LEASE_MS, 'NX')
    if (!mine) throw new Error('a message came twice')
    await handler(meter)
    await redis.set(key, 'done', 'PX', REMEMBER_MS)
  })
}

/** Acks each message when `handle` is through with it. Resolves at the last one measured. */
export async function consumedBy(
  job: Job,
  meter: Meter,
  handle: (message: ConsumeMessage) => Promise<unknown>,
): Promise<Measured> {
  const channel = await openChannel(job)
  const take = async (message: ConsumeMessage) => {
    await handle(message)
    channel.ack(message)
  }
  await channel.consume(job.queue, (message) => message && void take(message))
  return meter.done
}

/** What every contestant's handler does. */
export async function handler(meter: Meter): Promise<void> {
  meter.count()
}

/** Never closed: what is under way at the last message measured ends with the process. */
async function openChannel({ amqpUrl, prefetch }: Job): Promise<Channel> {
  const connection = await connect(amqpUrl, { noDelay: true })
  const channel = await connection.createChannel()
  await channel.prefetch(prefetch)
  return channel
}
