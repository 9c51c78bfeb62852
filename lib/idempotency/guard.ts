/**
 * The consumer's side of idempotency: asks the store for the right to run, keeps the leases alive, and records the ends.
 *
 * Promises: claims and endings made together go to the store together; one renewal per instance and interval; while the store is
 * unreachable nothing is admitted and nothing is forgotten (fail closed): requests wait, and go on by themselves; when our leases may
 * have been taken over (a late renewal, a frozen process, an outage longer than the lease) every running handler's signal fires.
 * After a silence in which leases may have run out, nothing is claimed until the others had the time to renew (`silence.ts`). A claim
 * that was on its way when the silence began cannot be called back: the store takes nobody over for it, whose owner it has not
 * heard of for as long (`record.ts`). That this owner be known, it renews before its first claim; that it not be revived by a renewal
 * that lies before the claim, nothing is claimed while a renewal is unanswered.
 * Emits store.unavailable, store.available, store.warning, lease.lapsed.
 */
import { Batcher } from '../batcher.ts'
import type { Admission, Guard, Run, RunEnding } from '../consumer/handler.ts'
import { type Deferred, deferred, pause } from '../deadline.ts'
import { LeaseLost, MessageConflict, textOf } from '../errors.ts'
import { newMessageId } from '../message.ts'
import type { Events } from '../observability/events.ts'
import type { StoreCheck } from './bound-handler.ts'
import type { Claim, ClaimResult, IdempotencyStore, Scope, Settlement, SettleResult } from './idempotency.ts'
import { StoreSilence } from './silence.ts'

/** What a guard is put together from. */
export interface GuardParts {
  readonly store: IdempotencyStore
  readonly scope: Scope
  readonly events: Events
  /** Handlers that run now, for the event. */
  readonly running: () => number
  /** Where the handler works with one store only. */
  readonly storeCheck?: StoreCheck | undefined
}

const MAX_BATCH = 256
/** Renewals per lease. */
const RENEWALS = 3
/** How often an unreachable store is asked whether it is back, ms. */
const PROBE_MS = 500

const ADMITTED: Admission = { admit: 'run' }

interface Outage {
  readonly since: number
  readonly over: Deferred<void>
}

/** The guard of one consumer, over any store. */
export class StoreGuard implements Guard {
  readonly #parts: GuardParts
  readonly #owner = newMessageId()
  readonly #claims: Batcher<Claim, ClaimResult>
  readonly #ends: Batcher<Settlement, SettleResult>
  readonly #stop = new AbortController()
  #sequence = 0
  #onLost: (reason: Error) => void = () => {}
  #renewing: Promise<void> | undefined
  /**
   * When the last renewal that succeeded was sent (monotonic ms): all our leases are surely ours until a lease later. A claim keeps us
   * alive too, but it may be only where its ids are kept.
   */
  #renewedAt = performance.now()
  /** Rings a lease after that: a renewal that hangs must not keep it from being told. */
  #alarm: NodeJS.Timeout | undefined
  /** The `#renewedAt` before the last silence that was told; each is told once. */
  #toldSilence: number | undefined
  /** A silence was told since the last renewal: the store's own word of it is no news. */
  #told = false
  #outage: Outage | undefined
  /** While one is unanswered. */
  #renewal: Promise<unknown> | undefined
  readonly #silence: StoreSilence
  #nap = new AbortController()
  #lastError: Error | undefined

