// Handles the direct path: the record is in Redis, the effect is a line of the ledger, see `../reconcile/runs.ts`.

import { setTimeout as pause } from 'node:timers/promises'
import { Cluster, Redis } from 'ioredis'
import {
  type Context,
  connect,
  type Handler,
  type Message,
  onEvent,
  RedisIdempotencyStore,
} from '../../../lib/index.ts'
import type { LedgerWriter } from '../ledger/writer.ts'
import { type Fate, monotonicNs } from '../ledger.ts'
import { type Random, randomFrom } from '../random.ts'
import type { RedisPlace } from '../world.ts'
import { type Job, MAX_STARTS, RETRY, type Work } from './job.ts'
import { NotingStore } from './noting-store.ts'

/** Bodies of both paths. */
export interface Body {
  readonly fate: Fate
}

export async function consume(job: Job, ledger: LedgerWriter): Promise<Work> {
  const { amqp, names, leaseMs, concurrency } = job
  const { store, close } = openStore(job.redis, names.prefix)
  const surehop = await connect({ amqp, service: names.service, reconnectCapMs: 1_000 })
  noteEvents(ledger)
  const ordered = job.singleActive.includes('direct')
  const options = {
    idempotency: new NotingStore(store, ledger),
    leaseMs,
    concurrency,
    maxStarts: MAX_STARTS,
    retry: RETRY,
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

/** A handler that takes its time before and after its effect, so that deaths find it everywhere. It heeds its signal as long as it may. */
function effectful({ handlerMs, seed, worker }: Job, ledger: LedgerWriter): Handler<Body> {
  const random = randomFrom(seed * 1_000 + worker)
  return async ({ messageId: id, body }: Message<Body>, { fencingToken, attempt, signal }: Context) => {
    const token = fencingToken!
    ledger.note({ is: 'started', at: monotonicNs(), id, token })
    await takeTime(random, handlerMs / 2, signal)
    failAsFated(body, attempt)
    ledger.write({ is: 'effect', at: monotonicNs(), id, token })
    await takeTime(random, handlerMs / 2)
  }
}

export async function takeTime(random: Random, mostMs: number, signal?: AbortSignal): Promise<void> {
  const ms = random.between(0, Math.floor(mostMs))
  if (ms > 0) await pause(ms, undefined, signal ? { signal } : {})
  signal?.throwIfAborted()
}

export function failAsFated({ fate }: Body, attempt: number): void {
  if (fate === 'dead') throw new Error('fails for good')
  if (fate === 'late' && attempt === 1) throw new Error('fails at first')
}

function openStore(place: RedisPlace, prefix: string): { store: RedisIdempotencyStore; close(): Promise<void> } {
  const client = clientOf(place)
  const store = new RedisIdempotencyStore(client, { prefix })
  const close = async () => {
    await store.close()
    if (typeof client !== 'string') client.disconnect()
  }
  return { store, close }
}

/** A client that only lends its settings: the store makes one like it. */
function clientOf(place: RedisPlace): string | Redis | Cluster {
  switch (place.kind) {
    case 'single':
      return place.url
    case 'sentinel':
      return new Redis({ sentinels: [...place.sentinels], name: place.name, lazyConnect: true })
    case 'cluster':
      return new Cluster([...place.startupNodes], { lazyConnect: true })
  }
}
