/**
 * Publishes whatever the book lets fly, and enters in it how each flight ended. Emits outbox.sent.
 * Promises: nothing starts while `mayFly` says no; what could not be sent through no fault of its own is not tried again at once.
 */
import { PublishFailed } from '../errors.ts'
import type { Events } from '../observability/events.ts'
import type { Book, Entry } from './relay-book.ts'
import type { Sender } from './relay-send.ts'
import type { RelayedRow } from './relay-table.ts'

/** What flights are put together from. */
export interface FlightsParts {
  readonly book: Book<RelayedRow>
  readonly sender: Sender
  readonly events: Events
  readonly outbox: string
  readonly mayFly: () => boolean
  /** The relay closes: what has no answer now is nobody's failure. */
  readonly isClosing: () => boolean
  readonly onLanded: () => void
  /** More rows of a key may be read, which had many in hand. */
  readonly onRoom: () => void
}

/** Rows that could not be sent through no fault of theirs are tried again after so long, unless the connection changes before. */
const AGAIN_MS = 250

/** The publishes of one relay. */
export class Flights {
  readonly #parts: FlightsParts
  #startFrom = 0

  constructor(parts: FlightsParts) {
    this.#parts = parts
  }

  /** When rows that wait for a better moment may start, on the monotonic clock. */
  get startFrom(): number {
    return this.#startFrom
  }

  /** The broker is back: rows may start now. */
  resume(): void {
    this.#startFrom = 0
    this.pump()
  }

  pump(): void {
    const { book, mayFly } = this.#parts
    if (performance.now() < this.#startFrom || !mayFly()) return
    for (let entry = book.next(); entry; entry = book.next()) this.#start(entry)
  }

  #start(entry: Entry<RelayedRow>): void {
    this.#parts.sender.send(entry.row).then(
      () => this.#confirmed(entry),
      (error: unknown) => this.#failed(entry, error),
    )
  }

  #confirmed(entry: Entry<RelayedRow>): void {
    const { book, sender, events, onRoom } = this.#parts
    if (book.confirmed(entry)) onRoom()
    sender.forget(entry.row)
    if (events.wanted('outbox.sent')) this.#tell(entry.row)
    this.#landed()
  }

  #failed(entry: Entry<RelayedRow>, error: unknown): void {
    const { book, sender, isClosing } = this.#parts
    const unanswered = isClosing() && error instanceof PublishFailed && error.retryable
    const verdict = unanswered ? 'again' : sender.judge(entry.row, error)
    if (verdict === 'again') {
      this.#startFrom = performance.now() + AGAIN_MS
      book.again(entry)
    } else book.failed(entry, verdict)
    this.#landed()
  }

  #landed(): void {
    this.pump()
    this.#parts.onLanded()
  }

  #tell(row: RelayedRow): void {
    const { message_id: messageId, transaction_id: transactionId, exchange, routing_key: routingKey } = row
    const { events, outbox } = this.#parts
    const ageMs = row.ageMs + performance.now() - row.readAt
    events.emit('outbox.sent', { outbox, messageId, transactionId, exchange, routingKey, ageMs })
  }
}
