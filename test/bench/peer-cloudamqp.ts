/** @cloudamqp/amqp-client by the session its README recommends: reconnects, confirms and persistence are its defaults. */

import { randomUUID } from 'node:crypto'
import { AMQPSession } from '@cloudamqp/amqp-client'
import { handler } from './consume-amqplib.ts'
import { type Job, type Measured, Meter } from './job.ts'
import { bodyOf, pumpedPromises } from './pump.ts'

const connected = ({ amqpUrl }: Job) => AMQPSession.connect(amqpUrl)

/** `queue.publish()`, one promise per message. */
export async function publish(job: Job): Promise<Measured> {
  const session = await connected(job)
  const queue = await session.queue(job.queue, { passive: true })
  const body = bodyOf(job)
  const measured = await pumpedPromises(job, () => queue.publish(body, { messageId: randomUUID() }))
  await session.stop()
  return measured
}

/** `queue.subscribe()`, which acks after the callback. Ends with the process. */
export async function consume(job: Job): Promise<Measured> {
  const meter = new Meter(job)
  const session = await connected(job)
  const queue = await session.queue(job.queue, { passive: true })
  await queue.subscribe({ prefetch: job.prefetch }, () => handler(meter))
  return meter.done
}
