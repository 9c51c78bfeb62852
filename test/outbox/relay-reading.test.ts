// How much a relay reads at a time, over a line of a known width and by a clock of its own.

import { expect } from 'chai'
import { Book } from '../../lib/outbox/relay-book.ts'
import { Pace } from '../../lib/outbox/relay-pace.ts'
import { Reading } from '../../lib/outbox/relay-reading.ts'
import { type Ask, type RelayedRow, RelayTable } from '../../lib/outbox/relay-table.ts'
import { Shards } from '../../lib/outbox/shards.ts'

const LEASE_MS = 10_000
const ROW_BYTES = 100_000
/** Of the line: five rows in a lease. */
const BYTES_PER_MS = (5 * ROW_BYTES) / LEASE_MS

/** A table behind that line. */
class Far {
  backlog = 0
  now = 0
  #position = 0

  readonly ask: Ask = async (sql, parameters) => {
    await Promise.resolve()
    if (sql.includes('outbox_ready_page')) return this.#page(Number(parameters[5]))
    if (sql.includes('outbox_shards SET until')) return [{ shard: 0, epoch: 1 }]
    return sql.includes('outbox_position') ? [{ server: 'one', last: 0, oldest: 1, next: 1 }] : []
  }

  #page(bytes: number) {
    const rows = Math.min(this.backlog, Math.max(1, Math.floor(bytes / ROW_BYTES)))
    const tookMs = (rows * ROW_BYTES) / BYTES_PER_MS
    this.now += Math.min(LEASE_MS, tookMs)
    if (tookMs > LEASE_MS) throw new Error('no answer in time')
    this.backlog -= rows
    return Array.from({ length: rows }, () => ({ position: ++this.#position, shard: 0, key: null, size: ROW_BYTES }))
  }
}

describe('the reading of a relay', () => {
  const { now } = performance
  afterEach(() => {
    performance.now = now
  })

  it('keeps to what a narrow line carries, also when it was idle for a while', async () => {
    const far = new Far()
    performance.now = () => far.now
    const book = new Book<RelayedRow>({ windowMessages: 1_000, windowBytes: 2 ** 24, perKey: 64 })
    const names = { schema: 'surehop', name: 'orders', owner: 'me' }
    const table = new RelayTable(far.ask, { ...names, keepSent: false })
    const shards = new Shards({ ask: far.ask, ...names, leaseMs: LEASE_MS, inHand: () => false })
    await shards.turn()
    const times = { pollMs: 500, leaseMs: LEASE_MS }
    const reading = new Reading({ book, table, shards, pace: new Pace(500), many: 1, ...times, onRead: () => {} })
    /** How many pages did not come in time, until all was read. */
    const failures = async () => {
      let failed = 0
      far.backlog = 40
      const late = () => {
        failed++
      }
      for (let look = 0; look < 100 && far.backlog > 0; look++) await reading.look().catch(late)
      return failed
    }
    expect(await failures()).within(1, 3)
    for (let look = 0; look < 100; look++) {
      far.now += 500
      await reading.look()
    }
    expect(await failures()).equal(0)
    expect(book.count).equal(80)
  })
})
