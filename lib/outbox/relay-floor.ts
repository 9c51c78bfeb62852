/**
 * From which position on a relay needs to look for ready rows. Rows that were sent are dead, and Postgres keeps their index entries
 * for as long as any transaction, of whatever database user, is older (a dump, a report): without a floor each look would walk
 * over all of them, an hour's worth of messages after an hour. Pure.
 *
 *     asked: the last position is P ──▶ asked: transactions up to X have begun ──▶ asked: all of those have ended
 *       ──▶ a look that leaves nothing below ──▶ floor P
 *
 * Why nothing with a key appears below the floor later: whoever commits after that look began after P was seen, and positions are
 * given at commit. A row without a key gets its position a moment before its transaction gets its id; one that slipped through that
 * moment is found, like rows that somebody put into the table by hand, by the look from 0 every half minute.
 */

/** What the database says of now. */
export interface Horizon {
  /** Another text, another server. */
  readonly server: string
  /** The last position given. */
  readonly last: bigint
  /** Every transaction with a smaller id has ended. */
  readonly oldest: bigint
  /** Every transaction that has begun has a smaller id. */
  readonly next: bigint
}

const ASK_MS = 1_000
const FULL_MS = 30_000

/** The floor of one relay. */
export class Floor {
  #position = 0n
  /** The last position, as it was when asked before. */
  #before: bigint | undefined
  /** May become the floor when all transactions before `next` have ended. */
  #candidate: { readonly last: bigint; readonly next: bigint } | undefined
  /** What the floor may rise to when a look leaves nothing below. */
  #ripe: bigint | undefined
  #server = ''
  #askedAt = Number.NEGATIVE_INFINITY
  #fullAt = Number.NEGATIVE_INFINITY

  /** Look from here on, not including it. */
  get position(): bigint {
    return this.#position
  }

  /** Should the horizon be asked before the next look? */
  isDue(now: number): boolean {
    return now - this.#askedAt >= ASK_MS
  }

  asked(horizon: Horizon, now: number): void {
    this.#askedAt = now
    if (horizon.server !== this.#server) this.#forget()
    this.#server = horizon.server
    if (now - this.#fullAt >= FULL_MS) {
      this.#position = 0n
      this.#fullAt = now
    }
    const last = this.#before
    this.#before = horizon.last
    if (this.#candidate && horizon.oldest < this.#candidate.next) return
    if (this.#candidate) this.#ripe = this.#candidate.last
    // Seen by an earlier statement than the transactions: in one, somebody could begin after the one and be numbered before the other.
    if (last !== undefined) this.#candidate = { last, next: horizon.next }
  }

  /** @param upTo all ready rows of our shards up to this position are in hand since this look; undefined: all there are */
  looked(upTo: bigint | undefined): void {
    if (this.#ripe === undefined) return
    const reached = upTo !== undefined && upTo < this.#ripe ? upTo : this.#ripe
    if (reached > this.#position) this.#position = reached
  }

  /** Another server, or a backup of it, may have lost the last commits, and give positions again that were passed. */
  #forget(): void {
    this.#position = 0n
    this.#before = undefined
    this.#candidate = undefined
    this.#ripe = undefined
  }

  /** Rows below are to be looked for again: other shards, or rows that were let go of. */
  reset(): void {
    this.#position = 0n
  }
}
