// A publisher of the real code on real channels of amqplib, and behind them a broker, a clock and a user of this test's own, who may
// do anything that is possible in the protocol, at any moment. It knows what no participant knows: how each send truly ended.

import { expect } from 'chai'
import type { Connection } from '../../lib/connection/connection.ts'
import type { Encoded } from '../../lib/producer/encode.ts'
import { Publisher } from '../../lib/producer/publisher.ts'
import type { VirtualTime } from '../consumer/virtual-time.ts'
import { type AmqpChannel, openChannel } from './amqp-channel.ts'

const DEADLINE_MS = 1_000
const HOUR_MS = 3_600_000
const WINDOW = { windowMessages: 2, windowBytes: 1_000, maxWaiting: 10 }

/** What is published: twice one id, one that may be lost on the way, one that cannot be encoded, one whose nack ends it. */
export const PUBLISHES = [
  { id: 'a', mandatory: true },
  { id: 'a', mandatory: true },
  { id: 'b', mandatory: false },
  { id: 'bad', mandatory: true },
  { id: 'c', mandatory: true, failsOnNack: true },
] as const

/** How one send ended, as the broker knows it. */
type Fate = 'stored' | 'returned' | 'nacked' | 'refused' | 'unanswered'

interface Publish {
  readonly id: string
  readonly mandatory: boolean
  readonly message: Encoded
  readonly fates: Fate[]
  readonly abort: AbortController
  end: string | undefined
}

/** A send that the broker has not answered. */
interface Sent {
  readonly tag: number
  readonly publish: Publish
  returned: boolean
}

type Action = readonly [name: string, run: () => unknown]

/** See the head of this file. */
export class World {
  readonly publishes: Publish[] = []
  readonly events: string[] = []
  readonly #time: VirtualTime
  readonly #publisher: Publisher
  readonly #changes = new Set<() => void>()
  #channel: AmqpChannel | undefined
  #sent: Sent[] = []
  #tag = 0
  #blocked: string | undefined
  #settled = 0
  #broken: Error | undefined

