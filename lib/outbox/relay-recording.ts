/**
 * Tells the table what could not be sent: rows to be tried again later, and rows given up on. Used by the relay's loop, and once more
 * when that has ended, so that it never meets a reading.
 * Promises: the rows stay in hand until the table has been told, and so their keys wait.
 * Does NOT promise that the table believes it: what is said beyond the lease has no effect there (see relay-table.ts).
 * Events: outbox.held, outbox.parked.
 */
import type { Events } from '../observability/events.ts'
import type { Book, Failure } from './relay-book.ts'
import type { Reading } from './relay-reading.ts'
import type { RelayedRow, RelayTable } from './relay-table.ts'

/** What recording is put together from. */
export interface RecordingParts {
  readonly book: Book<RelayedRow>
  readonly table: RelayTable
  readonly reading: Reading
  readonly events: Events
  /** Name of the outbox. */
  readonly outbox: string
}

/** The recording of one relay's failures. */
export class Recording {
  readonly #parts: RecordingParts

  constructor(parts: RecordingParts) {
    this.#parts = parts
  }

  async record(): Promise<void> {
    const { book, table, reading } = this.#parts
    book.forget()
    const { failures } = book
    if (failures.length === 0) return
    await table.failed(failures)
    reading.orphaned(book.recorded(failures))
    reading.heldIn(Math.min(...failures.map(({ verdict }) => verdict.delayMs)))
    for (const failure of failures) this.#tell(failure)
  }

  #tell({ entry, verdict }: Failure<RelayedRow>): void {
    const { events, outbox } = this.#parts
    const { message_id: messageId, transaction_id: transactionId } = entry.row
    const { state, attempts, delayMs, error } = verdict
    const ids = { outbox, messageId, transactionId }
    if (state === 'parked') events.emit('outbox.parked', { ...ids, attempts, error })
    else events.emit('outbox.held', { ...ids, attempt: attempts, delayMs, error })
  }
}
