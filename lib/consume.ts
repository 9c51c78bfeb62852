/** Puts a consumer together: topology, guard, policy, outlet. The front door's `surehop.consume()`. */

import type { Connection } from './connection/connection.ts'
import { Consumer, type ConsumerParts } from './consumer/consumer.ts'
import type { BodyFormat, IdentityPolicy } from './consumer/decode.ts'
import { compose, type Handler, type Middleware, type Outlet } from './consumer/handler.ts'
import { deadLetter } from './dead-letter/letter.ts'
import { InvalidOption, PublishFailed, ResourceMissing } from './errors.ts'
import { refuseWithoutStore, storeCheckOf } from './idempotency/bound-handler.ts'
import { type GuardParts, StoreGuard } from './idempotency/guard.ts'
import type { IdempotencyStore, Scope } from './idempotency/idempotency.ts'
import type { Message } from './message.ts'
import {
  callable,
  checkOptions,
  either,
  flag,
  having,
  integer,
  listOf,
  needed,
  number,
  object,
  oneOf,
  text,
} from './options.ts'
import type { Encoded } from './producer/encode.ts'
import type { Producer } from './producer/producer.ts'
import type { Publisher } from './producer/publisher.ts'
import { type RetryOptions, type RetryPolicy, retryPolicy } from './retry/policy.ts'
import { retryCopy } from './retry/scheduler.ts'
import { sendWithStory } from './retry/short-story.ts'
import { type Schema, validate } from './schema.ts'
import type { Declarer } from './topology/declarer.ts'
import { arrivalAtQueue, delayTopology, levelFor } from './topology/delay.ts'
import { ARCHIVE_TTL_MS, workQueueName, workQueueTopology } from './topology/queues.ts'
import { EMPTY, type Exchange, merge, type Topology } from './topology/topology.ts'

/** One binding of the consumed queue. */
export interface Bind {
  /** Declared as a durable exchange if it does not exist. */
  readonly exchange: string
  /** Message type or topic pattern, e.g. `order.*`: the binding's routing key. Default `#` (everything, on a topic exchange). */
  readonly type?: string
  /** Default `topic`. */
  readonly exchangeType?: Exchange['type']
}

/** Options of `surehop.consume()`. Durations in ms. */
export interface ConsumeOptions<Body = unknown> {
  /** Bindings to declare. Default none: producers `send()` to the queue. */
  readonly bind?: readonly Bind[]
  /** Most handlers at a time. Default 10. */
  readonly concurrency?: number
  /**
   * Most unacked deliveries held. Default 2 * concurrency. A prefetched message waits, unacked, for those before it: with handlers
   * that take minutes keep it near `concurrency`, or the broker takes the message back after its consumer timeout (30 minutes).
   */
  readonly prefetch?: number
  /** Where finished messages are remembered. Without it duplicates are handled again. For exactly-once effects: `PostgresIdempotencyStore`, with `transactional()` around the handler. */
  readonly idempotency?: IdempotencyStore
  /** How long a finished message is remembered. Default 14 days; never less than the retry span plus `replayWindowMs`, nor than `handlerTimeoutMs` plus `leaseMs`. */
  readonly retentionMs?: number
  /** How long after its last failure a dead letter may be replayed and still be recognised. Default 14 days less the retry span, at least 1 day. */
  readonly replayWindowMs?: number
  /** How long this instance may be silent before others take its messages. Default 15,000; renewed three times as often. */
  readonly leaseMs?: number
  /** Starts without an end (the process died) before a message is parked. Default 3. */
  readonly maxStarts?: number
  /** Dead-letter a message that comes with a known id and another body. Default true. */
  readonly compareBodies?: boolean
  readonly retry?: RetryOptions
  /** `key`: by the publisher's key. Or your own function. Messages of one key run one after another, repeats included. */
  readonly orderBy?: 'key' | ((message: Message) => string | undefined)
  /**
   * Longest run of a handler, at most 25 minutes: a delivery must be settled within the broker's consumer timeout (30 minutes by
   * default), its wait behind others included. Default 300,000 (5 minutes). A handler that ignores its signal is left behind a second later.
   */
  readonly handlerTimeoutMs?: number
  /** For messages with neither message id nor transaction id. Default `reject`: to the dead letters, with a reason. */
  readonly identity?: IdentityPolicy
  /** `auto` (default): JSON when the content type says so or is absent, else a Buffer. */
  readonly body?: BodyFormat
  /** A Standard Schema for the body; its output is what the handler gets. */
  readonly schema?: Schema<Body>
  /** Around every attempt; the first is the outermost. */
  readonly middleware?: readonly Middleware[]
  /** Only one instance works at a time, the others stand by: keeps `orderBy` over instances. Fixed when the queue is first declared. Default false. */
  readonly singleActiveConsumer?: boolean
  /**
   * Most messages in the queue; beyond it publishes are nacked. Fixed when the queue is first declared. Default: no limit. While the
   * queue is full, more than 32 messages that come back to it from a delay hold up the delays of all queues of the virtual host.
   */
  readonly maxLength?: number
  /** Most bytes in the queue; likewise. Fixed when the queue is first declared. Default: no limit. */
  readonly maxLengthBytes?: number
  /** How long `close()` waits for running handlers. Default: that of `connect()`. */
  readonly drainMs?: number
}

