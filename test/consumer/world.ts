// A whole world without a broker: a queue, its delay and its dead letters, a store, and consumers of the real code on them, which
// can crash, lose their channels and their replies, and find the store gone, at any moment. It watches what no participant can see.

import { EventEmitter } from 'node:events'
import { expect } from 'chai'
import { fixed } from '../../lib/backoff.ts'
import type { Connection } from '../../lib/connection/connection.ts'
import { Consumer } from '../../lib/consumer/consumer.ts'
import type { Handler, Outlet } from '../../lib/consumer/handler.ts'
import { deadLetter } from '../../lib/dead-letter/letter.ts'
import { StoreUnavailable } from '../../lib/errors.ts'
import { StoreGuard } from '../../lib/idempotency/guard.ts'
import type { IdempotencyStore, RecordView } from '../../lib/idempotency/idempotency.ts'
import { MemoryIdempotencyStore } from '../../lib/idempotency/memory.ts'
import { HEADER, type RawDelivery, type WireMessage } from '../../lib/message.ts'
import { Events } from '../../lib/observability/events.ts'
import type { Encoded } from '../../lib/producer/encode.ts'
import { retryPolicy } from '../../lib/retry/policy.ts'
import { retryCopy } from '../../lib/retry/scheduler.ts'
import type { Declarer } from '../../lib/topology/declarer.ts'
import { delayRoute } from '../../lib/topology/delay.ts'
import { EMPTY } from '../../lib/topology/topology.ts'
import { latch } from '../support/eventually.ts'
import { FakeProducer } from './fakes.ts'
import type { VirtualTime } from './virtual-time.ts'

const QUEUE = 'work'
const ORIGIN = { queue: QUEUE, service: 'model', host: 'here' }
const SCOPE = { name: QUEUE, retentionMs: 10 ** 9, leaseMs: 3_000, maxStarts: 1_000 }
const NEVER = new Promise<never>(() => {})

/** What can go wrong with one instance. */
export type Fault =
  | 'crash'
  | 'lose channel'
  | 'close'
  | 'lose reply of store'
  | 'store refuses'
  | 'lose confirm'
  | 'nack'
  | 'defect of ours'

export interface WorldOptions {
  readonly instances: number
  readonly concurrency: number
  /** Default: twice as many. */
  readonly prefetch?: number
  readonly attempts: number
  readonly inPlace: boolean
  /** How a run of this id ends, by its number of earlier failures; takes `ms`. */
  readonly behaviour: (id: string) => { readonly failures: number; readonly ms: number }
}

interface Copy {
  readonly id: string
  readonly message: WireMessage
}

/** One broker, one store. */
export class World {
  readonly time: VirtualTime
  readonly options: WorldOptions
  readonly memory: MemoryIdempotencyStore
  readonly queue: Copy[] = []
  readonly delayed = new Set<Copy>()
  readonly dead: Copy[] = []
  readonly completed = new Set<string>()
  readonly runs = new Map<string, number>()
  readonly failedRuns = new Map<string, number>()
  readonly effects = new Map<string, number>()
  readonly failures: Error[] = []
  /** Which instances run an id now. */
  readonly inWork = new Map<string, Set<Instance>>()
  readonly instances: Instance[]
  storeDown = false
  #turn = 0

  constructor(time: VirtualTime, options: WorldOptions) {
    this.time = time
    this.options = options
    this.memory = new MemoryIdempotencyStore()
    this.instances = Array.from({ length: options.instances }, () => new Instance(this))
  }

  publish(id: string): void {
    const headers = { [HEADER.transactionId]: id }
    const content = Buffer.from(JSON.stringify({ id }))
    this.arrive({ id, message: { exchange: '', routingKey: QUEUE, content, properties: { messageId: id, headers } } })
  }

  arrive(copy: Copy): void {
    this.queue.push(copy)
    this.dispatch()
  }

