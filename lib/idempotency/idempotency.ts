/**
 * Runs a message once: the words, the state machine, and the interface of a store that remembers.
 *
 * One record per message id and scope (a scope is one consumer's queue):
 *
 *     absent ──claim──▶ leased ──completed──▶ completed                      (final)
 *                        │ ▲  ├──failed────▶ released (next attempt) ──claim──▶ leased
 *                        │ │  ├──returned──▶ released (same attempt)  ──claim──▶ leased
 *                        │ │  └──dead──────▶ dead (generation g) ──claim with generation > g──▶ leased
 *                        └─┘ owner silent for longer than its lease: the next claim takes over, one more start,
 *                            unless the claim's own owner was away as well: then it is `leased` once more
 *                   released (next attempt) ──dead──▶ dead, where the attempt that failed was the last
 *
 * Promises: at most one live owner per record; a settlement by an owner that was taken over changes nothing (fencing);
 * completed is final; fencing tokens of one record only grow, also when the store comes back empty (a time-based floor). A claim that
 * lay in the socket of a frozen store takes nobody over when that thaws: if the store knows the claim's owner, and has not heard of it
 * for more than half of its lease when it executes the claim, then the others' renewals may lie behind it. That claim answers `leased`
 * for what a silent owner holds, and counts no start; it keeps its owner alive, so that owner's next one may take over.
 * Does NOT promise: that an effect is not repeated when the process dies between the effect and its record.
 */

/** Where records live and how long. One scope per consuming queue; the same id in two scopes is two records. */
export interface Scope {
  /** Name of the scope, normally the queue. */
  readonly name: string
  /** How long an ended (or idle) record is remembered, ms. */
  readonly retentionMs: number
  /** How long an owner may be silent before others may take its leases, ms. */
  readonly leaseMs: number
  /** How often a run may start without ever ending before the message is parked. */
  readonly maxStarts: number
}

/** Asks for the right to run one message. */
export interface Claim {
  readonly id: string
  /** SHA-256 of the body, or undefined where bodies are not compared. */
  readonly digest: Uint8Array | undefined
  /** Replay generation of this copy: 0 as first published, +1 per replay. */
  readonly generation: number
  /** Attempt number this copy carries, from 1. */
  readonly attempt: number
  /**
   * Grows with each delivery that an owner claims; a claim repeated with the same number (a lost reply) gets the same answer. One with
   * a lower number than the lease that its owner has comes late, and nobody waits for it: `leased`, and nothing changes.
   */
  readonly sequence: number
}

/** The answer to one claim. */
export type ClaimResult =
  /** Run it. `attempt` is the greater of the copy's and the record's. */
  | { readonly status: 'acquired'; readonly fencingToken: number; readonly attempt: number; readonly starts: number }
  /** Someone else runs it now, or must have the chance to say so; ask again in about `retryAfterMs`. */
  | { readonly status: 'leased'; readonly retryAfterMs: number }
  /**
   * The record has seen this copy's attempt fail; the copy's successor must be scheduled, not run at once. Where no attempt is left,
   * its letter is written (again), and then settled `dead` with this token, the record's last. Holds no lease.
   */
  | { readonly status: 'ahead'; readonly attempt: number; readonly fencingToken: number }
  /** Done. `completedAt` (epoch ms) may be rounded down to a minute. */
  | { readonly status: 'completed'; readonly completedAt: number }
  /** This generation was dead-lettered, or a newer generation was sent since: drop the copy. */
  | { readonly status: 'superseded'; readonly generation: number }
  /** Same id, other body. */
  | { readonly status: 'conflict' }
  /** Started `starts` times without an end: do not run it, park it, then settle `dead` with this token. Holds the lease as `acquired` does. */
  | { readonly status: 'exhausted'; readonly fencingToken: number; readonly starts: number; readonly attempt: number }

/** How a run ended. */
export type Ending =
  | { readonly state: 'completed' }
  /** The attempt failed; `nextAttempt` is what the record expects next. */
  | { readonly state: 'failed'; readonly nextAttempt: number }
  /** Handed back without a verdict (shutdown): the start does not count. */
  | { readonly state: 'returned' }
  /** A dead letter of this generation has been confirmed by the broker. */
  | { readonly state: 'dead'; readonly generation: number }

/** Ends one lease. */
export interface Settlement {
  readonly id: string
  readonly fencingToken: number
  readonly digest: Uint8Array | undefined
  readonly ending: Ending
}

/**
 * `settled`: recorded (also when repeated after a lost reply). `already`: the record was completed before; nothing changed.
 * `lost`: another owner has it, or another ending was recorded; nothing changed.
 */
export type SettleResult = 'settled' | 'already' | 'lost'

/** What a reader sees of a record. Reading changes nothing. */
export type RecordView =
  | { readonly state: 'absent' }
  | {
      readonly state: 'leased'
      readonly owner: string
      readonly attempt: number
      readonly generation: number
      readonly live: boolean
    }
  | { readonly state: 'released'; readonly attempt: number; readonly generation: number }
  | { readonly state: 'completed'; readonly completedAt: number }
  | { readonly state: 'dead'; readonly generation: number }

/**
 * Where records are kept. All methods reject with `StoreUnavailable` when the backend gives no certain answer;
 * a caller must treat that as "not acquired". Backends pass the contract suite of `surehop/testing`.
 */
export interface IdempotencyStore {
  /**
   * Claims many ids for one owner, each by itself; answers in the order asked. Also keeps the owner alive, at least where these
   * ids are kept. An id stands once in a call. An owner that was away (it is known, and more than half of its lease had gone) takes
   * nobody over in this call: a silent owner is remembered for an hour or longer, one that left is not. A claim that was rejected may have been granted all the same: repeat it with the
   * same `sequence` until it is answered, else others wait for as long as this owner lives.
   */
  claim(scope: Scope, owner: string, claims: readonly Claim[]): Promise<ClaimResult[]>
  /** Ends leases of one owner, each by itself; answers in the order asked. What was released by a failure may still end `dead`. */
  settle(scope: Scope, owner: string, settlements: readonly Settlement[]): Promise<SettleResult[]>
  /** One renewal per owner keeps all its leases; `lapsed` if it came too late (leases may have been taken over). With `leave`, the owner goes and its leases end now. */
  renew(scope: Scope, owner: string, options?: { readonly leave?: boolean }): Promise<'held' | 'lapsed'>
  /** Reads records, in the order asked; changes nothing. */
  look(scope: Scope, ids: readonly string[]): Promise<RecordView[]>
  /** Is the backend reachable, and set up so that it will not forget? Warnings are sentences for an operator. */
  check(): Promise<readonly string[]>
  /** Lets go of what the store opened itself. Harmless when repeated. */
  close(): Promise<void>
}
