// What the tests of connection, topology and producer share: the run's broker, and things that are closed after each test.

import { type Channel, type ChannelModel, type ConsumeMessage, connect as connectRaw, type GetMessage } from 'amqplib'
import { type EventData, type EventName, onEvent } from '../../lib/observability/events.ts'
import { type ConnectOptions, connect, type Surehop } from '../../lib/surehop.ts'
import { latch, within } from '../support/eventually.ts'
import { NODE_FILE, type RabbitMq, type Services, startRabbitMq, startServices } from '../support/services.ts'
import { startProxy, type TcpProxy } from '../support/tcp-proxy.ts'
import { uniqueExchange, uniqueQueue } from '../support/unique.ts'

const START_WITHIN_MS = 90_000
/** For a test and its clearing up, where rabbitmqctl is run: on a busy machine it takes many seconds each time. */
const ADMINISTERED_MS = 90_000
/** Quick reconnects and closes; everything else as users have it. */
const QUICK = { service: 'test', reconnectBaseMs: 20, reconnectCapMs: 200, drainMs: 2_000 }

export type Arguments = Readonly<Record<string, string | number | boolean>>

/** Registers hooks in the enclosing `describe`; `own` starts a private broker, which may be killed. */
export function wiring(own?: () => Promise<RabbitMq>): Wiring {
  const wired = new Wiring()
  before('bring a broker', async function () {
    this.timeout(START_WITHIN_MS)
    await wired.start(own)
  })
  if (own)
    beforeEach('give rabbitmqctl time', function () {
      this.currentTest?.timeout(ADMINISTERED_MS)
    })
  afterEach('close what the test opened', async function () {
    this.timeout(ADMINISTERED_MS)
    await wired.closeAll()
  })
  after('let the broker go', async function () {
    this.timeout(START_WITHIN_MS)
    await wired.stop()
  })
  return wired
}

/**
 * For {@link wiring}: a broker that rabbitmqctl reaches. It is the run's own, unless AMQP_URL names one that was started
 * elsewhere; then a private one, so that no test is left out.
 */
export async function administered(): Promise<RabbitMq> {
  if (process.env['AMQP_URL'] && !process.env[NODE_FILE]) return startRabbitMq()
  return (await startServices({ rabbitmq: true })).rabbitmq
}

export class Wiring {
  broker!: RabbitMq
  #services: Services | undefined
  #raw: ChannelModel | undefined
  readonly #open: (() => unknown)[] = []

  async start(own?: () => Promise<RabbitMq>): Promise<void> {
    if (own) this.broker = await own()
    else {
      this.#services = await startServices({ rabbitmq: true })
      this.broker = this.#services.rabbitmq
    }
  }

  async stop(): Promise<void> {
    await this.#raw?.close().catch(() => {})
    await (this.#services ? this.#services.stop() : this.broker.close())
  }

  async closeAll(): Promise<void> {
    for (const close of this.#open.splice(0).reverse()) await close()
  }

  /** Runs at the end of the test. */
  later(close: () => unknown): void {
    this.#open.push(close)
  }

  async surehop(options: Partial<ConnectOptions> = {}): Promise<Surehop> {
    const surehop = await connect({ amqp: this.broker.url, ...QUICK, ...options })
    this.later(() => surehop.close())
    return surehop
  }

  /** A proxy in front of the broker, and a Surehop behind it. */
  async behindProxy(options: Partial<ConnectOptions> = {}): Promise<{ proxy: TcpProxy; surehop: Surehop }> {
    const proxy = await this.proxy()
    return { proxy, surehop: await this.surehop({ amqp: proxy.url, ...options }) }
  }

  async proxy(): Promise<TcpProxy> {
    const proxy = await startProxy(this.broker.url)
    this.later(() => proxy.close())
    return proxy
  }

  /** Runs on a raw channel of its own, past the toolkit. */
  async raw<T>(run: (channel: Channel) => Promise<T>): Promise<T> {
    if (!this.#raw) {
      this.#raw = await connectRaw(this.broker.url, { noDelay: true })
      this.#raw.on('error', () => {})
      this.#raw.on('close', () => {
        this.#raw = undefined
      })
    }
    const channel = await this.#raw.createChannel()
    channel.on('error', () => {})
    try {
      return await run(channel)
    } finally {
      await channel.close().catch(() => {})
    }
  }

  async queue(args: Arguments = {}): Promise<string> {
    const name = uniqueQueue()
    await this.raw((channel) =>
      channel.assertQueue(name, { durable: true, arguments: { 'x-queue-type': 'quorum', ...args } }),
    )
    return name
  }

  /** An exchange with these queues bound by `#`. */
  async exchange(queues: readonly string[] = [], type = 'topic'): Promise<string> {
    const name = uniqueExchange()
    await this.raw(async (channel) => {
      await channel.assertExchange(name, type, { durable: true })
      for (const queue of queues) await channel.bindQueue(queue, name, '#')
    })
    return name
  }

  /** Takes all messages out of a queue. */
  async take(queue: string): Promise<Taken[]> {
    return this.raw(async (channel) => {
      const taken: Taken[] = []
      const { messageCount } = await channel.checkQueue(queue)
      if (messageCount > 0) await consumeSome(channel, queue, messageCount, (message) => taken.push(takenOf(message)))
      for (let got = await channel.get(queue, { noAck: true }); got; got = await channel.get(queue, { noAck: true }))
        taken.push(takenOf(got))
      return taken
    })
  }

  async depth(queue: string): Promise<number> {
    return this.raw(async (channel) => (await channel.checkQueue(queue)).messageCount)
  }

  /** All events of that name from now on. */
  record<N extends EventName>(name: N): EventData<N>[] {
    const seen: EventData<N>[] = []
    this.later(onEvent(name, (data) => seen.push(data)))
    return seen
  }

  /** The next event of that name for which `where` holds. */
  event<N extends EventName>(
    name: N,
    where: (data: EventData<N>) => boolean = () => true,
    withinMs = 15_000,
  ): Promise<EventData<N>> {
    const seen = latch<EventData<N>>()
    const end = onEvent(name, (data) => where(data) && seen.resolve(data))
    return within(seen.promise, { what: `the event ${name}`, withinMs }).finally(end)
  }
}

export interface Taken {
  readonly id: string
  readonly headers: Readonly<Record<string, unknown>>
  readonly routingKey: string
  readonly body: Buffer
}

function takenOf({ properties, fields, content }: GetMessage | ConsumeMessage): Taken {
  const { messageId, headers } = properties
  return { id: String(messageId), headers: headers ?? {}, routingKey: fields.routingKey, body: content }
}

async function consumeSome(channel: Channel, queue: string, count: number, on: (message: ConsumeMessage) => number) {
  const done = latch()
  const each = (message: ConsumeMessage | null) => message && on(message) >= count && done.resolve()
  const { consumerTag } = await channel.consume(queue, each, { noAck: true })
  await within(done.promise, { what: `${count} messages of ${queue}` })
  await channel.cancel(consumerTag)
}

/** What a promise rejects with. */
export async function failure<E extends Error = Error>(promise: Promise<unknown>): Promise<E> {
  return promise.then(
    (value) => {
      throw new Error(`expected a failure, got ${JSON.stringify(value)}`)
    },
    (error: E) => error,
  )
}
