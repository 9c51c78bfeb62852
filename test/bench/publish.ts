/**
 * Ways to publish confirmed, persistent messages with a fixed number in flight. All send the same bytes with a UUIDv7 as
 * message id. The hand-written ones are as cheap as amqplib allows: callbacks, no promise per message.
 */
import { type ConfirmChannel, connect as connectRaw, type Options } from 'amqplib'
import { v7 } from 'uuid'
import { connect, type OutgoingMessage, type Producer } from '../../lib/index.ts'
import { type Job, type Measured, Meter } from './job.ts'

/** amqplib, a confirm callback per message: what most services have. A message that no queue takes is lost without a word. */
export function rawPublish(job: Job): Promise<Measured> {
  return withConfirmChannel(job, async (channel) => {
    const content = bodyOf(job)
    return pumped(job, (confirmed) => {
      channel.publish('', job.queue, content, { persistent: true, messageId: v7() }, confirmed)
    })
  })
}

/** The same, and what a careful service adds by hand: mandatory with a return listener, and the properties that Surehop sets. */
export function rawCarefulPublish(job: Job): Promise<Measured> {
  return withConfirmChannel(job, async (channel) => {
    const content = bodyOf(job)
    const open = new Set<string>()
    channel.on('return', ({ properties }) => void open.delete(String(properties.messageId)))
    return pumped(job, (confirmed) => {
      const messageId = v7()
      open.add(messageId)
      channel.publish('', job.queue, content, carefulOptions(messageId), (error: Error | null) =>
        confirmed(error ?? (open.delete(messageId) ? null : new Error('returned'))),
      )
    })
  })
}

function carefulOptions(messageId: string): Options.Publish {
  return {
    persistent: true,
    mandatory: true,
    messageId,
    timestamp: Math.floor(Date.now() / 1_000),
    appId: 'bench',
    contentType: 'application/octet-stream',
    headers: { transaction_id: messageId },
  }
}

/** `producer.send()`, one promise per message. */
export function surehopSend(job: Job): Promise<Measured> {
  return withProducer(job, async (producer) => {
    const body = bodyOf(job)
    return pumped(job, (confirmed) => {
      producer.send(job.queue, { body }).then(() => confirmed(null), confirmed)
    })
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

type Confirmed = (error: Error | null) => void

/** Calls `publish` so that `inFlight` messages are under way at any time, until all are confirmed. */
function pumped(job: Job, publish: (confirmed: Confirmed) => void): Promise<Measured> {
  const meter = new Meter(job)
  let left = job.warmup + job.messages
  return new Promise((resolve, reject) => {
    const next = () => {
      left--
      publish(confirmed)
    }
    const confirmed = (error: Error | null) => {
      if (error) return reject(error)
      meter.count()
      if (left > 0) next()
    }
    meter.done.then(resolve, reject)
    for (let i = 0; i < job.inFlight && left > 0; i++) next()
  })
}

async function withConfirmChannel(job: Job, run: (channel: ConfirmChannel) => Promise<Measured>): Promise<Measured> {
  const connection = await connectRaw(job.amqpUrl, { noDelay: true })
  try {
    return await run(await connection.createConfirmChannel())
  } finally {
    await connection.close()
  }
}

async function withProducer(job: Job, run: (producer: Producer) => Promise<Measured>): Promise<Measured> {
  await using surehop = await connect({ amqp: job.amqpUrl, service: 'bench' })
  return await run(surehop.producer({ windowMessages: job.inFlight }))
}

function bodyOf({ bodyBytes }: Job): Buffer {
  return Buffer.alloc(bodyBytes, 'surehop ')
}
