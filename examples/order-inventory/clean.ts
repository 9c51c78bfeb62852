/** Leaves a broker and a Redis that were lent to the demo as they were: deletes the queues, the exchange and the records of this run. */
import { connect } from 'amqplib'
import { Redis } from 'ioredis'
import { archiveQueueOf, deadQueueOf } from '../../lib/index.ts'
import type { Names } from './order.ts'

/** Never rejects: a broker that is gone has nothing left to delete. */
export async function cleanUp(names: Names, amqpUrl: string, redisUrl: string): Promise<void> {
  await Promise.allSettled([cleanBroker(names, amqpUrl), cleanRedis(names, redisUrl)])
}

async function cleanBroker({ events, ...queues }: Names, url: string): Promise<void> {
  const connection = await connect(url)
  try {
    const channel = await connection.createChannel()
    for (const queue of Object.values(queues))
      for (const name of [queue, deadQueueOf(queue), archiveQueueOf(queue)]) await channel.deleteQueue(name)
    await channel.deleteExchange(events)
  } finally {
    await connection.close()
  }
}

async function cleanRedis({ events: _, ...queues }: Names, url: string): Promise<void> {
  const redis = new Redis(url, { lazyConnect: true, maxRetriesPerRequest: 1, retryStrategy: () => null })
  redis.on('error', () => {})
  try {
    await redis.connect()
    for (const queue of Object.values(queues))
      for await (const keys of redis.scanStream({ match: `surehop:{${queue}:*`, count: 1_000 }))
        if ((keys as string[]).length > 0) await redis.unlink(...(keys as string[]))
  } finally {
    redis.disconnect()
  }
}
