/**
 * Tells relays that there may be something to send: those of this process by a call, others by NOTIFY on a pool.
 *
 * Promises: costs the caller's transactions nothing (a NOTIFY inside each writing transaction would make their commits wait for
 * each other, since Postgres orders them by one lock); one NOTIFY at a time, at most 20 a second, whatever is added.
 * Does NOT promise that a hint arrives, or that the transaction has committed when it does: relays look by themselves.
 */
import type { SqlPool } from '../sql/client.ts'

/** The channel that relays LISTEN on; the payload is `<schema>.<outbox>`. */
export const HINT_CHANNEL = 'surehop_outbox'

/** `added`: perhaps not committed yet; `committed`: rows are there. */
export type Hint = 'added' | 'committed'

/** Is told of rows; must not throw. */
export type HintListener = (hint: Hint) => void

/** After an `add()` the commit is usually close. */
const COMMIT_LIKELY_MS = 3
const PAUSE_MS = 50

/** The hints of one outbox. */
export class Hints {
  readonly #pool: SqlPool | undefined
  readonly #payload: string
  readonly #listeners = new Set<HintListener>()
  #wanted = false
  /** A NOTIFY is under way, or its pause, or the wait for the commit. */
  #busy = false

  constructor(pool: SqlPool | undefined, payload: string) {
    this.#pool = pool
    this.#payload = payload
  }

  listen(listener: HintListener): () => void {
    this.#listeners.add(listener)
    return () => void this.#listeners.delete(listener)
  }

  added(): void {
    this.#tell('added')
    this.#wanted = true
    if (this.#pool && !this.#busy) this.#later(COMMIT_LIKELY_MS)
  }

  committed(): void {
    this.#tell('committed')
    this.#wanted = true
    if (this.#pool && !this.#busy) void this.#notify(this.#pool)
  }

  #tell(hint: Hint): void {
    for (const listener of this.#listeners) listener(hint)
  }

  #later(ms: number): void {
    this.#busy = true
    const turn = () => {
      this.#busy = false
      if (this.#pool && this.#wanted) void this.#notify(this.#pool)
    }
    setTimeout(turn, ms).unref()
  }

  async #notify(pool: SqlPool): Promise<void> {
    this.#busy = true
    this.#wanted = false
    try {
      await pool.query('SELECT pg_notify($1, $2)', [HINT_CHANNEL, this.#payload])
    } catch {
      // Relays look by themselves.
    }
    this.#later(PAUSE_MS)
  }
}
