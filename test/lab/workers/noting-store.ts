// An idempotency store that passes everything on, and puts on record what the store has answered: ends that were recorded, with the
// time when that was first asked for, and ends that it refused; messages that it did not give out because another process holds
// them; leases that it says have run out; silences longer than a lease.
//
// What the store says, not what the library makes of it: so the lab can judge the library.

import type {
  Claim,
  ClaimResult,
  IdempotencyStore,
  RecordView,
  Scope,
  Settlement,
  SettleResult,
} from '../../../lib/index.ts'
import type { LedgerWriter } from '../ledger/writer.ts'
import { monotonicNs } from '../ledger.ts'

/** Where the handler's own transaction completes the record, to be told so once more is no refusal: the handler notes that end. */
export interface NotingOptions {
  readonly completedByHandler?: boolean
}

/** See the head of this file. For one consumer. */
export class NotingStore implements IdempotencyStore {
  readonly #store: IdempotencyStore
  readonly #ledger: LedgerWriter
  readonly #completedByHandler: boolean
  /** Id and token -> when its end was first sent; until it is answered. */
  readonly #asked = new Map<string, number>()
  /** When the last renewal that was answered was sent. */
  #aliveNs: number | undefined

  constructor(store: IdempotencyStore, ledger: LedgerWriter, { completedByHandler = false }: NotingOptions = {}) {
    this.#store = store
    this.#ledger = ledger
    this.#completedByHandler = completedByHandler
  }

  async claim(scope: Scope, owner: string, claims: readonly Claim[]): Promise<ClaimResult[]> {
    const sent = monotonicNs()
    const results = await this.#store.claim(scope, owner, claims)
    this.#aliveNs ??= sent
    for (const [i, { id }] of claims.entries())
      if (results[i]?.status === 'leased') this.#ledger.note({ is: 'put-off', at: monotonicNs(), id })
    return results
  }

  async settle(scope: Scope, owner: string, settlements: readonly Settlement[]): Promise<SettleResult[]> {
    const now = monotonicNs()
    for (const settlement of settlements) {
      const name = nameOf(settlement)
      if (!this.#asked.has(name)) this.#asked.set(name, now)
    }
    const results = await this.#store.settle(scope, owner, settlements)
    for (const [i, settlement] of settlements.entries()) this.#answered(settlement, results[i])
    return results
  }

  async renew(scope: Scope, owner: string, options?: { readonly leave?: boolean }): Promise<'held' | 'lapsed'> {
    const sent = monotonicNs()
    this.#aliveNs ??= sent
    try {
      const answer = await this.#store.renew(scope, owner, options)
      this.#noteSilence(scope, sent)
      this.#aliveNs = sent
      if (answer === 'lapsed') this.#ledger.note({ is: 'lapsed', at: monotonicNs() })
      return answer
    } catch (error) {
      // This process may be dead before the store is back.
      this.#noteSilence(scope, monotonicNs())
      throw error
    }
  }

  look(scope: Scope, ids: readonly string[]): Promise<RecordView[]> {
    return this.#store.look(scope, ids)
  }

  check(): Promise<readonly string[]> {
    return this.#store.check()
  }

  close(): Promise<void> {
    return this.#store.close()
  }

  #noteSilence({ leaseMs }: Scope, at: number): void {
    const from = this.#aliveNs!
    if (at - from > leaseMs * 1e6) this.#ledger.write({ is: 'silent', at, from })
  }

  #answered(settlement: Settlement, result: SettleResult | undefined): void {
    const name = nameOf(settlement)
    const since = this.#asked.get(name)!
    this.#asked.delete(name)
    const { id, fencingToken: token, ending } = settlement
    if (this.#completedByHandler && ending.state === 'completed') return
    const is = result === 'settled' ? 'ended' : 'denied'
    this.#ledger.note({ is, at: monotonicNs(), id, token, since, as: ending.state })
  }
}

function nameOf({ id, fencingToken }: Settlement): string {
  return `${id} ${fencingToken}`
}
