/** Dead letters: looking at many of them, and sending all of them again. */

import { type ConfirmChannel, connect as connectRaw, type Options } from 'amqplib'
import { v7 } from 'uuid'
import type { Run } from '../../lib/consumer/handler.ts'
import { deadLetter } from '../../lib/dead-letter/letter.ts'
import { connect, RedisIdempotencyStore, type ReplayOptions, type Surehop } from '../../lib/index.ts'
import type { RawDelivery } from '../../lib/message.ts'
import { KINDS, PAGE } from './dead-letters-sizes.ts'
import { type Job, type Measured, stopwatch } from './job.ts'
import { quantiles } from './quantiles.ts'

const LOOKS = 5
/** Letters in flight while filling. */
const FILL_BATCH = 1_000
const FULL_SPEED: ReplayOptions = { perSecond: 0, watch: false }

/** Letters as a consumer writes them, story and all. */
export async function prepareLetters(job: Job): Promise<void> {
  const connection = await connectRaw(job.amqpUrl, { noDelay: true })
  const channel = await connection.createConfirmChannel()
  const errors = Array.from({ length: KINDS }, (_, kind) => errorOf(kind))
  const content = Buffer.alloc(job.bodyBytes, 'surehop ')
  for (let n = 0; n < job.warmup + job.messages; n++) {
    sendLetter(channel, job.queue, content, errors[n % KINDS]!)
    if (n % FILL_BATCH === FILL_BATCH - 1) await channel.waitForConfirms()
  }
  await channel.waitForConfirms()
  await connection.close()
}

function errorOf(kind: number): Error {
  const error = new Error(`stock of article ${kind} could not be reserved`)
  error.name = `Failure${kind}`
  return error
}

function sendLetter(channel: ConfirmChannel, queue: string, content: Buffer, error: Error): void {
  const raw = deliveryOf(content)
  const messageId = String(raw.properties.messageId)
  const run = { attempt: 8, generation: 0, firstFailedAt: Date.now(), message: { messageId, transactionId: messageId } }
  const origin = { queue, service: 'bench', host: 'bench' }
  const letter = deadLetter(raw, run as unknown as Run, 'failed 8 times', error, origin)
  channel.publish('', letter.routingKey, letter.content, { ...letter.properties, persistent: true } as Options.Publish)
}

function deliveryOf(content: Buffer): RawDelivery {
  const messageId = v7()
  return {
    content,
    fields: { deliveryTag: 1, redelivered: false, exchange: 'shop.events', routingKey: 'order.placed' },
    properties: {
      messageId,
      type: 'order.placed',
      timestamp: Math.floor(Date.now() / 1_000),
      appId: 'bench',
      contentType: 'application/octet-stream',
      headers: { transaction_id: messageId },
    },
  }
}

/** Counts them, lists the first page, and groups all. */
export async function look(job: Job): Promise<Measured> {
  await using surehop = await connect({ amqp: job.amqpUrl, service: 'bench' })
  const dead = surehop.deadLetters(job.queue)
  const countMs = await middleOf(async () => expectCount(await dead.count(), job.messages))
  const pageMs = await middleOf(async () =>
    expectCount((await all(dead.list({ limit: PAGE }))).length, Math.min(PAGE, job.messages)),
  )
  const stop = stopwatch(job.messages)
  const groupMs = await timed(async () => expectCount((await dead.groups()).length, Math.min(KINDS, job.messages)))
  return { countMs, pageMs, groupMs, ...stop() }
}

async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = []
  for await (const item of items) found.push(item)
  return found
}

function expectCount(found: number, expected: number): void {
  if (found !== expected) throw new Error(`expected ${expected}, found ${found}`)
}

async function middleOf(run: () => Promise<void>): Promise<number> {
  const times: number[] = []
  for (let i = 0; i < LOOKS; i++) times.push(await timed(run))
  return quantiles(times)(0.5)
}

async function timed(run: () => Promise<void>): Promise<number> {
  const began = performance.now()
  await run()
  return performance.now() - began
}

/** `replay()` at full speed, without a store. */
export async function replay(job: Job): Promise<Measured> {
  await using surehop = await connect({ amqp: job.amqpUrl, service: 'bench' })
  return await replayedBy(surehop, job)
}

/** The same, asking the consumer's store of every letter whether it would be for nothing. */
export async function replayAskingStore(job: Job): Promise<Measured> {
  await using surehop = await connect({ amqp: job.amqpUrl, service: 'bench' })
  await using store = new RedisIdempotencyStore({ url: job.redisUrl })
  return await replayedBy(surehop, job, store)
}

async function replayedBy(surehop: Surehop, job: Job, idempotency?: RedisIdempotencyStore): Promise<Measured> {
  const dead = surehop.deadLetters(job.queue, idempotency ? { idempotency } : {})
  await dead.replay({ limit: job.warmup }, FULL_SPEED)
  const stop = stopwatch(job.messages)
  const { replayed } = await dead.replay({}, FULL_SPEED)
  const measured = stop()
  expectCount(replayed, job.messages)
  expectCount((await surehop.queueStatus(job.queue))?.messages ?? 0, job.warmup + job.messages)
  return measured
}
