/**
 * Puts many claims or settlements into one script call, and reads its answers: few arguments, one packed payload.
 *
 * The formats are those stated above each script in `redis-scripts.ts`; nothing else reads or writes them.
 */

import type { Claim, ClaimResult, Ending, RecordView, Scope, Settlement, SettleResult } from './idempotency.ts'
import { MINUTES_AHEAD } from './redis-lua-packed.ts'
import { archiveOf, IDENTITY_BYTES, type Place, SHARDS, windowsOf, writeIdentity } from './redis-packing.ts'

/** The keys of one scope, by shard. All keys of a shard have one hash tag, so they are on one node of a cluster. */
export interface ScopeKeys {
  readonly owners: readonly string[]
  readonly ids: readonly string[]
  readonly buckets: readonly string[]
  readonly overflows: readonly string[]
  readonly archives: readonly string[]
}

/** The arguments of one script call, and what is needed to read its reply. */
export interface Call {
  readonly keys: readonly string[]
  readonly payload: Buffer
  /** The shards whose owner hashes lead the keys, in that order. */
  readonly shards: readonly number[]
}

const NOT_COMPARED = new Uint8Array(8)
const DIGEST_BYTES = 8
const CLAIM_HEADER_BYTES = 28
const CLAIM_BYTES = 32 + IDENTITY_BYTES
const CLAIM_REPLY_BYTES = 17
const SETTLE_HEADER_BYTES = 10
const SETTLEMENT_BYTES = 32 + IDENTITY_BYTES
const LEASED = 0x4c
const LOOK_HEADER_BYTES = 4
const LOOK_BYTES = 3 + IDENTITY_BYTES

/** `surehop:{orders.inbox:7}:...`: the braces of a name are escaped, lest they end the hash tag. */
export function keysOf(prefix: string, scopeName: string): ScopeKeys {
  const name = scopeName.replace(/[{}%]/g, (c) => `%${c.charCodeAt(0).toString(16)}`)
  const tags = Array.from({ length: SHARDS }, (_, shard) => `${prefix}:{${name}:${shard.toString(16)}}:`)
  return {
    owners: tags.map((tag) => `${tag}o`),
    ids: tags.map((tag) => `${tag}i:`),
    buckets: tags.map((tag) => `${tag}b:`),
    overflows: tags.map((tag) => `${tag}m:`),
    archives: tags.map((tag) => `${tag}a:`),
  }
}

/** What the script that tidies is called with: an archive, and the buckets that may go there. */
export function tidyKeys(keys: ScopeKeys, shard: number, archive: number): string[] {
  const buckets = windowsOf(archive).map((window) => keys.buckets[shard]! + nameOf(window))
  return [keys.archives[shard]! + nameOf(archive), ...buckets]
}

/** A packed place: its bucket, overflow and archive. */
function packedKeys(keys: ScopeKeys, shard: number, window: number): [string, string, string] {
  const name = nameOf(window)
  return [keys.buckets[shard]! + name, keys.overflows[shard]! + name, keys.archives[shard]! + nameOf(archiveOf(window))]
}

function nameOf(number: number): string {
  return number.toString(36)
}

/** The keys of a call as they are gathered: owner hashes, live keys, packed places; all but the live keys once. */
class Gathered {
  readonly shards: number[] = []
  readonly #keys: ScopeKeys
  readonly #shardAt = new Uint8Array(SHARDS)
  readonly #ids: string[] = []
  readonly #packed: string[] = []
  readonly #packedAt = new Map<number, number>()
  /** The window last asked for in each shard: mostly the one asked for next. */
  readonly #lastWindow = new Float64Array(SHARDS).fill(-1)
  readonly #lastAt = new Uint16Array(SHARDS)

  constructor(keys: ScopeKeys) {
    this.#keys = keys
  }

