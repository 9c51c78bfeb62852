/**
 * rabbitmq-client by the interfaces its README recommends: `createPublisher()` with confirms and a second attempt, `createConsumer()`.
 * Without `noDelay`, which is its default and faster here: it writes each message and each ack by itself.
 */

import { randomUUID } from 'node:crypto'
import { Connection } from 'rabbitmq-client'
import { type Job, type Measured, Meter } from './job.ts'
import { bodyOf, pumpedPromises } from './pump.ts'

async function connected({ amqpUrl }: Job): Promise<Connection> {
  const connection = new Connection(amqpUrl)
  await connection.onConnect()
  return connection
}

/** `publisher.send()`, one promise per message. */
export async function publish(job: Job): Promise<Measured> {
  const connection = await connected(job)
  const publisher = connection.createPublisher({ confirm: true, maxAttempts: 2 })
  const body = bodyOf(job)
  const measured = await pumpedPromises(job, () =>
    publisher.send({ routingKey: job.queue, durable: true, messageId: randomUUID() }, body),
  )
  await publisher.close()
  await connection.close()
  return measured
}

/** Its documentation advises twice as many messages fetched as are handled at a time. Ends with the process. */
export async function consume(job: Job): Promise<Measured> {
  const { queue, concurrency, prefetch } = job
  const meter = new Meter(job)
  const connection = await connected(job)
  const options = { queue, concurrency, qos: { prefetchCount: prefetch }, queueOptions: { passive: true } }
  connection.createConsumer(options, async () => meter.count())
  return meter.done
}
