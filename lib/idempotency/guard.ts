/**
 * The consumer's side of idempotency: asks the store for the right to run, keeps the leases alive, and records the ends.
 *
 * Promises: claims and endings made together go to the store together; one renewal per instance and interval; while the store is
 * unreachable nothing is admitted and nothing is forgotten (fail closed): requests wait, and go on by themselves; when our leases may
 * have been taken over (a late renewal, a frozen process, an outage longer than the lease) every running handler's signal fires.
 * After an outage in which leases may have run out, nothing is claimed until every instance has had the time to renew its leases
 * and to record what it finished meanwhile: else the quickest would run again what another has just done.
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
/** How long claims wait after an outage in which leases may have run out, ms; instances find their way back within about that. */
const GRACE_MS = 3_000

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
  /** When the last request that was answered was sent (monotonic ms). A claim keeps us alive too, but it may be only where its ids are kept. */
  #aliveAt = performance.now()
  /** When the last renewal that succeeded was sent: all our leases are surely ours until a lease later. */
  #renewedAt = performance.now()
  /** Rings a lease after that: a renewal that hangs must not keep it from being told. */
  #alarm: NodeJS.Timeout | undefined
  /** The `#renewedAt` before the last silence that was told; each is told once. */
  #toldSilence: number | undefined
  /** A silence was told since the last renewal: the store's own word of it is no news. */
  #told = false
  #outage: Outage | undefined
  #claimsFrom = 0
  #nap = new AbortController()
  #lastError: Error | undefined

  constructor(parts: GuardParts) {
    this.#parts = parts
    const { store, scope } = parts
    const onFailure = (error: Error) => this.#unavailable(error)
    const watch = { maxBatch: MAX_BATCH, onFailure }
    this.#claims = new Batcher({
      ...watch,
      ready: (givenUp) => this.#claimable(givenUp),
      send: (claims) => this.#timely(() => store.claim(scope, this.#owner, claims)),
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
    this.#aliveAt = performance.now()
    this.#renewalSent(this.#aliveAt)
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
    if (this.#renewing) await this.#parts.store.renew(this.#parts.scope, this.#owner, { leave: true }).catch(() => {})
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
      const probing = this.#outage !== undefined
      await pause(
        Math.min(scope.leaseMs / RENEWALS, probing ? PROBE_MS : Number.POSITIVE_INFINITY),
        this.#nap.signal,
        true,
      )
      this.#nap = new AbortController()
      if (!signal.aborted) await this.#renewOnce()
    }
  }

  async #renewOnce(): Promise<void> {
    const [aliveAt, renewedAt] = [this.#aliveAt, this.#renewedAt]
    try {
      const state = await this.#renewed()
      if (state === 'lapsed' && !this.#told) this.#lapsed(renewedAt)
      this.#told = false
      this.#available(aliveAt)
    } catch (error) {
      this.#unavailable(error as Error)
    }
  }

  async #renewed(): Promise<'held' | 'lapsed'> {
    const { store, scope } = this.#parts
    const sentAt = performance.now()
    const state = await this.#kept(() => store.renew(scope, this.#owner))
    this.#renewalSent(sentAt)
    return state
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
  async #kept<T>(request: () => Promise<T>): Promise<T> {
    const sentAt = performance.now()
    if (sentAt - this.#renewedAt > this.#parts.scope.leaseMs) this.#lapsed(this.#renewedAt)
    const answer = await request()
    this.#aliveAt = Math.max(this.#aliveAt, sentAt)
    return answer
  }

  /**
   * The same until the answer is younger than a lease: what an older one granted (the process was frozen meanwhile) may be another's by
   * now. Whoever owns it, claiming it once more is harmless: to the store it is the claim it has granted already.
   */
  async #timely<T>(request: () => Promise<T>): Promise<T> {
    for (;;) {
      const sentAt = performance.now()
      const answer = await this.#kept(request)
      if (performance.now() - sentAt <= this.#parts.scope.leaseMs || this.#stop.signal.aborted) return answer
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

  /** Claims wait for the end of an outage, which only a renewal tells, and for the others' renewals after it. */
  #claimable(givenUp: AbortSignal): Promise<void> | undefined {
    return this.#outage || performance.now() < this.#claimsFrom ? this.#untilClaimable(givenUp) : undefined
  }

  async #untilClaimable(givenUp: AbortSignal): Promise<void> {
    const stop = deferred()
    const end = () => stop.resolve()
    givenUp.addEventListener('abort', end, { once: true })
    while (this.#outage && !givenUp.aborted) await Promise.race([this.#outage.over.promise, stop.promise])
    givenUp.removeEventListener('abort', end)
    await pause(this.#claimsFrom - performance.now(), givenUp)
  }

  #unavailable(error: Error): void {
    this.#lastError = error
    if (this.#outage !== undefined) return
    this.#outage = { since: performance.now(), over: deferred() }
    this.#nap.abort()
    this.#parts.events.emit('store.unavailable', { queue: this.#parts.scope.name, error })
  }

  /** @param aliveAt when we were last known to be alive, before the renewal that succeeded */
  #available(aliveAt: number): void {
    if (this.#outage === undefined) return
    const { since, over } = this.#outage
    const { leaseMs, name } = this.#parts.scope
    const now = performance.now()
    // Others renewed up to a third of a lease before us; with less than half of ours gone, none of theirs has run out.
    if (now - aliveAt > leaseMs / 2) this.#claimsFrom = now + Math.min(GRACE_MS, leaseMs)
    this.#outage = undefined
    this.#parts.events.emit('store.available', { queue: name, outageMs: now - since })
    over.resolve()
  }
}

function conflict(run: Run): MessageConflict {
  return new MessageConflict(
    `message id ${run.message.messageId} came before with another body: its publisher reuses ids, or someone changed the message`,
  )
}
