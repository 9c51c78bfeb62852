/**
 * Consumes one queue: keeps a channel with one consumer on it, reads deliveries, and runs at most `concurrency` handlers.
 *
 *     starting ──▶ consuming ──channel lost | cancelled──▶ recovering ──▶ consuming ... ──close──▶ draining ──▶ closed
 *
 * Promises: rebuilds a lost channel or a cancelled consumer by itself and never doubles it; settles each delivery once, on its own
 * channel; close() stops taking, lets running handlers finish, hands the rest back. Emits consumer.state and the message.* events.
 * Does NOT promise order, but per key with `orderBy`, and over several instances only with `singleActiveConsumer`.
 */
import { setMaxListeners } from 'node:events'
import type { Channel } from 'amqplib'
import { ChannelKeeper } from '../connection/channel-keeper.ts'
import type { Connection } from '../connection/connection.ts'
import { within } from '../deadline.ts'
import { ChannelLost, Closed, MessageInvalid, textOf } from '../errors.ts'
import type { Message, RawDelivery } from '../message.ts'
import { tellable } from '../reason.ts'
import type { Declarer } from '../topology/declarer.ts'
import type { Topology } from '../topology/topology.ts'
import { type DecodeOptions, decode, REPLACED } from './decode.ts'
import { Delivery, Epoch } from './delivery.ts'
import type { Guard, Run } from './handler.ts'
import { InFlight, type Job, type Slot } from './in-flight.ts'
import { Processor, type ProcessorParts } from './processor.ts'

/** What a consumer is put together from. */
export interface ConsumerParts {
  readonly connection: Connection
  readonly declarer: Declarer
  readonly topology: Topology
  readonly queue: string
  readonly decode: DecodeOptions
  readonly concurrency: number
  readonly prefetch: number
  readonly drainMs: number
  /** A cancel would let the next consumer start while we still work: close the channel instead. */
  readonly singleActive: boolean
  readonly orderBy: ((message: Message) => string | undefined) | undefined
  readonly guard: Guard | undefined
  readonly processor: Omit<ProcessorParts, 'closing' | 'guard' | 'queue' | 'keepsOrder' | 'decode'>
}

type StateName = 'starting' | 'consuming' | 'recovering' | 'draining' | 'closed'

/** After the drain deadline handlers are aborted; so long they may take to notice, ms. */
const LAST_GRACE_MS = 2_000

/** A running consumer of one queue. Made by `surehop.consume()`. */
export class Consumer {
  readonly queue: string
  readonly #parts: ConsumerParts
  readonly #keeper: ChannelKeeper<Channel>
  readonly #inFlight: InFlight
  readonly #processor: Processor
  readonly #closing = new AbortController()
  #state: StateName = 'starting'
  #epoch: Epoch | undefined
  #consumerTag: string | undefined
  #sequence = 0
  #closed: Promise<void> | undefined

