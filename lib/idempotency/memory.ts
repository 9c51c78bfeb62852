/**
 * Remembers in this process's memory: for tests, and for a service that is one process and may forget when it restarts.
 *
 * Promises: the whole contract of `IdempotencyStore`, at once and without I/O; records that have expired are dropped bit
 * by bit as the store is used.
 * Does NOT promise: anything after a restart, or between two processes. For those, use `RedisIdempotencyStore` or `PostgresIdempotencyStore`.
 */

import { Closed } from '../errors.ts'
import type {
  Claim,
  ClaimResult,
  IdempotencyStore,
  RecordView,
  Scope,
  Settlement,
  SettleResult,
} from './idempotency.ts'
import { type Asked, decideClaim, decideSettle, type IdempotencyRecord } from './record.ts'

/** Options of {@link MemoryIdempotencyStore}. */
export interface MemoryIdempotencyStoreOptions {
  /** The clock, epoch ms. Default `Date.now`. Give your own to move time in tests. */
  readonly now?: (() => number) | undefined
}

interface Kept {
  readonly record: IdempotencyRecord
  readonly expiresAtMs: number
}

interface Owner {
  untilMs: number
  /** It was silent for longer than its lease since its last renewal. */
  lapsed: boolean
}

interface Room {
  /** In the order of their last change: the oldest first, so that expired ones are found at the front. */
  readonly records: Map<string, Kept>
  /** All owners of this process but those that left: one that is silent, for however long, must find out when it is back. */
  readonly owners: Map<string, Owner>
}

/** One claim, and who asks: until when it was alive before. */
type MemoryClaim = Pick<Asked, 'owner' | 'askerUntilMs' | 'claim'> & { readonly scope: Scope; readonly nowMs: number }

/** How many expired records a call drops per record it touches. */
const SWEPT_PER_RECORD = 2

/** An {@link IdempotencyStore} in memory. See the module's header for what it does not promise. */
export class MemoryIdempotencyStore implements IdempotencyStore {
  readonly #now: () => number
  readonly #rooms = new Map<string, Room>()
  #closed = false

  constructor(options: MemoryIdempotencyStoreOptions = {}) {
    this.#now = options.now ?? Date.now
  }

  /** How many records are held, expired ones that were not yet dropped included. */
  get size(): number {
    let size = 0
    for (const room of this.#rooms.values()) size += room.records.size
    return size
  }

  async claim(scope: Scope, owner: string, claims: readonly Claim[]): Promise<ClaimResult[]> {
    const room = this.#room(scope)
    const nowMs = this.#now()
    const askerUntilMs = room.owners.get(owner)?.untilMs
    keepAlive(room, owner, nowMs, scope.leaseMs)
    sweep(room, nowMs, claims.length)
    return claims.map((claim) => this.#claim(room, { scope, owner, askerUntilMs, claim, nowMs }))
  }

  async settle(scope: Scope, owner: string, settlements: readonly Settlement[]): Promise<SettleResult[]> {
    const room = this.#room(scope)
    const nowMs = this.#now()
    sweep(room, nowMs, settlements.length)
    return settlements.map((settlement) => {
      const before = recordOf(room, settlement.id, nowMs)
      const { result, record } = decideSettle(before, { settlement, owner, nowMs })
      if (record !== before) keep(room, settlement.id, record, nowMs + scope.retentionMs)
      return result
    })
  }

  async renew(scope: Scope, owner: string, options: { readonly leave?: boolean } = {}): Promise<'held' | 'lapsed'> {
    const room = this.#room(scope)
    const known = keepAlive(room, owner, this.#now(), scope.leaseMs)
    const lapsed = known.lapsed
    known.lapsed = false
    if (options.leave) room.owners.delete(owner)
    return lapsed ? 'lapsed' : 'held'
  }

  async look(scope: Scope, ids: readonly string[]): Promise<RecordView[]> {
    const room = this.#room(scope)
    const nowMs = this.#now()
    return ids.map((id) => view(room, recordOf(room, id, nowMs), nowMs))
  }

  async check(): Promise<readonly string[]> {
    this.#refuseClosed()
    return ['Idempotency records are kept in memory only: they are lost when this process ends.']
  }

  async close(): Promise<void> {
    this.#closed = true
    this.#rooms.clear()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  #claim(room: Room, { scope, nowMs, ...asked }: MemoryClaim): ClaimResult {
    const { id } = asked.claim
    const before = recordOf(room, id, nowMs)
    const holderUntilMs = before?.state === 'leased' ? room.owners.get(before.owner)?.untilMs : undefined
    const { leaseMs, maxStarts, retentionMs } = scope
    const nowUs = nowMs * 1000
    const { result, record } = decideClaim(before, { ...asked, holderUntilMs, nowUs, leaseMs, maxStarts })
    if (record !== before) keep(room, id, record, nowMs + retentionMs)
    return result
  }

  #room(scope: Scope): Room {
    this.#refuseClosed()
    let room = this.#rooms.get(scope.name)
    if (room === undefined) {
      room = { records: new Map(), owners: new Map() }
      this.#rooms.set(scope.name, room)
    }
    return room
  }

  #refuseClosed(): void {
    if (this.#closed) throw new Closed('the idempotency store was closed; open a new one')
  }
}

function recordOf(room: Room, id: string, nowMs: number): IdempotencyRecord | undefined {
  const kept = room.records.get(id)
  return kept !== undefined && kept.expiresAtMs > nowMs ? kept.record : undefined
}

function keep(room: Room, id: string, record: IdempotencyRecord | undefined, expiresAtMs: number): void {
  room.records.delete(id)
  if (record !== undefined) room.records.set(id, { record: owning(record), expiresAtMs })
}

/** The bytes of a digest may lie in a buffer shared with others, all of which they would keep for as long as the record. */
function owning(record: IdempotencyRecord): IdempotencyRecord {
  const { digest } = record
  const shares = digest !== undefined && digest.byteLength < digest.buffer.byteLength
  return shares ? { ...record, digest: new Uint8Array(digest) } : record
}

/** Prolongs the owner's lease and remembers whether it had run out. */
function keepAlive(room: Room, owner: string, nowMs: number, leaseMs: number): Owner {
  const known = room.owners.get(owner) ?? { untilMs: nowMs + leaseMs, lapsed: false }
  if (known.untilMs <= nowMs) known.lapsed = true
  known.untilMs = nowMs + leaseMs
  room.owners.set(owner, known)
  return known
}

function sweep(room: Room, nowMs: number, touched: number): void {
  let left = touched * SWEPT_PER_RECORD
  for (const [id, kept] of room.records) {
    if (left-- <= 0 || kept.expiresAtMs > nowMs) return
    room.records.delete(id)
  }
}

function view(room: Room, record: IdempotencyRecord | undefined, nowMs: number): RecordView {
  if (record === undefined) return { state: 'absent' }
  if (record.state === 'completed') return { state: 'completed', completedAt: record.completedAt }
  const { attempt, generation } = record
  if (record.state === 'dead') return { state: 'dead', generation }
  if (record.state === 'released') return { state: 'released', attempt, generation }
  const live = (room.owners.get(record.owner)?.untilMs ?? 0) > nowMs
  return { state: 'leased', owner: record.owner, attempt, generation, live }
}
