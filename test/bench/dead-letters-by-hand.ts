/** The shovel that one writes by hand for dead letters. It has nothing of Surehop in its memory. */

import { connect, type Options } from 'amqplib'
import { type Job, type Measured, Meter } from './job.ts'

/** Consumes the dead letters, publishes each to its queue, mandatory, and acks when it is confirmed. */
export async function shovelByHand(job: Job): Promise<Measured> {
  const connection = await connect(job.amqpUrl, { noDelay: true })
  const channel = await connection.createConfirmChannel()
  const meter = new Meter(job)
  channel.on('return', () => {
    throw new Error('returned')
  })
  await channel.prefetch(job.inFlight)
  await channel.consume(`${job.queue}.dead`, (letter) => {
    if (!letter) return
    const options = { ...letter.properties, persistent: true, mandatory: true } as Options.Publish
    channel.publish('', job.queue, letter.content, options, (error: Error | null) => {
      if (error) throw error
      channel.ack(letter)
      meter.count()
    })
  })
  return meter.done
}