  delay({ messageId, ...message }: Encoded, delayMs: number): void {
    const copy = { id: messageId, message }
    this.delayed.add(copy)
    void this.time.sleep(delayMs).then(() => {
      this.delayed.delete(copy)
      this.arrive(copy)
    })
  }

  bury({ messageId, ...message }: Encoded): void {
    this.dead.push({ id: messageId, message })
  }

  /** Hands over what may be handed over, in turn. */
  dispatch(): void {
    for (;;) {
      const channels = this.instances.flatMap(({ channel }) => (channel?.takesMore ? [channel] : []))
      if (this.queue.length === 0 || channels.length === 0) return
      channels[this.#turn++ % channels.length]!.deliver(this.queue.shift()!)
    }
  }

  /** Notes a broken promise. */
  fail(what: string): Error {
    const error = new Error(what)
    this.failures.push(error)
    return error
  }

  /** A copy is about to be gone for good: that must be safe. */
  acked(copy: Copy): void {
    if (this.completed.has(copy.id) || this.copiesOf(copy.id) > 0) return
    this.fail(`${copy.id} was acked, and is neither completed nor anywhere else: lost`)
  }

  copiesOf(id: string): number {
    const held = this.instances.flatMap(({ channel }) => [...(channel?.unacked.values() ?? [])])
    return [...this.queue, ...this.delayed, ...this.dead, ...held].filter((copy) => copy.id === id).length
  }

  /** What the store has on record of it. */
  async stateOf(id: string): Promise<RecordView['state']> {
    const [view] = await this.memory.look(SCOPE, [id])
    return view!.state
  }

  get quiet(): boolean {
    const held = this.instances.some(({ channel }) => (channel?.unacked.size ?? 0) > 0)
    return this.queue.length === 0 && this.delayed.size === 0 && !held
  }
}

/** A channel of the fake broker. */
class Channel extends EventEmitter {
  readonly unacked = new Map<number, Copy>()
  /** As they were handed over: the same tag on another channel is another delivery. */
  readonly #handed = new Map<number, RawDelivery>()
  readonly #world: World
  #callback: ((raw: RawDelivery | null) => void) | undefined
  #prefetch = 1
  #tag = 0
  open = true

  constructor(world: World) {
    super()
    this.#world = world
  }

  get takesMore(): boolean {
    return this.open && this.#callback !== undefined && this.unacked.size < this.#prefetch
  }