const DAY_MS = 24 * 3_600_000
const MAX_MS = 2_147_483_647
const DEFAULTS = {
  concurrency: 10,
  leaseMs: 15_000,
  maxStarts: 3,
  handlerTimeoutMs: 300_000,
  retentionMs: ARCHIVE_TTL_MS,
} as const
/** Unacked messages that wait in place must be settled before the broker's consumer timeout of 30 minutes. */
const LONGEST_HOLD_MS = 25 * 60_000

const RULES = {
  bind: listOf(object),
  concurrency: integer(1, 10_000),
  prefetch: integer(1, 65_535),
  idempotency: having(
    'an idempotency store such as RedisIdempotencyStore',
    'claim',
    'settle',
    'renew',
    'look',
    'check',
    'close',
  ),
  retentionMs: number(1_000, 365 * DAY_MS),
  replayWindowMs: number(0, 365 * DAY_MS),
  leaseMs: number(300, 3_600_000),
  maxStarts: integer(1, 1_000),
  compareBodies: flag,
  retry: object,
  orderBy: either(oneOf('key'), callable),
  handlerTimeoutMs: number(1, LONGEST_HOLD_MS),
  identity: oneOf('reject', 'digest', 'unguarded'),
  body: oneOf('auto', 'json', 'bytes'),
  schema: (value: unknown) =>
    callable((value as Partial<Schema> | null)?.['~standard']?.validate)
      ? 'a Standard Schema (zod, valibot, arktype...)'
      : undefined,
  middleware: listOf(callable),
  singleActiveConsumer: flag,
  maxLength: integer(1),
  maxLengthBytes: integer(1),
  drainMs: number(0, MAX_MS),
}

const BIND_RULES = {
  exchange: needed(text()),
  type: text(),
  exchangeType: oneOf('direct', 'topic', 'fanout', 'headers'),
}

/** What the front door lends to a consumer. */
export interface Surroundings {
  readonly connection: Connection
  readonly declarer: Declarer
  readonly publisher: Publisher
  readonly producer: Producer
  readonly service: string
  readonly host: string
  readonly drainMs: number
}

/** @throws InvalidOption */
export function createConsumer<Body>(
  queue: string,
  options: ConsumeOptions<Body>,
  handler: Handler<Body>,
  around: Surroundings,
): Consumer {
  const where = `consume("${queue}")`
  checkOptions('consume()', { queue, handler }, { queue: needed(workQueueName), handler: needed(callable) })
  checkOptions(where, options, RULES)
  for (const bind of options.bind ?? []) checkOptions(`${where}: bind`, bind, BIND_RULES)
  if (!options.idempotency) refuseWithoutStore(where, handler)
  const policy = retryPolicy(options.retry)
  checkHold(where, options as ConsumeOptions, policy)
  const parts = partsOf(where, queue, options as ConsumeOptions, handler as Handler, policy, around)
  const consumer: Consumer = new Consumer({
    ...parts,
    guard: guardOf(where, queue, options as ConsumeOptions, policy, around, {
      running: () => consumer.running,
      storeCheck: storeCheckOf(handler),
    }),
  })
  return consumer
}

function partsOf(
  where: string,
  queue: string,
  options: ConsumeOptions,
  handler: Handler,
  policy: RetryPolicy,
  around: Surroundings,
): Omit<ConsumerParts, 'guard'> {
  const { concurrency = DEFAULTS.concurrency, handlerTimeoutMs = DEFAULTS.handlerTimeoutMs, middleware = [] } = options
  const prefetch = options.prefetch ?? 2 * concurrency
  if (prefetch < concurrency)
    throw new InvalidOption(
      `${where}: expected prefetch (${prefetch}) to be at least concurrency (${concurrency}): handlers would stand idle`,
    )
  return {
    connection: around.connection,
    declarer: around.declarer,
    topology: topologyOf(queue, options, policy),
    queue,
    decode: {
      queue,
      identity: options.identity ?? 'reject',
      body: options.body ?? 'auto',
      digests: options.idempotency !== undefined && options.compareBodies !== false,
    },
    concurrency,
    prefetch,
    drainMs: options.drainMs ?? around.drainMs,
    singleActive: options.singleActiveConsumer ?? false,
    orderBy: options.orderBy === 'key' ? (message) => message.key : options.orderBy,
    processor: {
      handler: compose(middleware, options.schema ? validated(options.schema, handler) : handler),
      handlerTimeoutMs,
      inPlace: options.orderBy !== undefined,
      policy,
      outlet: outletOf(queue, around),
      producer: around.producer,
      events: around.connection.options.events,
    },
  }
}

