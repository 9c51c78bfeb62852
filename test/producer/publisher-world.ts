// A publisher of the real code on real channels of amqplib, and behind them a broker, a clock and a user of this test's own, who may
// do anything that is possible in the protocol, at any moment. It knows what no participant knows: how each send truly ended.

import { expect } from 'chai'
import type { Connection } from '../../lib/connection/connection.ts'
import type { Encoded } from '../../lib/producer/encode.ts'
import { Publisher } from '../../lib/producer/publisher.ts'
import type { VirtualTime } from '../consumer/virtual-time.ts'
import { type AmqpChannel, openChannel } from './amqp-channel.ts'

const HOUR_MS = 3_600_000
export const WINDOW = { windowMessages: 2, windowBytes: 1_000, maxWaiting: 10 }

interface Asked {
  readonly id: string
  readonly mandatory: boolean
  readonly failsOnNack?: boolean
  /** The queue. Default 'q'. */
  readonly to?: string
  /** Of its body. Default that of its id. */
  readonly bytes?: number
}

/** What a user wants of his publisher. */
export interface Scenario {
  readonly publishes: readonly Asked[]
  readonly deadlineMs: number
  /** Each thing may also happen in one turn with the next, which finds no promise settled. Default false. */
  readonly atOnce?: boolean
}

/** Twice one id, one that may be lost on the way, one that cannot be encoded, one whose nack ends it. */
export const PLAIN: Scenario = {
  deadlineMs: 1_000,
  publishes: [
    { id: 'a', mandatory: true },
    { id: 'a', mandatory: true },
    { id: 'b', mandatory: false },
    { id: 'bad', mandatory: true },
    { id: 'c', mandatory: true, failsOnNack: true },
  ],
}

/** How one send ended, as the broker knows it. */
type Fate = 'stored' | 'returned' | 'nacked' | 'refused' | 'unanswered'

interface Publish {
  readonly id: string
  readonly mandatory: boolean
  readonly message: Encoded
  readonly fates: Fate[]
  readonly abort: AbortController
  /** What was true of it when the publisher settled it; its promise tells a moment later. */
  honest: string | undefined
  end: string | undefined
}

/** A send that the broker has not answered. */
export interface Sent {
  readonly tag: number
  readonly publish: Publish
  returned: boolean
}

type Action = readonly [name: string, run: () => unknown, atOnce?: boolean]

/** See the head of this file. */
export class World {
  readonly publishes: Publish[] = []
  readonly events: string[] = []
  /** Channels that the publisher gave up although it was not closed. */
  renewals = 0
  readonly time: VirtualTime
  readonly #scenario: Scenario
  readonly #publisher: Publisher
  readonly #changes = new Set<() => void>()
  #channel: AmqpChannel | undefined
  /** It was lost, or the broker closed it. */
  #taken = false
  readonly #refusing = new Set<string>()
  #sent: Sent[] = []
  #tag = 0
  #blocked: string | undefined
  #settled = 0
  #closed: Promise<void> | undefined
  #broken: Error | undefined

