/** Leaves a broker, a Redis and a Postgres that were lent to the demo as they were: deletes all that belongs to this run. */
import { connect } from 'amqplib'
import { Redis } from 'ioredis'
import { archiveQueueOf, deadQueueOf } from '../../lib/index.ts'
import { dropDatabases } from './database.ts'
import { namesOf } from './order.ts'

/** Never rejects: a server that is gone has nothing left to delete. */
export async function cleanUp(run: string, amqpUrl: string, redisUrl: string): Promise<void> {
  await Promise.allSettled([cleanBroker(run, amqpUrl), cleanRedis(run, redisUrl), dropDatabases(run)])
}

async function cleanBroker(run: string, url: string): Promise<void> {
  const { events, payment, ...queues } = namesOf(run)
  const connection = await connect(url)
  try {
    const channel = await connection.createChannel()
    for (const queue of Object.values(queues))
      for (const name of [queue, deadQueueOf(queue), archiveQueueOf(queue)]) await channel.deleteQueue(name)
    for (const end of ['half', 'half.check', 'half.parked']) await channel.deleteQueue(`${payment}.${end}`)
    await channel.deleteExchange(events)
  } finally {
    await connection.close()
  }
}

/** Of all keys only those that name this run. */
async function cleanRedis(run: string, url: string): Promise<void> {
  const redis = new Redis(url, { lazyConnect: true, maxRetriesPerRequest: 1, retryStrategy: () => null })
  redis.on('error', () => {})
  try {
    await redis.connect()
    for (const match of [`surehop:{${run}.*`, `surehop:decision:*:${run}.*`])
      for await (const keys of redis.scanStream({ match, count: 1_000 }))
        if ((keys as string[]).length > 0) await redis.unlink(...(keys as string[]))
  } finally {
    redis.disconnect()
  }
}