  constructor(time: VirtualTime) {
    this.#time = time
    const emit = (name: string) => void (/confirmed|failed/.test(name) && this.#settled++)
    const world = this
    const connection = {
      options: { events: { emit, wanted: () => true }, rpcTimeoutMs: 500 },
      problems: [],
      get blockedReason() {
        return world.#blocked
      },
      ready: async (_: number, signal?: AbortSignal) => signal?.throwIfAborted(),
      openConfirmChannel: () => this.#open(),
      onChange: (listener: () => void) => {
        this.#changes.add(listener)
        return () => this.#changes.delete(listener)
      },
    }
    this.#publisher = new Publisher(connection as unknown as Connection, WINDOW)
    this.#publisher.start()
  }

  /** All that may happen now, by name. */
  get actions(): Action[] {
    const sent = this.#sent
    return [
      ...(this.publishes.length < PUBLISHES.length ? [['publish', () => this.publish()] as const] : []),
      ...sent.flatMap((one, at): Action[] => [
        [`ack ${one.tag}`, () => this.#answer([one], 'ack', false)],
        [`nack ${one.tag}`, () => this.#answer([one], 'nack', false)],
        ...(at > 0 ? [[`ack up to ${one.tag}`, () => this.#answer(sent.slice(0, at + 1), 'ack', true)] as const] : []),
        ...(at > 0
          ? [[`nack up to ${one.tag}`, () => this.#answer(sent.slice(0, at + 1), 'nack', true)] as const]
          : []),
        ...(one.publish.mandatory && !one.returned ? [[`return ${one.tag}`, () => this.#return(one)] as const] : []),
      ]),
      ...(sent.length > 0 ? [['refuse by closing the channel', () => this.#refuse()] as const] : []),
      ...(this.#channel ? [['lose the channel', () => this.#lose()] as const] : []),
      ...this.publishes.flatMap((publish, n): Action[] =>
        publish.end ? [] : [[`abort ${n}`, () => publish.abort.abort(new Error('enough'))]],
      ),
      [this.#blocked ? 'unblock' : 'block', () => this.#block()],
      ['time', () => this.#time.pass(this.#once(), HOUR_MS)],
    ]
  }

  /** Does one thing, and lets everything come to rest. */
  async do([name, run]: Action): Promise<void> {
    this.events.push(name)
    await run()
    await this.#time.settle()
    this.check()
  }

  publish(): void {
    const { id, mandatory, ...rest } = PUBLISHES[this.publishes.length]!
    const message = encoded(id)
    const abort = new AbortController()
    const publish: Publish = { id, mandatory, message, fates: [], abort, end: undefined }
    this.publishes.push(publish)
    const end = (outcome: string) => {
      publish.end = outcome
      this.#judge(publish)
    }
    const options = { mandatory, deadlineMs: DEADLINE_MS, signal: abort.signal, ...rest }
    this.#publisher.publish(message, options).then(
      () => end('confirmed'),
      (error: { outcome: string }) => end(error.outcome),
    )
  }

  /** Nothing happens any more but time. @throws where a promise was broken */
  async end(): Promise<void> {
    this.#blocked = undefined
    const closed = this.#publisher.close(DEADLINE_MS)
    await this.#time.pass(() => this.publishes.every(({ end }) => end !== undefined), HOUR_MS)
    await closed
    await this.#time.settle()
    this.check()
    for (const { end } of this.publishes) expect(end, 'every promise settles').not.to.equal(undefined)
    expect(this.#settled, 'each of them once').to.equal(this.publishes.length)
    expect(this.#publisher.openCount).to.equal(0)
  }

  check(): void {
    if (this.#broken) throw this.#broken
    expect(this.#sent.length, 'on the wire').to.be.at.most(WINDOW.windowMessages)
    expect(this.#settled).to.equal(this.publishes.filter(({ end }) => end !== undefined).length)
  }

  async #open(): Promise<AmqpChannel> {
    this.#tag = 0
    const channel = await openChannel((fields, content) => this.#written(fields, content))
    channel.once('close', () => {
      if (this.#channel !== channel) return
      this.#channel = undefined
      this.#sent = []
    })
    this.#channel = channel
    return channel
  }

  /** The publisher writes to its channel. */
  #written({ messageId }: { readonly messageId?: unknown }, content: Buffer): void {
    if (messageId === 'bad') throw new TypeError('this cannot be encoded')
    const publish = this.publishes.find(({ message }) => message.content === content)!
    if (this.#blocked) this.#break('something was written while the broker blocked')
    if (this.#sent.some((one) => one.publish.id === publish.id)) this.#break('one id is on the wire twice')
    if (publish.end) this.#break('what has ended was sent again')
    publish.fates.push('unanswered')
    this.#sent.push({ tag: ++this.#tag, publish, returned: false })
  }

  #answer(of: readonly Sent[], answer: 'ack' | 'nack', multiple: boolean): void {
    for (const { publish, returned } of of)
      publish.fates[publish.fates.length - 1] = answer === 'nack' ? 'nacked' : returned ? 'returned' : 'stored'
    this.#sent = this.#sent.filter((one) => !of.includes(one))
    this.#channel!.hear(answer, { deliveryTag: of.at(-1)!.tag, multiple })
  }

  #return(one: Sent): void {
    one.returned = true
    one.publish.fates[one.publish.fates.length - 1] = 'returned'
    this.#channel!.hear('return', { messageId: one.publish.id })
  }

  /** The broker refuses one of these, and does not say which. */
  #refuse(): void {
    const [one, ...others] = this.#sent
    if (others.length === 0 && !one!.returned) one!.publish.fates[one!.publish.fates.length - 1] = 'refused'
    this.#channel!.hear('close', { replyCode: 406, replyText: 'PRECONDITION_FAILED', classId: 60, methodId: 40 })
  }

  #lose(): void {
    this.#channel!.lose()
  }

  #block(): void {
    this.#blocked = this.#blocked ? undefined : 'low on memory'
    for (const listener of this.#changes) listener()
  }

  /** Is the outcome all that is known, and no more than is known? */
  #judge({ id, end, fates }: Publish): void {
    const has = (fate: Fate) => fates.includes(fate)
    const honest =
      fates.at(-1) === 'stored'
        ? 'confirmed'
        : has('unanswered')
          ? 'unknown'
          : has('nacked') || has('refused')
            ? 'nacked'
            : has('returned')
              ? 'returned'
              : 'not-sent'
    if (end !== honest)
      this.#break(`publish ${id} ended as ${end}, and was ${honest}: its sends were ${fates.join(', ')}`)
  }

  #break(what: string): void {
    this.#broken ??= new Error(what)
  }

  /** True from the second time on: one timer has fired then. */
  #once(): () => boolean {
    let asked = 0
    return () => asked++ > 0
  }
}

function encoded(messageId: string): Encoded {
  const content = Buffer.from(messageId)
  const properties = { messageId, headers: {} }
  return { exchange: '', routingKey: 'q', content, properties, messageId, transactionId: messageId }
}
