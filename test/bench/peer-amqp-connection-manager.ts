/** amqp-connection-manager as its README has it: a ChannelWrapper with confirms, which queues in memory while it is disconnected. */

import { randomUUID } from 'node:crypto'
import { connect } from 'amqp-connection-manager'
import type { ConsumeMessage } from 'amqplib'
import { handler } from './consume-amqplib.ts'
import { type Job, type Measured, Meter } from './job.ts'
import { bodyOf, pumpedPromises } from './pump.ts'

const connected = ({ amqpUrl }: Job) => connect([amqpUrl], { connectionOptions: { noDelay: true } })

/** `channelWrapper.publish()`, one promise per message. */
export async function publish(job: Job): Promise<Measured> {
  const connection = connected(job)
  const channel = connection.createChannel({ confirm: true })
  await channel.waitForConnect()
  const body = bodyOf(job)
  const measured = await pumpedPromises(job, () =>
    channel.publish('', job.queue, body, { persistent: true, messageId: randomUUID() }),
  )
  await connection.close()
  return measured
}

/** `channelWrapper.consume()`; acks by hand, as there. Ends with the process. */
export async function consume(job: Job): Promise<Measured> {
  const meter = new Meter(job)
  const channel = connected(job).createChannel({ confirm: false })
  await channel.waitForConnect()
  const take = async (message: ConsumeMessage) => {
    await handler(meter)
    channel.ack(message)
  }
  await channel.consume(job.queue, (message) => void take(message), { prefetch: job.prefetch })
  return meter.done
}
