/**
 * Brings rows from the table into the book: ready ones, and held ones whose time has come. Used by the relay's loop alone, never
 * while failures are being recorded.
 * Promises: reads no more than there is room for, and not while there is little room, unless little by little is all there will be;
 * on a narrow line reads less at a time, so that what it reads arrives within the lease.
 */
import type { Book } from './relay-book.ts'
import { Floor } from './relay-floor.ts'
import type { Pace } from './relay-pace.ts'
import type { RelayedRow, RelayTable } from './relay-table.ts'
import type { Shards } from './shards.ts'

/** What reading is put together from. */
export interface ReadingParts {
  readonly book: Book<RelayedRow>
  readonly table: RelayTable
  readonly shards: Shards
  readonly pace: Pace
  /** So much room is worth a page at once. */
  readonly many: number
  readonly pollMs: number
  /** No page may take longer. */
  readonly leaseMs: number
  /** Rows were taken in hand. */
  readonly onRead: () => void
}

/** Rows read at a time: while these are published, the next are read. */
const PAGE = 500
/** After such a time a page is read also where little room is. */
const SPARSE_MS = 25
/** Bytes that are always asked for. */
const LEAST_BYTES = 65_536

/** The reading of one relay. */
export class Reading {
  readonly #parts: ReadingParts
  /** When held rows are looked for next. */
  #heldAt = 0
  /** Keys that held rows may be left of, and nobody tries. */
  readonly #orphaned = new Set<string>()
  readonly #floor = new Floor()
  /** As they were when the floor was last thought of. */
  #shards = ''
  #letGo = 0
  /** Bytes that a page may have. */
  #affordable = Number.MAX_SAFE_INTEGER

  constructor(parts: ReadingParts) {
    this.#parts = parts
  }

  /** When a look is due, on the monotonic clock. */
  get dueAt(): number {
    const { book, pace, many } = this.#parts
    const { messages, bytes } = book.room
    if (this.#orphaned.size > 0) return 0
    if (messages === 0 || bytes === 0) return Number.POSITIVE_INFINITY
    return messages >= many ? pace.dueAt : pace.dueAt + SPARSE_MS
  }

  /** Held rows are due in so many ms. */
  heldIn(ms: number): void {
    this.#heldAt = Math.min(this.#heldAt, performance.now() + ms)
  }

  /** Rows of these keys are gone: the next look sees to those behind them. */
  orphaned(keys: readonly string[]): void {
    for (const key of keys) this.#orphaned.add(key)
  }

  async look(): Promise<void> {
    const { book, pace, shards } = this.#parts
    await this.#promote()
    if (book.room.messages === 0 || book.room.bytes === 0) return
    const startedAt = performance.now()
    pace.looking()
    const reading = shards.reading
    await this.#lift(reading)
    const held = startedAt >= this.#heldAt ? await this.#held(reading) : 0
    const { messages, bytes } = book.room
    const limit = Math.min(PAGE, messages)
    const ready = messages > 0 && bytes > 0 ? await this.#ready(reading, limit, bytes) : 0
    const found = ready >= limit / 2 ? 'much' : ready + held > 0 ? 'some' : 'nothing'
    pace.looked(performance.now() - startedAt, found)
  }

  /** Learns from where to look. What is let go of in the course of a look is below the floor of the next. */
  async #lift(reading: readonly number[]): Promise<void> {
    const { book, table } = this.#parts
    const shards = reading.join()
    if (shards !== this.#shards || book.letGo !== this.#letGo) this.#floor.reset()
    this.#shards = shards
    this.#letGo = book.letGo
    if (this.#floor.isDue(performance.now())) this.#floor.asked(await table.horizon(), performance.now())
  }

  /** Rows that are tried again may take half of the room. */
  async #held(reading: readonly number[]): Promise<number> {
    const { book, table, shards, pollMs, onRead } = this.#parts
    this.#heldAt = performance.now() + pollMs
    const messages = Math.min(PAGE, Math.ceil(book.room.messages / 2))
    const bytes = Math.min(this.#affordable, Math.ceil(book.room.bytes / 2))
    const page = await this.#timed(bytes, table.due({ shards: reading, hand: book.positions, messages, bytes }))
    book.take(page, shards.epochOf)
    onRead()
    if (page.length > 0) this.#heldAt = 0
    return page.length
  }

  async #ready(reading: readonly number[], messages: number, room: number): Promise<number> {
    const { book, table, shards, onRead } = this.#parts
    const { positions: hand, crowded } = book
    const [after, bytes] = [this.#floor.position, Math.min(this.#affordable, room)]
    const page = await this.#timed(bytes, table.ready({ shards: reading, hand, crowded, messages, bytes, after }))
    const blocked = book.take(page, shards.epochOf)
    onRead()
    await this.#hold(blocked)
    const cut = page.length >= messages || bytesOf(page) >= bytes
    const nothingLeft = crowded.length === 0 && book.letGo === this.#letGo
    // What should become held may be ready still, if the lease is over: the floor stays below until a look does not meet it.
    const upTo = blocked[0] ? blocked[0].position - 1 : cut ? (page.at(-1)?.position ?? 0) : undefined
    if (nothingLeft) this.#floor.looked(upTo === undefined ? undefined : BigInt(upTo))
    return page.length
  }

  /**
   * One that took long, or did not come, is followed by less: the same again would take as long for ever. One that was soon there is
   * followed by more, if there was much in it: what is nearly empty says nothing of the line.
   */
  async #timed(bytes: number, asked: Promise<RelayedRow[]>): Promise<RelayedRow[]> {
    const { leaseMs } = this.#parts
    const startedAt = performance.now()
    let page: RelayedRow[] = []
    try {
      page = await asked
      return page
    } finally {
      const tookMs = performance.now() - startedAt
      if (tookMs > leaseMs / 4) this.#affordable = Math.max(LEAST_BYTES, Math.floor(bytes / 4))
      else if (tookMs < leaseMs / 16 && bytesOf(page) >= bytes / 2)
        this.#affordable = Math.min(Number.MAX_SAFE_INTEGER, this.#affordable * 2)
    }
  }

  /** Moved once, so that not every look goes over all rows of a key that waits. */
  async #hold(blocked: readonly RelayedRow[]): Promise<void> {
    if (blocked.length === 0) return
    await this.#parts.table.hold(blocked, this.#parts.shards.epochOf)
    this.orphaned(blocked.map(({ key }) => key!))
    await this.#promote()
  }

  async #promote(): Promise<void> {
    if (this.#orphaned.size === 0) return
    const keys = [...this.#orphaned]
    // Before the statement: a key that is named again while it is under way is seen to again.
    this.#orphaned.clear()
    await this.#parts.table.promote(keys).catch((error: unknown) => {
      this.orphaned(keys)
      throw error
    })
    this.#heldAt = 0
  }
}

function bytesOf(page: readonly RelayedRow[]): number {
  return page.reduce((sum, { bytes }) => sum + bytes, 0)
}
