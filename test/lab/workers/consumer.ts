// Handles the direct path: the record is in Redis, the effect is a line of the ledger, see `../reconcile/runs.ts`.

import { setTimeout as pause } from 'node:timers/promises'
import { Cluster, Redis } from 'ioredis'
import {
  type Context,
  connect,
  type Handler,
  type Message,
  type Middleware,
  onEvent,
  RedisIdempotencyStore,
} from '../../../lib/index.ts'
import type { LedgerWriter } from '../ledger/writer.ts'
import { type Fate, monotonicNs } from '../ledger.ts'
import { type Random, randomFrom } from '../random.ts'
import type { RedisPlace } from '../world.ts'
import { type Job, MAX_STARTS, RETRY, type Work } from './job.ts'
import { NotingStore } from './noting-store.ts'
import { OwnerlessStore } from './ownerless-store.ts'

/** Bodies of both paths. */
export interface Body {
  readonly fate: Fate
  /** Its number within its key. */
  readonly n: number
}

export async function consume(job: Job, ledger: LedgerWriter): Promise<Work> {
  const { amqp, names, leaseMs, concurrency } = job
  const { store: sound, close } = openStore(job.redis, names.prefix)
  const store = job.sabotage === 'no-owner-check' ? new OwnerlessStore(sound, job) : sound
  const surehop = await connect({ amqp, service: names.service, reconnectCapMs: 1_000 })
  noteEvents(ledger)
  const ordered = job.singleActive.includes('direct')
  const options = {
    idempotency: new NotingStore(store, ledger),
    leaseMs,
    concurrency,
    maxStarts: MAX_STARTS,
    retry: RETRY,
    middleware: [notingAttempts(ledger)],
    ...(ordered && { orderBy: 'key' as const, singleActiveConsumer: true }),
  }
  await surehop.consume<Body>(names.direct, options, effectful(job, ledger))
  return {
    async close() {
      await surehop.close()
      await close()
    },
  }
}

/** Copies that were dropped, and lost channels. */
export function noteEvents(ledger: LedgerWriter): void {
  onEvent('message.duplicate', ({ messageId }) => ledger.note({ is: 'dropped', at: monotonicNs(), id: messageId }))
  onEvent('consumer.state', ({ to }) => {
    if (to === 'recovering') ledger.write({ is: 'unmoored', at: monotonicNs() })
  })
}

/** Puts on record which attempt begins, and that it fails. */
export function notingAttempts(ledger: LedgerWriter): Middleware {
  return (next) => async (message, context) => {
    const { messageId: id } = message
    const { attempt, generation, signal, fencingToken: token = 0 } = context
    ledger.note({ is: 'started', at: monotonicNs(), id, token, attempt, generation })
    try {
      await next(message, context)
    } catch (error) {
      if (error !== signal.reason) ledger.write({ is: 'threw', at: monotonicNs(), id, token })
      throw error
    }
  }
}

/** A handler that takes its time before and after its effect, so that deaths find it everywhere. */
function effectful({ handlerMs, seed, worker }: Job, ledger: LedgerWriter): Handler<Body> {
  const random = randomFrom(seed * 1_000 + worker)
  return async ({ messageId: id, body }: Message<Body>, { fencingToken, attempt, generation, signal }: Context) => {
    const token = fencingToken!
    const { beforeMs, afterMs, heeds } = paceOf(random, handlerMs)
    await spend(beforeMs, heeds ? signal : undefined)
    failAsFated(body, attempt, generation)
    ledger.write({ is: 'effect', at: monotonicNs(), id, token })
    await spend(afterMs)
  }
}

/** How long a handler takes before and after its effect, and whether it heeds its signal meanwhile. */
export interface Pace {
  readonly beforeMs: number
  readonly afterMs: number
  readonly heeds: boolean
}

/** Of handlers, one in so many takes long, so that a fault finds some in their middle; half of those heed no signal. */
const SLOW_ONE_IN = 40
const SLOW_MS = 500

export function paceOf(random: Random, handlerMs: number): Pace {
  const slow = random.between(1, SLOW_ONE_IN) === 1
  const half = () => (slow ? SLOW_MS : random.between(0, Math.floor(handlerMs / 2)))
  return { beforeMs: half(), afterMs: half(), heeds: !slow || random.pick([true, false]) }
}

export async function spend(ms: number, signal?: AbortSignal): Promise<void> {
  if (ms > 0) await pause(ms, undefined, signal ? { signal } : {})
  signal?.throwIfAborted()
}

export function takeTime(random: Random, mostMs: number, signal?: AbortSignal): Promise<void> {
  return spend(random.between(0, Math.floor(mostMs)), signal)
}

export function failAsFated({ fate, n }: Body, attempt: number, generation = 0): void {
  if (fate === 'dead') throw new Error('fails for good')
  if (fate === 'late' && attempt === 1) throw new Error('fails at first')
  if (fate === 'revived' && generation < replaysOf(n)) throw new Error('fails until its letter is sent again')
}

/** How often a letter must be sent again before it can be handled. */
function replaysOf(n: number): number {
  return n % 4 === 0 ? 2 : 1
}

export function openStore(place: RedisPlace, prefix: string): { store: RedisIdempotencyStore; close(): Promise<void> } {
  const client = clientOf(place)
  const store = new RedisIdempotencyStore(client, { prefix })
  const close = async () => {
    await store.close()
    if (typeof client !== 'string') client.disconnect()
  }
  return { store, close }
}

/** A client that only lends its settings: the store makes one like it. */
export function clientOf(place: RedisPlace): string | Redis | Cluster {
  switch (place.kind) {
    case 'single':
      return place.url
    case 'sentinel':
      return new Redis({ sentinels: [...place.sentinels], name: place.name, lazyConnect: true })
    case 'cluster':
      return new Cluster([...place.startupNodes], { lazyConnect: true })
  }
}