  deliver(copy: Copy): void {
    const deliveryTag = ++this.#tag
    this.unacked.set(deliveryTag, copy)
    const { exchange, routingKey, content, properties } = copy.message
    const raw = { content, properties, fields: { deliveryTag, redelivered: false, exchange, routingKey } }
    this.#handed.set(deliveryTag, raw)
    queueMicrotask(() => this.open && this.#callback?.(raw))
  }

  async prefetch(count: number): Promise<void> {
    this.#prefetch = count
  }

  async consume(_: string, callback: (raw: RawDelivery | null) => void): Promise<{ consumerTag: string }> {
    this.#callback = callback
    queueMicrotask(() => this.#world.dispatch())
    return { consumerTag: 'c' }
  }

  async cancel(): Promise<void> {
    this.#callback = undefined
  }

  /** `allUpTo`: and whatever came before it and is not settled, done or not. */
  ack(raw: RawDelivery, allUpTo = false): void {
    for (const copy of this.#settle(raw, allUpTo)) this.#world.acked(copy)
    this.#world.dispatch()
  }

  nack(raw: RawDelivery, _: boolean, requeue: boolean): void {
    const copy = this.#settle(raw, false)[0]!
    if (requeue) this.#world.queue.unshift(copy)
    else this.#world.dead.push(copy)
    queueMicrotask(() => this.#world.dispatch())
  }

  async close(): Promise<void> {
    this.die()
  }

  die(): void {
    if (!this.open) return
    this.open = false
    this.#world.queue.unshift(...this.unacked.values())
    this.unacked.clear()
    this.emit('close')
    this.#world.dispatch()
  }

  #settle(raw: RawDelivery, allUpTo: boolean): Copy[] {
    if (!this.open) throw Object.assign(new Error('Channel closed'), { name: 'IllegalOperationError' })
    const { deliveryTag } = raw.fields
    if (this.#handed.get(deliveryTag) !== raw)
      throw this.#world.fail(`delivery ${deliveryTag} was settled on a channel that did not deliver it`)
    if (!this.unacked.has(deliveryTag)) throw this.#world.fail(`delivery ${deliveryTag} was settled twice`)
    const tags = [...this.unacked.keys()].filter((tag) => tag === deliveryTag || (allUpTo && tag < deliveryTag))
    return tags.map((tag) => {
      const copy = this.unacked.get(tag)!
      this.unacked.delete(tag)
      return copy
    })
  }
}

/** One process: a consumer of the real code, incarnation after incarnation. */
export class Instance {
  readonly #world: World
  channel: Channel | undefined
  #consumer: Consumer | undefined
  /** Of the present incarnation; what an earlier one does has no effect. */
  #life = 0
  #died = latch()
  readonly #next: Partial<Record<Fault, number>> = {}

  constructor(world: World) {
    this.#world = world
  }

  /** A start that meets a running incarnation (two crashes, 100 ms apart) ends it as a crash does. */
  async start(): Promise<void> {
    const life = this.#end()
    this.#died = latch()
    this.#consumer = this.#build(() => this.#life === life)
    await Promise.race([this.#consumer.start(), this.#died.promise])
  }

  async suffer(fault: Fault): Promise<void> {
    if (fault === 'crash') await this.#crash()
    else if (fault === 'lose channel') this.channel?.die()
    else if (fault === 'close') await this.#restart()
    else this.#next[fault] = (this.#next[fault] ?? 0) + 1
  }

  async #crash(): Promise<void> {
    this.#end()
    await this.#world.time.sleep(100)
    await this.start()
  }

  /** Whatever ran is no more. @returns the number of the next life */
  #end(): number {
    this.#life++
    this.#died.resolve()
    for (const holders of this.#world.inWork.values()) holders.delete(this)
    this.channel?.die()
    return this.#life
  }

  async #restart(): Promise<void> {
    const life = this.#life
    await Promise.race([this.#consumer?.close(), this.#died.promise])
    if (life === this.#life) await this.start()
  }

  #has(fault: Fault): boolean {
    const left = this.#next[fault] ?? 0
    this.#next[fault] = Math.max(0, left - 1)
    return left > 0
  }

  #build(alive: () => boolean): Consumer {
    const events = new Events('model')
    const { concurrency, prefetch = 2 * concurrency, attempts, inPlace } = this.#world.options
    const consumer: Consumer = new Consumer({
      connection: this.#connection(events, alive),
      declarer: { declare: async () => {}, forget: () => {} } as unknown as Declarer,
      topology: EMPTY,
      queue: QUEUE,
      decode: { queue: QUEUE, identity: 'reject', body: 'json', digests: true },
      concurrency,
      prefetch,
      drainMs: 1_000,
      singleActive: false,
      orderBy: inPlace ? (message) => message.messageId : undefined,
      guard: new StoreGuard({ store: this.#store(alive), scope: SCOPE, events, running: () => consumer.running }),
      processor: {
        handler: this.#handler(alive),
        handlerTimeoutMs: 60_000,
        inPlace,
        policy: retryPolicy({ attempts, backoff: fixed({ delayMs: 200 }) }),
        outlet: this.#outlet(alive),
        producer: new FakeProducer().asProducer,
        events,
      },
    })
    return consumer
  }

  #connection(events: Events, alive: () => boolean): Connection {
    const openChannel = async () => {
      if (!alive()) return NEVER
      this.channel = new Channel(this.#world)
      return this.channel
    }
    const ready = async (_: number, signal?: AbortSignal) => signal?.throwIfAborted()
    const rpc = (_: string, operation: () => Promise<unknown>) => operation()
    return { options: { events, rpcTimeoutMs: 10_000 }, ready, openChannel, rpc } as unknown as Connection
  }

  /** The store as this incarnation reaches it: every call takes time on both ways, and either way can fail. */
  #store(alive: () => boolean): IdempotencyStore {
    const { memory, time, completed } = this.#world
    const call = async <T>(run: () => Promise<T>): Promise<T> => {
      await time.sleep(2)
      if (!alive()) return NEVER
      if (this.#world.storeDown || this.#has('store refuses')) throw new StoreUnavailable('down')
      const answer = await run()
      await time.sleep(2)
      if (!alive()) return NEVER
      if (this.#has('lose reply of store')) throw new StoreUnavailable('the reply was lost')
      return answer
    }
    return {
      claim: (scope, owner, claims) => call(() => memory.claim(scope, owner, claims)),
      renew: (scope, owner, options) => call(() => memory.renew(scope, owner, options)),
      look: (scope, ids) => memory.look(scope, ids),
      check: async () => [],
      close: async () => {},
      settle: (scope, owner, settlements) =>
        call(async () => {
          const results = await memory.settle(scope, owner, settlements)
          for (const [i, { id, ending }] of settlements.entries())
            if (ending.state === 'completed' && results[i] === 'settled') completed.add(id)
          return results
        }),
    }
  }

  #outlet(alive: () => boolean): Outlet {
    const send = async (apply: () => void): Promise<void> => {
      await this.#world.time.sleep(2)
      if (!alive()) return NEVER
      if (this.#has('nack')) throw new Error('nacked')
      apply()
      await this.#world.time.sleep(2)
      if (!alive()) return NEVER
      if (this.#has('lose confirm')) throw new Error('the confirm was lost')
    }
    /** Before anything is sent, and not as a rejection. */
    const prepare = () => {
      if (this.#has('defect of ours'))
        throw this.#next['defect of ours'] ? new TypeError('oops') : new RangeError('oops')
    }
    return {
      retry: (raw, run, attempt, delayMs, failure) => {
        prepare()
        const copy = () => retryCopy(raw, run, attempt, failure, delayRoute(delayMs, '', QUEUE))
        return send(() => this.#world.delay(copy(), delayMs))
      },
      bury: (raw, run, reason, error) => {
        prepare()
        return send(() => this.#world.bury(deadLetter(raw, run, reason, error, ORIGIN)))
      },
    }
  }

  #handler(alive: () => boolean): Handler {
    const { runs, failedRuns, effects, completed, inWork, options, time } = this.#world
    let running = 0
    return async ({ messageId: id }, { signal }) => {
      if (++running > options.concurrency) this.#world.fail(`${running} handlers run, more than concurrency allows`)
      if (completed.has(id)) this.#world.fail(`${id} was run although it is completed`)
      const holders = inWork.get(id) ?? new Set()
      inWork.set(id, holders.add(this))
      if (holders.size > 1 && !this.#world.storeDown) this.#world.fail(`${id} was run by two live instances at once`)
      runs.set(id, (runs.get(id) ?? 0) + 1)
      const { failures: failing, ms } = options.behaviour(id)
      await time.sleep(ms)
      if (!alive()) return NEVER
      running--
      holders.delete(this)
      if (signal.aborted && ms % 2 === 1) throw signal.reason
      const failed = failedRuns.get(id) ?? 0
      if (failed < failing) {
        failedRuns.set(id, failed + 1)
        throw new Error('boom')
      }
      effects.set(id, (effects.get(id) ?? 0) + 1)
    }
  }
}

/** Each instance is up. */
export async function startAll(world: World): Promise<void> {
  await Promise.all(world.instances.map((instance) => instance.start()))
  expect(world.failures).to.deep.equal([])
}