  /** Use `surehop.consume()`. */
  constructor(parts: ConsumerParts) {
    const { connection, queue, guard } = parts
    this.#parts = parts
    this.queue = queue
    setMaxListeners(0, this.#closing.signal)
    this.#inFlight = new InFlight(parts.concurrency)
    this.#processor = new Processor({
      ...parts.processor,
      guard,
      queue,
      closing: this.#closing.signal,
      keepsOrder: parts.singleActive,
      decode: (raw) => decode(raw, parts.decode),
    })
    this.#keeper = new ChannelKeeper<Channel>({
      connection,
      role: `consume ${queue}`,
      open: () => connection.openChannel(),
      setup: (channel) => this.#setup(channel),
      onLost: (_, reason) => this.#lost(reason),
    })
    guard?.onLeasesLost((reason) => this.#processor.abort(reason))
  }

  /** Sentences for an operator; empty when all is well. */
  get problems(): readonly string[] {
    if (this.#state === 'closed') return []
    return [this.#keeper.problem, this.#parts.guard?.problem, this.#processor.problem].flatMap((problem) =>
      problem ? [`queue "${this.queue}": ${problem}`] : [],
    )
  }

  /** True once `close()` has ended. */
  get isClosed(): boolean {
    return this.#state === 'closed'
  }

  /** Handlers that run now. */
  get running(): number {
    return this.#inFlight.running
  }

  /** @throws what declaring, the store's check or the first consume failed with; nothing is left open then */
  async start(): Promise<void> {
    try {
      this.#closing.signal.throwIfAborted()
      this.#parts.declarer.forget(this.queue)
      await this.#parts.declarer.declare(this.#parts.topology)
      await this.#parts.guard?.start()
      await this.#keeper.start()
    } catch (error) {
      await this.close()
      throw error
    }
  }

  /** Stops taking, waits for running handlers at most `drainMs`, hands the rest back, closes. Harmless when repeated. */
  close(): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #close(): Promise<void> {
    this.#become('draining')
    // Nothing starts from here on, and only then do waiting messages go back: none of their key may overtake them.
    this.#inFlight.halt()
    this.#parts.guard?.halt()
    this.#closing.abort(new Closed(`the consumer of "${this.queue}" is closing`))
    await this.#takeNoMore(this.#keeper.channel)
    await this.#drain()
    this.#epoch?.end(new Closed(`the consumer of "${this.queue}" is closed`))
    await this.#keeper.close()
    await this.#parts.guard?.close()
    this.#become('closed')
  }

  async #drain(): Promise<void> {
    const late = () => new Closed(`the consumer of "${this.queue}" was closed before the handler ended`)
    try {
      await within(this.#inFlight.drained(), this.#parts.drainMs, late)
    } catch (error) {
      this.#processor.abort(error as Error)
      await within(this.#inFlight.drained(), LAST_GRACE_MS, late).catch(() => {})
    }
  }

  /** The broker sends no more (failing that, the channel's end says the same), and what has not started goes back. */
  async #takeNoMore(channel: Channel | undefined): Promise<void> {
    const { connection, singleActive } = this.#parts
    const tag = this.#consumerTag
    if (!singleActive && channel && tag !== undefined)
      await connection.rpc('cancel the consumer', () => channel.cancel(tag)).catch(() => {})
    this.#inFlight.dropWaiting()
  }

  /** What fails here may fail because something was deleted under us: all is declared anew then. */
  async #setup(channel: Channel): Promise<void> {
    try {
      await this.#consume(channel)
    } catch (error) {
      this.#parts.declarer.forget()
      throw error
    }
  }

  async #consume(channel: Channel): Promise<void> {
    const { connection, declarer, topology, prefetch } = this.#parts
    const epoch = new Epoch(channel)
    this.#epoch = epoch
    await declarer.declare(topology)
    if (this.#closing.signal.aborted) return
    await connection.rpc('set the prefetch', () => channel.prefetch(prefetch))
    const { consumerTag } = await connection.rpc(`consume from queue "${this.queue}"`, () =>
      channel.consume(this.queue, (raw) => this.#arrived(raw as RawDelivery | null, epoch), { noAck: false }),
    )
    this.#consumerTag = consumerTag
    // Closed while it was asked for: a handler of the channel before may run for long yet.
    if (this.#closing.signal.aborted) void this.#takeNoMore(channel)
    if (this.#state !== 'draining') this.#become('consuming')
  }

  #arrived(raw: RawDelivery | null, epoch: Epoch): void {
    if (raw === null) {
      this.#parts.declarer.forget()
      this.#keeper.rebuild(
        new ChannelLost(
          'the broker cancelled the consumer: its queue was deleted, its node went down, or a delivery was not acked in time',
        ),
      )
      return
    }
    this.#take(new Delivery(raw, epoch))
  }

  #take(delivery: Delivery): void {
    let read: Run | MessageInvalid
    let key: string
    try {
      read = decode(delivery.raw, this.#parts.decode)
      key = this.#keyOf(read)
    } catch (thrown) {
      const error = tellable(thrown)
      read =
        error instanceof MessageInvalid
          ? error
          : new MessageInvalid('orderBy', `orderBy failed: ${textOf(error)}`, { cause: error })
      key = this.#ownKey()
    }
    this.#inFlight.add(new Taken(key, delivery, read, this.#processor))
  }

  /** Copies of one message run one after another, so that the second is dropped without asking about a lease. */
  #keyOf(run: Run): string {
    const { orderBy } = this.#parts
    const { messageId } = run.message
    if (!orderBy) return run.guarded ? messageId : this.#ownKey()
    const key = orderBy(run.message)
    if (key !== undefined && key !== null) return `k${key}`
    return run.guarded ? `i${messageId}` : this.#ownKey()
  }

  /** No id has this character in it (`decode.ts` refuses them). */
  #ownKey(): string {
    return `${REPLACED}${this.#sequence++}`
  }

  #lost(reason: Error): void {
    this.#epoch?.end(reason)
    this.#inFlight.dropWaiting()
    this.#processor.abort(reason)
    if (this.#state === 'consuming') this.#become('recovering', reason)
  }

  #become(to: StateName, error?: Error): void {
    const from = this.#state
    this.#state = to
    if (from !== to)
      this.#parts.connection.options.events.emit('consumer.state', { queue: this.queue, from, to, error })
  }
}

/** One delivery as a job. */
class Taken implements Job {
  readonly key: string
  readonly #delivery: Delivery
  readonly #read: Run | MessageInvalid
  readonly #processor: Processor

  constructor(key: string, delivery: Delivery, read: Run | MessageInvalid, processor: Processor) {
    this.key = key
    this.#delivery = delivery
    this.#read = read
    this.#processor = processor
  }

  run(slot: Slot): Promise<unknown> {
    if (this.#delivery.stale) return Promise.resolve()
    return this.#read instanceof MessageInvalid
      ? this.#processor.refuse(this.#delivery, this.#read)
      : this.#processor.process(this.#delivery, this.#read, slot)
  }

  drop(): void {
    this.#processor.drop(this.#delivery)
  }
}
