/**
 * The consumer's side of idempotency: asks the store for the right to run, keeps the leases alive, and records the ends.
 *
 * Promises: claims and endings made together go to the store together; one renewal per instance and interval; while the store is
 * unreachable nothing is admitted and nothing is forgotten (fail closed): requests wait, and go on by themselves; when our leases may
 * have been taken over (a late renewal, a frozen process, an outage longer than the lease) every running handler's signal fires.
 * Emits store.unavailable, store.available, store.warning, lease.lapsed.
 */
import { Batcher } from '../batcher.ts'
import type { Admission, Guard, Run, RunEnding } from '../consumer/handler.ts'
import { pause } from '../deadline.ts'
import { LeaseLost, MessageConflict, textOf } from '../errors.ts'
import { newMessageId } from '../message.ts'
import type { Events } from '../observability/events.ts'
import type { Claim, ClaimResult, IdempotencyStore, Scope, Settlement, SettleResult } from './idempotency.ts'

export interface GuardParts {
  readonly store: IdempotencyStore
  readonly scope: Scope
  readonly events: Events
  /** Handlers that run now, for the event. */
  readonly running: () => number
}

const MAX_BATCH = 256
/** Renewals per lease. */
const RENEWALS = 3

export class StoreGuard implements Guard {
  readonly #parts: GuardParts
  readonly #owner = newMessageId()
  readonly #claims: Batcher<Claim, ClaimResult>
  readonly #ends: Batcher<Settlement, SettleResult>
  readonly #stop = new AbortController()
  #sequence = 0
  #onLost: (reason: Error) => void = () => {}
  #renewing: Promise<void> | undefined
  /** When the last request that surely kept us alive was sent (monotonic ms). */
  #aliveAt = performance.now()
  #lapseTold = false
  #outageSince: number | undefined
  #lastError: Error | undefined

  constructor(parts: GuardParts) {
    this.#parts = parts
    const { store, scope } = parts
    const watch = {
      maxBatch: MAX_BATCH,
      onFailure: (error: Error) => this.#unavailable(error),
      onSuccess: () => this.#available(),
    }
    this.#claims = new Batcher({
      ...watch,
      send: (claims) => this.#kept(() => store.claim(scope, this.#owner, claims)),
    })
    this.#ends = new Batcher({ ...watch, send: (ends) => store.settle(scope, this.#owner, ends) })
  }

  get problem(): string | undefined {
    return this.#outageSince === undefined
      ? undefined
      : `the idempotency store is unreachable, nothing is run: ${textOf(this.#lastError)}`
  }

  onLeasesLost(listener: (reason: Error) => void): void {
    this.#onLost = listener
  }

  /** @throws StoreUnavailable when the store cannot be reached at start */
  async start(): Promise<void> {
    const { store, scope, events } = this.#parts
    for (const warning of await store.check()) events.emit('store.warning', { queue: scope.name, warning })
    this.#aliveAt = performance.now()
    this.#renewing = this.#renew()
  }

  /** Leaves: leases that are still ours end at once. */
  async close(): Promise<void> {
    if (this.#stop.signal.aborted) return
    this.#stop.abort()
    await this.#renewing
    if (this.#renewing) await this.#parts.store.renew(this.#parts.scope, this.#owner, { leave: true }).catch(() => {})
  }

  async admit(run: Run, signal: AbortSignal): Promise<Admission | undefined> {
    const { generation, attempt, digest } = run
    const result = await this.#claims.ask(
      { id: run.message.messageId, digest, generation, attempt, sequence: this.#sequence++ },
      signal,
    )
    if (!result) return undefined
    if (result.status === 'acquired' || result.status === 'exhausted') run.fencingToken = result.fencingToken
    return this.#admission(run, result)
  }

  async end(run: Run, ending: RunEnding): Promise<'recorded' | 'lost' | undefined> {
    if (run.fencingToken === undefined) return 'recorded'
    const settlement = { id: run.message.messageId, fencingToken: run.fencingToken, digest: run.digest, ending }
    const result = await this.#ends.ask(settlement, this.#stop.signal)
    return result === undefined ? undefined : result === 'lost' ? 'lost' : 'recorded'
  }

  #admission(run: Run, result: ClaimResult): Admission {
    switch (result.status) {
      case 'acquired':
        run.attempt = result.attempt
        return { admit: 'run' }
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

  async #renew(): Promise<void> {
    const { store, scope } = this.#parts
    const { signal } = this.#stop
    while (!signal.aborted) {
      await pause(scope.leaseMs / RENEWALS, signal, true)
      if (signal.aborted) return
      try {
        const state = await this.#kept(() => store.renew(scope, this.#owner))
        this.#available()
        if (state === 'lapsed') this.#lapsed()
      } catch (error) {
        this.#unavailable(error as Error)
        if (performance.now() - this.#aliveAt > scope.leaseMs) this.#lapsed()
      }
    }
  }

  /** A request that keeps us alive; notices when the time since the last one was longer than a lease (a frozen process). */
  async #kept<T>(request: () => Promise<T>): Promise<T> {
    const sentAt = performance.now()
    if (sentAt - this.#aliveAt > this.#parts.scope.leaseMs) this.#lapsed()
    const answer = await request()
    this.#aliveAt = sentAt
    this.#lapseTold = false
    return answer
  }

  #lapsed(): void {
    if (this.#lapseTold) return
    this.#lapseTold = true
    this.#parts.events.emit('lease.lapsed', { queue: this.#parts.scope.name, running: this.#parts.running() })
    this.#onLost(
      new LeaseLost(
        `the lease was not renewed in time (${this.#parts.scope.leaseMs} ms): another instance may run this message now`,
      ),
    )
  }

  #unavailable(error: Error): void {
    this.#lastError = error
    if (this.#outageSince !== undefined) return
    this.#outageSince = performance.now()
    this.#parts.events.emit('store.unavailable', { queue: this.#parts.scope.name, error })
  }

  #available(): void {
    if (this.#outageSince === undefined) return
    const outageMs = performance.now() - this.#outageSince
    this.#outageSince = undefined
    this.#parts.events.emit('store.available', { queue: this.#parts.scope.name, outageMs })
  }
}

function conflict(run: Run): MessageConflict {
  return new MessageConflict(
    `message id ${run.message.messageId} came before with another body: its publisher reuses ids, or someone changed the message`,
  )
}