  constructor(time: VirtualTime, scenario: Scenario) {
    this.time = time
    this.#scenario = scenario
    const emit = (name: string, of: { readonly transactionId: string }) =>
      /confirmed|failed/.test(name) && this.#settles(Number(of.transactionId))
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

  /** What the broker has not answered, on the channel that is open. */
  get sent(): readonly Sent[] {
    return this.#sent
  }

  /** This channel has heard a nack for the queue of that send. */
  refuses({ publish }: Sent): boolean {
    return this.#refusing.has(publish.message.routingKey)
  }

  get closing(): boolean {
    return this.#closed !== undefined
  }

  /** All that may happen now, by name. */
  get actions(): Action[] {
    const actions = this.#actions
    if (!this.#scenario.atOnce) return actions
    const atOnce = actions.filter(([name]) => name !== 'time')
    return [...actions, ...atOnce.map(([name, run]) => [`${name} and at once`, run, true] as const)]
  }

  get #actions(): Action[] {
    const sent = this.#sent
    return [
      ...(this.publishes.length < this.#scenario.publishes.length ? [['publish', () => this.publish()] as const] : []),
      ...sent.flatMap((one, at): Action[] => [
        [`ack ${one.tag}`, () => this.answer([one], 'ack')],
        [`nack ${one.tag}`, () => this.answer([one], 'nack')],
        ...(at > 0 ? [[`ack up to ${one.tag}`, () => this.answer(sent.slice(0, at + 1), 'ack')] as const] : []),
        ...(at > 0 ? [[`nack up to ${one.tag}`, () => this.answer(sent.slice(0, at + 1), 'nack')] as const] : []),
        ...(one.publish.mandatory && !one.returned ? [[`return ${one.tag}`, () => this.#return(one)] as const] : []),
      ]),
      ...(sent.length > 0 ? [['refuse by closing the channel', () => this.#refuse()] as const] : []),
      ...(this.#channel ? [['lose the channel', () => this.#lose()] as const] : []),
      ...this.publishes.flatMap((publish, n): Action[] =>
        publish.end ? [] : [[`abort ${n}`, () => publish.abort.abort(new Error('enough'))]],
      ),
      ...(this.closing ? [] : [['close', () => this.close()] as const]),
      [this.#blocked ? 'unblock' : 'block', () => this.#block()],
      ['time', () => this.time.pass(this.#once(), HOUR_MS)],
    ]
  }

  /** Does one thing. @returns nothing where more is to happen at once, else a promise: everything has come to rest */
  do([name, run, atOnce]: Action): Promise<void> | undefined {
    this.events.push(name)
    const running = run()
    return atOnce ? undefined : this.#rest(running)
  }

  async #rest(running: unknown): Promise<void> {
    await running
    await this.time.settle()
    this.check()
  }

  publish(asked: Asked = this.#scenario.publishes[this.publishes.length]!): void {
    const { id, mandatory, to, bytes, ...rest } = asked
    const message = encoded(asked, this.publishes.length)
    const abort = new AbortController()
    const publish: Publish = { id, mandatory, message, fates: [], abort, honest: undefined, end: undefined }
    this.publishes.push(publish)
    const end = (outcome: string) => {
      publish.end = outcome
      this.#judge(publish)
    }
    const options = { mandatory, deadlineMs: this.#scenario.deadlineMs, signal: abort.signal, ...rest }
    this.#publisher.publish(message, options).then(
      () => end('confirmed'),
      (error: { outcome: string }) => end(error.outcome),
    )
  }

  /** Leaves time for what is open. */
  close(): void {
    this.#closed ??= this.#publisher.close(this.#scenario.deadlineMs)
  }

  unblock(): void {
    if (this.#blocked) this.#block()
  }

  /** Nothing happens any more but time. @throws where a promise was broken */
  async end(): Promise<void> {
    this.unblock()
    this.close()
    let closed = false
    void this.#closed!.then(() => {
      closed = true
    })
    expect(await this.time.pass(() => closed, HOUR_MS), 'the publisher closes').to.equal(true)
    this.check()
    for (const { end, fates } of this.publishes) {
      expect(end, 'every promise settles').not.to.equal(undefined)
      if (fates.includes('stored')) expect(end, 'what became of a stored message').to.be.oneOf(['confirmed', 'unknown'])
    }
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
      if (!this.#taken && !this.closing) this.#gaveUp()
      this.#channel = undefined
      this.#sent = []
    })
    this.#taken = false
    this.#refusing.clear()
    this.#channel = channel
    return channel
  }

  /** The publisher closes its channel of its own accord. */
  #gaveUp(): void {
    this.renewals++
    if (this.#sent.length > 0) this.#break('a channel was given up with publishes on it that were not answered')
  }

  /** The publisher writes to its channel. */
  #written({ messageId }: { readonly messageId?: unknown }, content: Buffer): void {
    if (messageId === 'bad') throw new TypeError('this cannot be encoded')
    const publish = this.publishes.find(({ message }) => message.content === content)!
    if (this.#blocked) this.#break('something was written while the broker blocked')
    if (this.#sent.some((one) => one.publish.id === publish.id)) this.#break('one id is on the wire twice')
    if (publish.honest) this.#break('what has ended was sent again')
    publish.fates.push('unanswered')
    this.#sent.push({ tag: ++this.#tag, publish, returned: false })
  }

  /** The broker answers one send, or all up to the last of these. */
  answer(of: readonly Sent[], answer: 'ack' | 'nack'): void {
    for (const { publish, returned } of of)
      publish.fates[publish.fates.length - 1] = answer === 'nack' ? 'nacked' : returned ? 'returned' : 'stored'
    if (answer === 'nack') for (const { publish } of of) this.#refusing.add(publish.message.routingKey)
    this.#sent = this.#sent.filter((one) => !of.includes(one))
    this.#channel!.hear(answer, { deliveryTag: of.at(-1)!.tag, multiple: of.length > 1 })
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
    this.#taken = true
    this.#channel!.hear('close', { replyCode: 406, replyText: 'PRECONDITION_FAILED', classId: 60, methodId: 40 })
  }

  #lose(): void {
    this.#taken = true
    this.#channel!.lose()
  }

  #block(): void {
    this.#blocked = this.#blocked ? undefined : 'low on memory'
    for (const listener of this.#changes) listener()
  }

  #settles(n: number): void {
    const publish = this.publishes[n]!
    if (publish.honest) this.#break(`publish ${publish.id} was settled twice`)
    publish.honest = honest(publish.fates)
    this.#settled++
  }

  /** Is the outcome all that was known, and no more than was known? */
  #judge({ id, end, honest, fates }: Publish): void {
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

/** All that is known of a publish by its sends. */
function honest(fates: readonly Fate[]): string {
  const has = (fate: Fate) => fates.includes(fate)
  if (fates.at(-1) === 'stored') return 'confirmed'
  if (has('unanswered')) return 'unknown'
  if (has('nacked') || has('refused')) return 'nacked'
  return has('returned') ? 'returned' : 'not-sent'
}

function encoded({ id, to = 'q', bytes = id.length }: Asked, n: number): Encoded {
  const properties = { messageId: id, headers: {} }
  const content = Buffer.from(id.padEnd(bytes))
  return { exchange: '', routingKey: to, content, properties, messageId: id, transactionId: String(n) }
}
