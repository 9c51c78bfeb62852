/**
 * Takes what is confirmed out of the table, many rows at a time, beside the relay's loop: the rows stay in hand until the table knows,
 * so that no reading meets them.
 *
 *     idle ──landed()──▶ gathering (until many, or nothing flies, or 20 ms) ──▶ clearing ──▶ idle
 *                                                          ▲────failed, after a pause──┘
 *
 * Promises: one statement at a time; nothing confirmed is forgotten while the database is away.
 */
import type { Book } from './relay-book.ts'
import { Pace, pauseAfter } from './relay-pace.ts'
import type { RelayedRow, RelayTable } from './relay-table.ts'

/** What clearing is put together from. */
export interface ClearingParts {
  readonly book: Book<RelayedRow>
  readonly table: RelayTable
  /** So many rows are worth a statement at once. */
  readonly many: number
  /** Rows are out of hand; of these keys held rows may be left that nobody has in hand. */
  readonly onCleared: (keys: readonly string[]) => void
  /** The database could not be asked (an error), or could again (undefined). */
  readonly onProblem: (error: unknown) => void
}

const GATHER_MS = 20

/** The clearing of one relay. */
export class Clearing {
  readonly #parts: ClearingParts
  readonly #pace = new Pace(GATHER_MS)
  #running: Promise<void> | undefined
  #ended = false

  constructor(parts: ClearingParts) {
    this.#parts = parts
  }

  /** A flight has ended. */
  landed(): void {
    if (this.#ended || this.#parts.book.done.length === 0) return
    if (!this.#running) this.#running = this.#run()
    else if (this.#isWorth) this.#pace.wake()
  }

  /** Clears what is left, if the database lets it, and nothing any more. */
  async close(): Promise<void> {
    this.#ended = true
    this.#pace.wake()
    await this.#running
    await this.#clear().catch(() => {})
  }

  get #isWorth(): boolean {
    const { book, many } = this.#parts
    return book.flying === 0 || book.done.length >= many
  }

  async #run(): Promise<void> {
    const { book, onProblem } = this.#parts
    for (let failures = 0; book.done.length > 0 && !this.#ended; ) {
      const waitMs = failures > 0 ? pauseAfter(failures) : this.#isWorth ? 0 : GATHER_MS
      if (waitMs > 0) await this.#pace.until(performance.now() + waitMs)
      try {
        await this.#clear()
        if (failures > 0) onProblem(undefined)
        failures = 0
      } catch (error) {
        failures++
        onProblem(error)
      }
    }
    this.#running = undefined
  }

  async #clear(): Promise<void> {
    const { book, table, onCleared } = this.#parts
    const done = [...book.done]
    if (done.length === 0) return
    await table.sent(done)
    onCleared(book.cleared(done.length))
  }
}
