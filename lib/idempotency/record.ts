/**
 * The decisions of one idempotency record, pure: what a claim or a settlement answers, and what the record is afterwards.
 *
 * `memory.ts` calls these functions; the Lua scripts of the Redis store say the same and are held to it by a
 * model-based test. The state machine is drawn in `idempotency.ts`.
 *
 * Promises: a record that is `completed` never changes; a fencing token is greater than every earlier one of its record,
 * and at least the store's clock in microseconds, so that it also grows when the store has forgotten the record. A claim whose
 * own owner was away takes no lease from another: what it found may be no more than what a frozen store had no time to hear.
 * Does NOT promise anything about time: the caller says what time it is and until when holder and asker were alive.
 */

import type { Claim, ClaimResult, Ending, Settlement, SettleResult } from './idempotency.ts'

/** What a store keeps of one id; `undefined` is the absent record. */
export type IdempotencyRecord = LeasedRecord | ReleasedRecord | DeadRecord | CompletedRecord

/** The part every record that has not completed carries on. */
interface Story {
  /** The last fencing token given out. */
  readonly fence: number
  readonly attempt: number
  readonly generation: number
  /** Runs that began since one last ended. */
  readonly starts: number
  readonly digest: Uint8Array | undefined
}

/** Someone runs it, or died running it. */
export interface LeasedRecord extends Story {
  readonly state: 'leased'
  readonly owner: string
  /** Of the claim that got the lease: the same claim, repeated, gets the same answer. */
  readonly sequence: number
  /** The lease was given to park the message, not to run it. */
  readonly exhausted: boolean
}

/** Waits for its next run. */
export interface ReleasedRecord extends Story {
  readonly state: 'released'
  readonly by: 'failed' | 'returned'
}

/** Its dead letter of this generation is written. */
export interface DeadRecord extends Story {
  readonly state: 'dead'
}

/** Done, for good. */
export interface CompletedRecord {
  readonly state: 'completed'
  /** Epoch ms. */
  readonly completedAt: number
  readonly digest: Uint8Array | undefined
}

/** A claim, and what the store knows at that moment. */
export interface Asked {
  readonly claim: Claim
  readonly owner: string
  /** Until when (epoch ms) the owner that asks was alive before this claim; undefined where the store does not know it. */
  readonly askerUntilMs: number | undefined
  /** The same of the owner named in a leased record; undefined where it left, or the store has forgotten it. */
  readonly holderUntilMs: number | undefined
  /** The store's clock, microseconds since the epoch. */
  readonly nowUs: number
  readonly leaseMs: number
  readonly maxStarts: number
}

/** The answer to a claim, and the record after it. */
export interface ClaimDecision {
  readonly result: ClaimResult
  readonly record: IdempotencyRecord | undefined
}

/** The answer to a settlement, and the record after it. */
export interface SettleDecision {
  readonly result: SettleResult
  readonly record: IdempotencyRecord | undefined
}

/** Answers one claim. `record` of the answer is the very same object where nothing changes. */
export function decideClaim(record: IdempotencyRecord | undefined, asked: Asked): ClaimDecision {
  const { claim } = asked
  if (record === undefined) return begin(record, asked)
  if (conflicts(record, claim)) return { result: { status: 'conflict' }, record }
  if (record.state === 'completed') return { result: { status: 'completed', completedAt: record.completedAt }, record }
  if (claim.generation < record.generation || (record.state === 'dead' && claim.generation === record.generation)) {
    return { result: { status: 'superseded', generation: record.generation }, record }
  }
  if (record.state === 'leased') return claimLeased(record, asked)
  if (claim.generation > record.generation || record.state === 'dead') return begin(record, asked)
  if (claim.attempt < record.attempt) return { result: aheadOf(record), record }
  return startAgain(record, asked)
}

/** Answers one settlement by `owner` at `nowMs` (epoch). */
export function decideSettle(
  record: IdempotencyRecord | undefined,
  settled: { readonly settlement: Settlement; readonly owner: string; readonly nowMs: number },
): SettleDecision {
  const { settlement, owner, nowMs } = settled
  if (record === undefined) return { result: 'settled', record: endForgotten(settlement, nowMs) }
  if (record.state === 'completed') return { result: 'already', record }
  if (record.fence !== settlement.fencingToken) return { result: 'lost', record }
  if (buriesFailed(record, settlement.ending)) return { result: 'settled', record: end(record, settlement, nowMs) }
  if (record.state !== 'leased') return { result: isRepeat(record, settlement.ending) ? 'settled' : 'lost', record }
  if (record.owner !== owner) return { result: 'lost', record }
  return { result: 'settled', record: end(record, settlement, nowMs) }
}

/** How long a claim that met a live holder should wait: a third of what is left, from 250 ms to a third of the lease. */
export function retryAfterMs(holderUntilMs: number, nowUs: number, leaseMs: number): number {
  const third = (holderUntilMs - nowUs / 1000) / 3
  return Math.max(1, Math.ceil(Math.min(Math.max(third, 250), leaseMs / 3)))
}

/** How long all owners need to find their way back to a store that was away, and to renew, ms. Never longer than a lease. */
export const RENEWAL_GRACE_MS = 3_000

/**
 * Was an owner that was alive until then away? Those that reach the store renew three times per lease. Where one has not for more
 * than half of its lease, it may be the store that was frozen, and in its socket the claim that is decided now, and behind that the
 * renewal of another. With less than half of it gone, the lease of no owner that the store could have heard has run out.
 */
export function wasAway(untilMs: number | undefined, nowUs: number, leaseMs: number): boolean {
  return untilMs !== undefined && untilMs - nowUs / 1000 < leaseMs / 2
}

