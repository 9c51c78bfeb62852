// What the tests of the consumer share: a connection, a store and a queue of their own, and eyes on the broker.

import { type ChannelModel, connect as connectRaw, type GetMessage, type Options } from 'amqplib'
import {
  type ConnectOptions,
  connect,
  type IdempotencyStore,
  onEvent,
  RedisIdempotencyStore,
  type Surehop,
} from '../../lib/index.ts'
import type { EventData, EventName } from '../../lib/observability/events.ts'
import { eventually, within } from '../support/eventually.ts'
import { unique } from '../support/unique.ts'

const open: { close(): Promise<unknown> }[] = []

/** Closes what tests opened here, the latest first. Call it after each test. */
export async function closeAll(): Promise<void> {
  for (const thing of open.splice(0).reverse()) await thing.close()
}

/** Something to close after the test. */
export function toClose<T extends { close(): Promise<unknown> }>(thing: T): T {
  open.push(thing)
  return thing
}

/** A connected toolkit. */
export async function connected(options: Partial<ConnectOptions> = {}): Promise<Surehop> {
  const given = { amqp: amqpUrl(), service: 'test', drainMs: 5_000, reconnectBaseMs: 50, ...options }
  return toClose(await connect(given))
}

/** A store of this test's own. */
export function inbox(prefix = unique('inbox'), url = redisUrl()): IdempotencyStore {
  return toClose(new RedisIdempotencyStore({ url }, { prefix }))
}

export function amqpUrl(): string {
  return process.env['AMQP_URL']!
}

export function redisUrl(): string {
  return process.env['REDIS_URL']!
}

/** The broker, without the toolkit. */
export async function raw(url = amqpUrl()): Promise<ChannelModel> {
  const model = await connectRaw(url)
  model.on('error', () => {})
  return toClose({ model, close: () => model.close().catch(() => {}) }).model
}

/** Sends as a foreign client would: what is given and nothing else. */
export async function sendRaw(queue: string, body: Buffer | string, options: Options.Publish = {}): Promise<void> {
  const channel = await (await raw()).createConfirmChannel()
  channel.sendToQueue(queue, Buffer.from(body), { persistent: true, ...options })
  await channel.waitForConfirms()
}

/** The next `count` messages of a queue, taken out of it. */
export async function taken(queue: string, count = 1, withinMs = 15_000): Promise<GetMessage[]> {
  const model = await raw()
  const channel = await model.createChannel()
  const messages: GetMessage[] = []
  const all = new Promise<void>((resolve, reject) => {
    channel.on('error', reject)
    channel
      .consume(
        queue,
        (message) => {
          if (message) messages.push(message as unknown as GetMessage)
          if (messages.length >= count) resolve()
        },
        { noAck: true },
      )
      .catch(reject)
  })
  await within(all, { what: `message ${count} of ${queue}`, withinMs })
  await channel.close()
  return messages
}

/** How many messages are ready in a queue, and how many consumers it has. */
export async function counts(queue: string): Promise<{ messages: number; consumers: number }> {
  const model = await connectRaw(amqpUrl())
  try {
    const channel = await model.createChannel()
    channel.on('error', () => {})
    const { messageCount, consumerCount } = await channel.checkQueue(queue)
    return { messages: messageCount, consumers: consumerCount }
  } finally {
    await model.close()
  }
}

/** Nothing is left of the flow: neither to do nor dead. */
export async function nothingLeft(queue: string): Promise<void> {
  await eventually(
    async () => {
      const [work, dead] = [await counts(queue), await counts(`${queue}.dead`)]
      if (work.messages + dead.messages > 0) throw new Error(`${work.messages} in ${queue}, ${dead.messages} dead`)
    },
    { what: `the end of all messages of ${queue}` },
  )
}

/** The next event of a name that passes, as long as the test runs. Start it before what causes it. */
export function event<N extends EventName>(
  name: N,
  where: (data: EventData<N>) => boolean = () => true,
  withinMs = 15_000,
) {
  let end = () => {}
  const seen = new Promise<EventData<N>>((resolve) => {
    end = onEvent(name, (data) => where(data) && resolve(data))
  })
  return within(seen, { what: `the event ${name}`, withinMs }).finally(end)
}

/** Counts what it is told, and says when there was enough. */
export class Tally<T> {
  readonly seen: T[] = []
  readonly #waiting: { count: number; resolve: () => void }[] = []

  add(one: T): number {
    this.seen.push(one)
    for (const { count, resolve } of this.#waiting) if (this.seen.length >= count) resolve()
    return this.seen.length
  }

  async reaches(count: number, withinMs = 15_000): Promise<T[]> {
    const enough = new Promise<void>((resolve) => {
      if (this.seen.length >= count) resolve()
      else this.#waiting.push({ count, resolve })
    })
    const what = () => `number ${count} (${this.seen.length} so far)`
    await within(enough, { what: what(), withinMs }).catch((error: Error) => {
      throw new Error(`${error.message}; in the end there were ${this.seen.length}`)
    })
    return this.seen
  }
}
