/**
 * The loop of a relay: what it does turn after turn, and when the next turn is due.
 *
 *     one turn, nothing of it ever overlapping:   record failures ──▶ lease ──▶ upkeep ──▶ read ──▶ rest
 *
 * Promises: a database that fails is left alone for a growing pause; a broker out of reach for longer than a lease costs the relay its
 * share, which others may send, until it is back; when closing, the loop ends as soon as nothing flies, or when the time for that is over.
 * Publishing and clearing go on beside it (see relay-flights.ts, relay-clearing.ts); they wake it when there is something to do.
 */
import type { Book } from './relay-book.ts'
import type { Condition } from './relay-condition.ts'
import type { Flights } from './relay-flights.ts'
import { type Pace, pauseAfter } from './relay-pace.ts'
import type { Reading } from './relay-reading.ts'
import type { Recording } from './relay-recording.ts'
import type { RelayedRow } from './relay-table.ts'
import type { Upkeep } from './relay-upkeep.ts'
import type { Shards } from './shards.ts'

/** What a loop is put together from. */
export interface LoopParts {
  readonly condition: Condition
  readonly book: Book<RelayedRow>
  readonly shards: Shards
  readonly flights: Flights
  readonly recording: Recording
  readonly reading: Reading
  readonly upkeep: Upkeep
  readonly pace: Pace
}

const NEVER = Number.POSITIVE_INFINITY

/** The turns of one relay. */
export class Loop {
  readonly #parts: LoopParts

  constructor(parts: LoopParts) {
    this.#parts = parts
  }

  /** Turns until the relay is closing and nothing flies any more. Never rejects. */
  async run(): Promise<void> {
    const { condition, pace } = this.#parts
    for (let failures = 0; !this.#isDrained; ) {
      try {
        await this.#turn()
        failures = 0
        condition.asked('loop', undefined)
      } catch (error) {
        failures++
        condition.asked('loop', error)
      }
      this.#judge()
      await pace.until(failures === 0 ? this.#nextAt : performance.now() + pauseAfter(failures))
    }
  }

  /** Takes and renews our share; what it has cost us is let go of. Also once before the loop runs. */
  async lease(): Promise<void> {
    const { book, shards, flights, upkeep, reading, pace } = this.#parts
    const fresh = await shards.turn()
    book.keep(shards.holds)
    flights.pump()
    if (fresh.length === 0) return
    upkeep.tookOver()
    reading.heldIn(0)
    pace.hint('committed')
  }

  /** The connection to the broker has changed. */
  brokerChanged(): void {
    const { condition, shards, flights } = this.#parts
    const broker = condition.brokerChanged()
    if (broker === 'back') shards.hurry()
    if (broker !== 'away') flights.resume()
    this.conditionChanged()
  }

  /** More may be done than before, or less. */
  conditionChanged(): void {
    this.#judge()
    this.#parts.pace.wake()
  }

  #judge(): void {
    const { condition, flights } = this.#parts
    condition.judge()
    flights.pump()
  }

  async #turn(): Promise<void> {
    const { condition, shards, recording, upkeep, reading } = this.#parts
    if (this.#isAbandoned) return this.#abandon()
    await recording.record()
    if (performance.now() >= shards.dueAt) await this.lease()
    await shards.release()
    if (condition.isClosing) return
    await upkeep.turn()
    if (this.#mayRead && performance.now() >= reading.dueAt) await reading.look()
  }

  /** When there is something to do, unless the loop is woken. */
  get #nextAt(): number {
    const { condition, shards, flights, reading, upkeep } = this.#parts
    if (this.#isAbandoned) return NEVER
    const common = Math.min(shards.dueAt, condition.abandonAt)
    if (condition.isClosing) return Math.min(common, condition.drainUntil)
    const readAt = this.#mayRead ? reading.dueAt : NEVER
    const { startFrom } = flights
    return Math.min(common, readAt, startFrom > performance.now() ? startFrom : NEVER, upkeep.dueAt)
  }

  get #mayRead(): boolean {
    const { condition, shards } = this.#parts
    return condition.problem === undefined && shards.isSafe
  }

  get #isDrained(): boolean {
    const { condition, book } = this.#parts
    return condition.isClosing && (book.flying === 0 || performance.now() >= condition.drainUntil)
  }

  get #isAbandoned(): boolean {
    const { condition } = this.#parts
    return !condition.isClosing && performance.now() > condition.abandonAt
  }

  async #abandon(): Promise<void> {
    const { book, shards } = this.#parts
    if (shards.count === 0) return
    book.keep(() => false)
    await shards.leave()
  }
}
