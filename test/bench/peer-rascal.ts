/** rascal with its production defaults (`withDefaultConfig`: confirms, mandatory, persistent, pooled channels). */

import { randomUUID } from 'node:crypto'
import rascal, { type BrokerAsPromised } from 'rascal'
import { handler } from './consume-amqplib.ts'
import { type Job, type Measured, Meter } from './job.ts'
import { bodyOf, type Confirmed, pumped } from './pump.ts'

/**
 * rascal lends each message a channel of its own until it is confirmed, so this is its number of messages in flight, whatever
 * the job says. The default is 5; of 5, 20, 50, 200 and 500 this was the fastest.
 */
const TUNED = {
  connection: { socketOptions: { noDelay: true }, options: { channelMax: 2_047 } },
  publicationChannelPools: { confirmPool: { max: 200, min: 1 } },
}

/** `broker.publish()`, and the events of its session, as fast as rascal can be made. */
export function publish(job: Job): Promise<Measured> {
  return publishBy(job, TUNED)
}

/** The same with `withDefaultConfig()` and nothing else. */
export function publishAsItComes(job: Job): Promise<Measured> {
  return publishBy(job, {})
}

async function publishBy(job: Job, vhost: Settings): Promise<Measured> {
  const broker = await started(job, { publications: { bench: { vhost: '/', queue: job.queue } } }, vhost)
  const body = bodyOf(job)
  const measured = await pumped(job, (confirmed) => void published(broker, body, confirmed))
  await broker.shutdown()
  return measured
}

async function published(broker: BrokerAsPromised, body: Buffer, confirmed: Confirmed): Promise<void> {
  const session = await broker.publish('bench', body, { options: { messageId: randomUUID() } })
  session.on('success', () => confirmed(null))
  session.on('error', confirmed)
  session.on('return', () => confirmed(new Error('returned')))
}

/** `broker.subscribe()`; ends with the process. */
export async function consume(job: Job): Promise<Measured> {
  const { queue, prefetch } = job
  const meter = new Meter(job)
  const broker = await started(job, { subscriptions: { bench: { vhost: '/', queue, prefetch } } })
  const subscription = await broker.subscribe('bench')
  subscription.on('message', async (_message, _content, ackOrNack) => {
    await handler(meter)
    ackOrNack()
  })
  return meter.done
}

interface Settings {
  readonly connection?: object
}

async function started({ amqpUrl, queue }: Job, what: object, settings: Settings = TUNED): Promise<BrokerAsPromised> {
  const vhost = {
    ...settings,
    connection: { ...settings.connection, url: amqpUrl },
    queues: { [queue]: { assert: false, check: true } },
  }
  const broker = await rascal.BrokerAsPromised.create(rascal.withDefaultConfig({ vhosts: { '/': vhost }, ...what }))
  broker.on('error', (error) => {
    throw error
  })
  return broker
}
