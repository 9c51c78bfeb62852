/** Publishing with Surehop: mandatory, ids, transaction id, retries and a deadline are its defaults. */

import { connect, type OutgoingMessage, type Producer } from '../../lib/index.ts'
import { type Job, type Measured, Meter } from './job.ts'
import { bodyOf, pumpedPromises } from './pump.ts'

/** `producer.send()`, one promise per message. */
export function surehopSend(job: Job): Promise<Measured> {
  return withProducer(job, async (producer) => {
    const body = bodyOf(job)
    return pumpedPromises(job, () => producer.send(job.queue, { body }))
  })
}

/** `producer.publishMany()` over a generator; its window is the number in flight. A message is counted when it is taken. */
export function surehopPublishMany(job: Job): Promise<Measured> {
  return withProducer(job, async (producer) => {
    const meter = new Meter(job)
    const results = await producer.publishMany('', counted(job, meter))
    if (results.some(({ outcome }) => outcome !== 'confirmed')) throw new Error('a message was not confirmed')
    return meter.done
  })
}

function* counted(job: Job, meter: Meter): Generator<OutgoingMessage> {
  const body = bodyOf(job)
  for (let left = job.warmup + job.messages; left > 0; left--) {
    yield { body, routingKey: job.queue }
    meter.count()
  }
}

async function withProducer(job: Job, run: (producer: Producer) => Promise<Measured>): Promise<Measured> {
  await using surehop = await connect({ amqp: job.amqpUrl, service: 'bench' })
  return await run(surehop.producer({ windowMessages: job.inFlight }))
}