  /** From 1, as Lua counts. */
  shard(shard: number): number {
    if (this.#shardAt[shard] === 0) this.#shardAt[shard] = this.shards.push(shard)
    return this.#shardAt[shard]!
  }

  id({ shard, name }: Place): void {
    this.#ids.push(this.#keys.ids[shard]! + name)
  }

  /** From 1; 0 where the id is not packed. */
  packed({ shard, window }: Place): number {
    if (window < 0) return 0
    if (this.#lastWindow[shard] !== window) this.#find(shard, window)
    return this.#lastAt[shard]!
  }

  #find(shard: number, window: number): void {
    const number = window * SHARDS + shard
    let at = this.#packedAt.get(number)
    if (at === undefined) {
      at = this.#packed.length + 1
      this.#packed.push(...packedKeys(this.#keys, shard, window))
      this.#packedAt.set(number, at)
    }
    this.#lastWindow[shard] = window
    this.#lastAt[shard] = at
  }

  call(payload: Buffer): Call {
    const keys = this.shards.map((shard) => this.#keys.owners[shard]!)
    for (const id of this.#ids) keys.push(id)
    for (const key of this.#packed) keys.push(key)
    return { keys, payload, shards: this.shards }
  }
}

export function claimCall(keys: ScopeKeys, scope: Scope, claims: readonly Claim[], places: readonly Place[]): Call {
  const gathered = new Gathered(keys)
  const payload = Buffer.allocUnsafe(CLAIM_HEADER_BYTES + claims.length * CLAIM_BYTES)
  for (let i = 0, at = CLAIM_HEADER_BYTES; i < claims.length; i++, at += CLAIM_BYTES) {
    const { attempt, generation, sequence, digest } = claims[i]!
    const place = places[i]!
    gathered.id(place)
    payload[at] = gathered.shard(place.shard)
    payload.writeUInt16LE(gathered.packed(place), at + 1)
    writeIdentity(payload, place, at + 3)
    payload.writeUInt32LE(attempt, at + 14)
    payload.writeUInt32LE(generation, at + 18)
    payload.writeUInt32LE(1, at + 22)
    payload[at + 26] = 0
    writeDigest(payload, digest, at + 27)
    payload.writeDoubleLE(sequence, at + 35)
  }
  payload.writeUInt16LE(claims.length, 0)
  payload.writeUInt16LE(gathered.shards.length, 2)
  payload.writeDoubleLE(wholeMs(scope.retentionMs), 4)
  payload.writeDoubleLE(wholeMs(scope.leaseMs), 12)
  payload.writeDoubleLE(scope.maxStarts, 20)
  return gathered.call(payload)
}

/** Where the owners' part of the reply to `count` claims begins. */
export function ownersAt(count: number): number {
  return count * CLAIM_REPLY_BYTES
}

/** The answer to the claim number `index` of a call. */
export function claimResult(reply: Buffer, index: number, claim: Claim, { idMs }: Place): ClaimResult {
  const at = index * CLAIM_REPLY_BYTES
  const number = reply.readDoubleLE(at + 1)
  const attempt = reply.readUInt32LE(at + 9)
  switch (reply[at]) {
    case 9:
      return { status: 'acquired', fencingToken: number, attempt: claim.attempt, starts: 1 }
    case 1:
      return { status: 'acquired', fencingToken: number, attempt, starts: reply.readUInt32LE(at + 13) }
    case 2:
      return { status: 'leased', retryAfterMs: number }
    case 3:
      return { status: 'ahead', attempt, fencingToken: number }
    case 4:
      return { status: 'completed', completedAt: number }
    case 5:
      return { status: 'superseded', generation: attempt }
    case 6:
      return { status: 'conflict' }
    case 7:
      return { status: 'exhausted', fencingToken: number, attempt, starts: reply.readUInt32LE(at + 13) }
    default:
      return { status: 'completed', completedAt: completedAt(idMs, number) }
  }
}

export function settleCall(
  keys: ScopeKeys,
  scope: Scope,
  settlements: readonly Settlement[],
  places: readonly Place[],
): Call {
  const gathered = new Gathered(keys)
  const payload = Buffer.allocUnsafe(SETTLE_HEADER_BYTES + settlements.length * SETTLEMENT_BYTES)
  for (let i = 0, at = SETTLE_HEADER_BYTES; i < settlements.length; i++, at += SETTLEMENT_BYTES) {
    const { ending, fencingToken, digest } = settlements[i]!
    const place = places[i]!
    gathered.id(place)
    payload[at] = codeOf(ending)
    payload.writeUInt16LE(gathered.packed(place), at + 1)
    payload.writeUInt32LE(numberOf(ending), at + 3)
    payload.writeDoubleLE(place.idMs, at + 7)
    payload[at + 15] = LEASED
    payload.writeDoubleLE(fencingToken, at + 16)
    writeDigest(payload, digest, at + 24)
    writeIdentity(payload, place, at + 32)
  }
  payload.writeUInt16LE(settlements.length, 0)
  payload.writeDoubleLE(wholeMs(scope.retentionMs), 2)
  return gathered.call(payload)
}

/** Renews, or leaves. */
export function renewPayload({ leaseMs }: Scope, leave: boolean): Buffer {
  const payload = Buffer.alloc(9)
  payload.writeDoubleLE(wholeMs(leaseMs))
  payload[8] = leave ? 1 : 0
  return payload
}

export function settleResult(reply: Buffer, index: number): SettleResult {
  const code = reply[index]
  if (code === 1) return 'settled'
  return code === 2 ? 'already' : 'lost'
}

export function lookCall(keys: ScopeKeys, places: readonly Place[]): Call {
  const gathered = new Gathered(keys)
  const payload = Buffer.allocUnsafe(LOOK_HEADER_BYTES + places.length * LOOK_BYTES)
  for (let i = 0, at = LOOK_HEADER_BYTES; i < places.length; i++, at += LOOK_BYTES) {
    const place = places[i]!
    gathered.id(place)
    payload[at] = gathered.shard(place.shard)
    payload.writeUInt16LE(gathered.packed(place), at + 1)
    writeIdentity(payload, place, at + 3)
  }
  payload.writeUInt16LE(places.length, 0)
  payload.writeUInt16LE(gathered.shards.length, 2)
  return gathered.call(payload)
}

/** Reads one string of the look script's reply. */
export function recordView(seen: Buffer, { idMs }: Place): RecordView {
  if (seen.length === 0) return { state: 'absent' }
  if (seen[0] === 0x50) return { state: 'completed', completedAt: completedAt(idMs, seen.readUInt16LE(4)) }
  const state = String.fromCharCode(seen[1]!)
  if (state === 'C') return { state: 'completed', completedAt: seen.readDoubleLE(2) }
  const attempt = seen.readUInt32LE(10)
  const generation = seen.readUInt32LE(14)
  if (state === 'D') return { state: 'dead', generation }
  if (state !== 'L') return { state: 'released', attempt, generation }
  return { state: 'leased', owner: seen.toString('utf8', 39), attempt, generation, live: seen[0] === 0x31 }
}

/** @param minutes as an entry has them */
function completedAt(idMs: number, minutes: number): number {
  return idMs + (minutes < 2 ** 16 - MINUTES_AHEAD ? minutes : minutes - 2 ** 16) * 60_000
}

/** Redis takes whole milliseconds, and more than none. */
function wholeMs(ms: number): number {
  return Math.max(1, Math.ceil(ms))
}

function writeDigest(into: Buffer, digest: Uint8Array | undefined, at: number): void {
  const from = digest ?? NOT_COMPARED
  for (let i = 0; i < DIGEST_BYTES; i++) into[at + i] = from[i] ?? 0
}

function codeOf({ state }: Ending): number {
  if (state === 'completed') return 1
  if (state === 'failed') return 2
  return state === 'returned' ? 3 : 4
}

function numberOf(ending: Ending): number {
  if (ending.state === 'failed') return ending.nextAttempt
  return ending.state === 'dead' ? ending.generation : 0
}