function validated(schema: Schema, handler: Handler): Handler {
  return async (message, context) => handler({ ...message, body: await validate(schema, message.body) }, context)
}

function topologyOf(queue: string, options: ConsumeOptions, policy: RetryPolicy): Topology {
  const binds = options.bind ?? []
  return merge(
    {
      exchanges: binds.map(({ exchange, exchangeType = 'topic' }) => ({ name: exchange, type: exchangeType })),
      queues: [],
      bindings: [
        arrivalAtQueue(queue),
        ...binds.map(({ exchange, type = '#' }) => ({ source: exchange, queue, routingKey: type })),
      ],
    },
    workQueueTopology(queue, options),
    delayTopology(levelFor(Math.max(policy.longestDelayMs, options.leaseMs ?? DEFAULTS.leaseMs))),
  )
}

function outletOf(queue: string, { declarer, publisher, service, host }: Surroundings): Outlet {
  const publish = (copy: Encoded, hasShorter: boolean) =>
    publisher.publish(copy, { mandatory: true, deadlineMs: 30_000, hasShorter })
  const restored = async <T>(publish: () => Promise<T>): Promise<void> => {
    try {
      await publish()
    } catch (error) {
      if (isGone(error)) declarer.forget()
      throw error
    }
  }
  return {
    retry: (raw, run, attempt, delayMs, failure) =>
      restored(async () => {
        const route = await declarer.delayRoute(delayMs, '', queue)
        await sendWithStory(retryCopy(raw, run, attempt, failure, route), publish)
      }),
    bury: (raw, run, reason, error) =>
      restored(async () => {
        await declarer.declare({ ...EMPTY, queues: workQueueTopology(queue).queues.slice(1) })
        await sendWithStory(deadLetter(raw, run, reason, error, { queue, service, host }), publish)
      }),
  }
}

/** A queue or exchange on the way was deleted under us: declare it anew before the next try. */
function isGone(error: unknown): boolean {
  if (error instanceof ResourceMissing) return true
  return error instanceof PublishFailed && (error.outcome === 'returned' || error.cause instanceof ResourceMissing)
}

function guardOf(
  where: string,
  queue: string,
  options: ConsumeOptions,
  policy: RetryPolicy,
  around: Surroundings,
  consumer: Pick<GuardParts, 'running' | 'storeCheck'>,
): StoreGuard | undefined {
  const { idempotency: store, leaseMs = DEFAULTS.leaseMs, maxStarts = DEFAULTS.maxStarts } = options
  if (!store) return undefined
  const scope: Scope = { name: queue, retentionMs: retentionOf(where, options, policy), leaseMs, maxStarts }
  return new StoreGuard({ store, scope, events: around.connection.options.events, ...consumer })
}

/** A message must be remembered until its last possible copy has come: the last retry, and the last replay. And while it runs: a lease forgotten is nobody's. */
function retentionOf(where: string, options: ConsumeOptions, policy: RetryPolicy): number {
  const { handlerTimeoutMs = DEFAULTS.handlerTimeoutMs, leaseMs = DEFAULTS.leaseMs } = options
  const replayWindowMs = options.replayWindowMs ?? Math.max(DAY_MS, DEFAULTS.retentionMs - policy.spanMs)
  const minimum = policy.spanMs + replayWindowMs
  const retentionMs = options.retentionMs ?? Math.max(DEFAULTS.retentionMs, minimum)
  if (retentionMs < minimum)
    throw new InvalidOption(
      `${where}: expected retentionMs (${retentionMs}) to cover the retry span (retry.maxAgeMs ${policy.spanMs}) plus replayWindowMs (${replayWindowMs}), ` +
        `${minimum} in all: a message forgotten earlier would be handled twice. Raise retentionMs, or lower retry.maxAgeMs or replayWindowMs`,
    )
  if (retentionMs < handlerTimeoutMs + leaseMs)
    throw new InvalidOption(
      `${where}: expected retentionMs (${retentionMs}) to cover handlerTimeoutMs (${handlerTimeoutMs}) plus leaseMs (${leaseMs}), ` +
        `${handlerTimeoutMs + leaseMs} in all: a message forgotten while it runs would be run a second time beside it. Raise retentionMs, or lower handlerTimeoutMs`,
    )
  return retentionMs
}

/** With `orderBy`, repeats wait in place, unacked. */
function checkHold(where: string, options: ConsumeOptions, policy: RetryPolicy): void {
  if (!options.orderBy || policy.totalDelayMs <= LONGEST_HOLD_MS) return
  throw new InvalidOption(
    `${where}: with orderBy a message waits for its repeats unacked, and the broker ends that after 30 minutes: expected the waits of retry to sum up to at most ${LONGEST_HOLD_MS} ms, got ${policy.totalDelayMs}. Use fewer attempts or a lower capMs`,
  )
}