function claimLeased(record: LeasedRecord, asked: Asked): ClaimDecision {
  const mine = record.owner === asked.owner
  if (mine && record.sequence === asked.claim.sequence) return { result: grantOf(record), record }
  const wait = mine ? waitBehind(record, asked) : waitFor(asked)
  if (wait !== undefined) return { result: { status: 'leased', retryAfterMs: wait }, record }
  return asked.claim.generation > record.generation ? begin(record, asked) : startAgain(record, asked)
}

/**
 * The same where the lease is the asker's own, of a delivery that came later: then this claim lay somewhere (in the socket of a frozen
 * store, in a client that sends it once more) since it was given up, and nobody hears the answer.
 */
function waitBehind({ sequence }: LeasedRecord, { claim, nowUs, leaseMs }: Asked): number | undefined {
  return claim.sequence < sequence ? retryAfterMs(0, nowUs, leaseMs) : undefined
}

/** How long to wait for another owner's lease, ms; undefined where it may be taken over. */
function waitFor({ askerUntilMs, holderUntilMs, nowUs, leaseMs }: Asked): number | undefined {
  if (holderUntilMs === undefined) return undefined
  if (holderUntilMs * 1000 > nowUs) return retryAfterMs(holderUntilMs, nowUs, leaseMs)
  return wasAway(askerUntilMs, nowUs, leaseMs) ? Math.ceil(Math.min(RENEWAL_GRACE_MS, leaseMs)) : undefined
}

/** A generation of which no run has begun yet. */
function begin(record: Exclude<IdempotencyRecord, CompletedRecord> | undefined, asked: Asked): ClaimDecision {
  const { attempt, digest } = asked.claim
  return lease(record?.fence ?? 0, asked, { attempt, digest, starts: 1, exhausted: false })
}

/** One more run of the same generation, unless too many began and never ended: then only the right to park it. */
function startAgain(record: LeasedRecord | ReleasedRecord, asked: Asked): ClaimDecision {
  const exhausted = record.starts >= asked.maxStarts
  return lease(record.fence, asked, {
    attempt: Math.max(asked.claim.attempt, record.attempt),
    digest: record.digest ?? asked.claim.digest,
    starts: exhausted ? record.starts : record.starts + 1,
    exhausted,
  })
}

function lease(
  previousFence: number,
  { claim, owner, nowUs }: Asked,
  run: Pick<LeasedRecord, 'attempt' | 'digest' | 'starts' | 'exhausted'>,
): ClaimDecision {
  const { generation, sequence } = claim
  const fence = Math.max(previousFence + 1, Math.floor(nowUs))
  const record: LeasedRecord = { state: 'leased', owner, sequence, generation, fence, ...run }
  return { result: grantOf(record), record }
}

function grantOf({ exhausted, fence, attempt, starts }: LeasedRecord): ClaimResult {
  return { status: exhausted ? 'exhausted' : 'acquired', fencingToken: fence, attempt, starts }
}

function aheadOf({ attempt, fence }: ReleasedRecord): ClaimResult {
  return { status: 'ahead', attempt, fencingToken: fence }
}

/** Another body under the same id. A newer generation may carry an edited body, except where the record is final. */
function conflicts(record: IdempotencyRecord, claim: Claim): boolean {
  if (record.state !== 'completed' && claim.generation > record.generation) return false
  const { digest } = record
  return digest !== undefined && claim.digest !== undefined && !sameBytes(digest, claim.digest)
}

function end(
  record: LeasedRecord | ReleasedRecord,
  { ending, digest: given }: Settlement,
  nowMs: number,
): IdempotencyRecord {
  const { fence, attempt, generation, starts } = record
  const exhausted = record.state === 'leased' && record.exhausted
  const story: Story = { fence, attempt, generation, starts, digest: record.digest ?? given }
  switch (ending.state) {
    case 'completed':
      return { state: 'completed', completedAt: nowMs, digest: story.digest }
    case 'failed':
      return { ...story, state: 'released', by: 'failed', attempt: ending.nextAttempt, starts: 0 }
    case 'returned':
      return { ...story, state: 'released', by: 'returned', starts: exhausted ? starts : starts - 1 }
    case 'dead':
      return { ...story, state: 'dead', generation: ending.generation }
  }
}

/** The store forgot the lease and nobody claimed since: what its owner reports is recorded, so that it is not run again. */
function endForgotten({ ending, digest, fencingToken }: Settlement, nowMs: number): IdempotencyRecord | undefined {
  const story: Story = { fence: fencingToken, attempt: 1, generation: 0, starts: 0, digest }
  switch (ending.state) {
    case 'completed':
      return { state: 'completed', completedAt: nowMs, digest }
    case 'failed':
      return { ...story, state: 'released', by: 'failed', attempt: ending.nextAttempt }
    case 'returned':
      return undefined
    case 'dead':
      return { ...story, state: 'dead', generation: ending.generation }
  }
}

/** The last attempt failed, and whoever was told so, by a copy that was left over, has written its letter. Any owner may; nobody has run it since. */
function buriesFailed(record: LeasedRecord | ReleasedRecord | DeadRecord, ending: Ending): record is ReleasedRecord {
  return record.state === 'released' && record.by === 'failed' && ending.state === 'dead'
}

function isRepeat(record: ReleasedRecord | DeadRecord, ending: Ending): boolean {
  if (record.state === 'dead') return ending.state === 'dead' && ending.generation === record.generation
  if (record.by === 'returned') return ending.state === 'returned'
  return ending.state === 'failed' && ending.nextAttempt === record.attempt
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i])
}