  constructor(parts: GuardParts) {
    this.#parts = parts
    const { store, scope } = parts
    this.#silence = new StoreSilence(scope.leaseMs)
    const onFailure = (error: Error) => this.#unavailable(error)
    const watch = { maxBatch: MAX_BATCH, onFailure }
    this.#claims = new Batcher({
      ...watch,
      ready: (givenUp) => this.#claimable(givenUp),
      send: (claims, givenUp) => this.#timely(() => store.claim(scope, this.#owner, claims), givenUp),
    })
    this.#ends = new Batcher({ ...watch, send: (ends) => store.settle(scope, this.#owner, ends) })
  }

  get problem(): string | undefined {
    return this.#outage === undefined
      ? undefined
      : `the idempotency store is unreachable, nothing is run: ${textOf(this.#lastError)}`
  }

  onLeasesLost(listener: (reason: Error) => void): void {
    this.#onLost = listener
  }

  /** @throws StoreUnavailable when the store cannot be reached at start; InvalidOption when the handler needs another store */
  async start(): Promise<void> {
    const { store, scope, events } = this.#parts
    for (const warning of await store.check()) events.emit('store.warning', { queue: scope.name, warning })
    this.#silence.begins()
    this.#renewalSent(performance.now())
    this.#renewing = this.#renew()
    await this.#checkHandler()
  }

  /** Leaves: leases that are still ours end at once. */
  async close(): Promise<void> {
    if (this.#stop.signal.aborted) return
    this.#stop.abort()
    this.#nap.abort()
    clearTimeout(this.#alarm)
    this.#claims.giveUp()
    this.#ends.giveUp()
    await this.#renewing
    if (this.#renewing) await this.#leave().catch(() => {})
  }

  /** Async, since a store of one's own may throw before it has a promise. */
  async #leave(): Promise<void> {
    await this.#parts.store.renew(this.#parts.scope, this.#owner, { leave: true })
  }

  halt(): void {
    this.#claims.giveUp()
  }

  admit(run: Run): Promise<Admission | undefined> {
    const { generation, attempt, digest } = run
    const { messageId: id } = run.message
    const claim = { id, digest, generation, attempt, sequence: this.#sequence++ }
    return new Promise((resolve) => {
      this.#claims.tell(claim, (result) => resolve(result && this.#admission(run, result)))
    })
  }

  end(run: Run, ending: RunEnding): Promise<'recorded' | 'lost' | undefined> {
    const { fencingToken, digest } = run
    if (fencingToken === undefined) return Promise.resolve('recorded')
    const settlement = { id: run.message.messageId, fencingToken, digest, ending }
    return new Promise((resolve) => {
      this.#ends.tell(settlement, (result) =>
        resolve(result === 'settled' || result === 'already' ? 'recorded' : result),
      )
    })
  }

  #admission(run: Run, result: ClaimResult): Admission {
    if ('fencingToken' in result) run.fencingToken = result.fencingToken
    switch (result.status) {
      case 'acquired':
        run.attempt = result.attempt
        return ADMITTED
      case 'completed':
      case 'superseded':
        return { admit: 'drop', why: result.status }
      case 'leased':
        return { admit: 'later', delayMs: result.retryAfterMs, why: 'it runs elsewhere now' }
      case 'ahead':
        return { admit: 'failed-before', attempt: result.attempt }
      case 'conflict':
        return { admit: 'refuse', reason: 'same id, other body', error: conflict(run) }
      case 'exhausted':
        run.attempt = result.attempt
        return {
          admit: 'refuse',
          reason: `started ${result.starts} times without an end`,
          error: new LeaseLost(
            `its handler was started ${result.starts} times and never ended: the process died each time`,
          ),
        }
    }
  }

  async #checkHandler(): Promise<void> {
    const { scope, storeCheck } = this.#parts
    if (!storeCheck) return
    await this.#renewed()
    await storeCheck(scope, this.#owner)
  }

  async #renew(): Promise<void> {
    const { scope } = this.#parts
    const { signal } = this.#stop
    while (!signal.aborted) {
      await this.#renewOnce()
      const probing = this.#outage !== undefined
      await pause(
        Math.min(scope.leaseMs / RENEWALS, probing ? PROBE_MS : Number.POSITIVE_INFINITY),
        this.#nap.signal,
        true,
      )
      this.#nap = new AbortController()
    }
  }

  async #renewOnce(): Promise<void> {
    const renewedAt = this.#renewedAt
    try {
      const state = await this.#renewed()
      if (state === 'lapsed' && !this.#told) this.#lapsed(renewedAt)
      this.#told = false
      this.#available()
    } catch (error) {
      this.#unavailable(error as Error)
    }
  }

  async #renewed(): Promise<'held' | 'lapsed'> {
    const { store, scope } = this.#parts
    const sentAt = performance.now()
    const answer = this.#noticing(() => store.renew(scope, this.#owner))
    this.#renewal = answer
    try {
      const state = await answer
      this.#silence.heard(this.#outage !== undefined)
      this.#renewalSent(sentAt)
      return state
    } finally {
      if (this.#renewal === answer) this.#renewal = undefined
    }
  }

  #renewalSent(at: number): void {
    this.#renewedAt = at
    clearTimeout(this.#alarm)
    if (this.#stop.signal.aborted) return
    // Where this process was busy meanwhile, an answer that has come is heard first.
    const ring = () => setImmediate(() => this.#renewedAt === at && this.#lapsed(at))
    this.#alarm = setTimeout(ring, at + this.#parts.scope.leaseMs - performance.now()).unref()
  }

  /** A request that keeps us alive; notices when the time since the last renewal was longer than a lease (a frozen process). */
  #noticing<T>(request: () => Promise<T>): Promise<T> {
    if (performance.now() - this.#renewedAt > this.#parts.scope.leaseMs) this.#lapsed(this.#renewedAt)
    return request()
  }

  /**
   * The same until the answer is younger than a lease, and no loss was told meanwhile: what an older one granted (the process was frozen)
   * may be another's by now, and what is granted after the telling could not be told again. Whoever owns it, claiming it once more is
   * harmless: to the store it is the claim it has granted already. Not before claims may be sent at all: if all was frozen, others must
   * have the time to renew.
   */
  async #timely<T>(request: () => Promise<T>, givenUp: AbortSignal): Promise<T> {
    for (;;) {
      const sentAt = performance.now()
      const answer = await this.#noticing(request)
      const late = performance.now() - sentAt > this.#parts.scope.leaseMs || this.#toldSilence === this.#renewedAt
      if (!late) return answer
      this.#silence.grace()
      for (let wait = this.#claimable(givenUp); wait && !givenUp.aborted; wait = this.#claimable(givenUp)) await wait
      if (givenUp.aborted) return answer
    }
  }

  #lapsed(silence: number): void {
    this.#told = true
    if (this.#toldSilence === silence) return
    this.#toldSilence = silence
    this.#parts.events.emit('lease.lapsed', { queue: this.#parts.scope.name, running: this.#parts.running() })
    this.#onLost(
      new LeaseLost(
        `the lease was not renewed in time (${this.#parts.scope.leaseMs} ms): another instance may run this message now`,
      ),
    )
  }

  /** Claims wait for the end of an outage, which only a renewal tells, for a renewal that is unanswered, and for the others' after it. */
  #claimable(givenUp: AbortSignal): Promise<void> | undefined {
    const waits = this.#outage || this.#renewal || this.#silence.leftMs > 0
    return waits ? this.#untilClaimable(givenUp) : undefined
  }

  /** Until it is worth asking again. */
  async #untilClaimable(givenUp: AbortSignal): Promise<void> {
    const stop = deferred()
    const end = () => stop.resolve()
    givenUp.addEventListener('abort', end, { once: true })
    const back = this.#outage?.over.promise ?? this.#renewal?.catch(() => {})
    await Promise.race([back ?? pause(this.#silence.leftMs, givenUp), stop.promise])
    givenUp.removeEventListener('abort', end)
  }

  #unavailable(error: Error): void {
    this.#lastError = error
    if (this.#outage !== undefined) return
    this.#outage = { since: performance.now(), over: deferred() }
    this.#nap.abort()
    this.#parts.events.emit('store.unavailable', { queue: this.#parts.scope.name, error })
  }

  #available(): void {
    if (this.#outage === undefined) return
    const { since, over } = this.#outage
    this.#outage = undefined
    this.#parts.events.emit('store.available', { queue: this.#parts.scope.name, outageMs: performance.now() - since })
    over.resolve()
  }
}

function conflict(run: Run): MessageConflict {
  return new MessageConflict(
    `message id ${run.message.messageId} came before with another body: its publisher reuses ids, or someone changed the message`,
  )
}
