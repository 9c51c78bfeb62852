import { expect } from 'chai'
import { Book } from '../../lib/outbox/relay-book.ts'
import { Floor } from '../../lib/outbox/relay-floor.ts'
import { Pace } from '../../lib/outbox/relay-pace.ts'
import { Reading } from '../../lib/outbox/relay-reading.ts'
import { askOf, type RelayedRow, RelayTable } from '../../lib/outbox/relay-table.ts'
import { Shards } from '../../lib/outbox/shards.ts'
import { eventually } from '../support/eventually.ts'
import { Relaying } from './relaying.ts'

/** Asked once a second, from second 0 on. */
function asked(floor: Floor, ...horizons: readonly (readonly [last: number, oldest: number, next: number])[]) {
  for (const [second, [last, oldest, next]] of horizons.entries())
    floor.asked({ server: 'a', last: BigInt(last), oldest: BigInt(oldest), next: BigInt(next) }, second * 1_000)
}

describe('the floor of a relay', () => {
  it('rises to a position when all transactions that began before it was passed have ended, and a look has left nothing', () => {
    const floor = new Floor()
    asked(floor, [100, 5, 5], [200, 8, 9])
    floor.looked(undefined)
    expect(floor.position).equal(0n)
    floor.asked({ server: 'a', last: 300n, oldest: 9n, next: 9n }, 2_000)
    expect(floor.position).equal(0n)
    floor.looked(40n)
    expect(floor.position).equal(40n)
    floor.looked(undefined)
    expect(floor.position).equal(100n)
    floor.looked(120n)
    expect(floor.position).equal(100n)
  })

  it('waits for an old transaction that writes', () => {
    const floor = new Floor()
    asked(floor, [100, 5, 9], [200, 5, 12], [300, 11, 20], [400, 11, 30])
    floor.looked(undefined)
    expect(floor.position).equal(0n)
    floor.asked({ server: 'a', last: 500n, oldest: 12n, next: 40n }, 4_000)
    floor.looked(undefined)
    expect(floor.position).equal(100n)
  })

  it('falls when rows were let go of, and rises again with the next look that leaves nothing', () => {
    const floor = new Floor()
    asked(floor, [100, 5, 5], [200, 6, 6], [300, 7, 7])
    floor.looked(undefined)
    floor.reset()
    expect(floor.position).equal(0n)
    floor.asked({ server: 'a', last: 400n, oldest: 9n, next: 9n }, 3_000)
    floor.looked(undefined)
    expect(floor.position).equal(200n)
  })

  it('falls every half minute', () => {
    const floor = new Floor()
    asked(floor, [100, 5, 5], [200, 6, 6], [300, 7, 7])
    floor.looked(undefined)
    expect(floor.position).equal(100n)
    floor.asked({ server: 'a', last: 400n, oldest: 7n, next: 7n }, 31_000)
    expect(floor.position).equal(0n)
  })

  it('falls when another server answers, which may give positions again, and rises by what that one says', () => {
    const floor = new Floor()
    asked(floor, [100, 5, 5], [200, 6, 6], [300, 7, 7])
    floor.looked(undefined)
    expect(floor.position).equal(100n)
    const other = { server: 'b', last: 90n, oldest: 7n, next: 7n }
    for (const [second, last] of [90n, 110n, 120n].entries()) {
      floor.asked({ ...other, last }, 3_000 + second * 1_000)
      if (second < 2) floor.looked(undefined)
      if (second < 2) expect(floor.position).equal(0n)
    }
    floor.looked(undefined)
    expect(floor.position).equal(90n)
  })
})

describe('the floor of a relay on a new table', function () {
  this.timeout(60_000)
  let r: Relaying
  beforeEach(async () => {
    r = await Relaying.open()
  })
  afterEach(() => r.close())

  it('does not rise over the first row, whose position the sequence names before it has given it', async () => {
    const of = { schema: r.schema.name, name: r.name, owner: 'me', keepSent: false }
    const table = new RelayTable(askOf(r.pool, r.schema.name, { ms: 10_000, late: () => new Error('late') }), of)
    const floor = new Floor()
    for (let second = 0; second < 4; second++) floor.asked(await table.horizon(), second * 1_000)
    floor.looked(undefined)
    expect(floor.position).equal(0n)
    await r.add({ queue: 'any', body: 'without a key' })
    const page = {
      shards: Array.from({ length: 64 }, (_, shard) => shard),
      hand: [],
      crowded: [],
      messages: 10,
      bytes: 10,
    }
    expect(await table.ready({ ...page, after: floor.position })).length(1)
    expect((await table.horizon()).last).equal(1n)
  })
})

describe('a relay, while an old transaction keeps what is dead', function () {
  this.timeout(60_000)
  let r: Relaying
  beforeEach(async () => {
    r = await Relaying.open()
  })
  afterEach(() => r.close())

  it('does not walk over what it has sent at each look', async () => {
    const queue = await r.queue()
    const arrivals = await r.arrivals(queue)
    const report = await r.pool.connect()
    await report.query('BEGIN ISOLATION LEVEL REPEATABLE READ')
    await report.query(`SELECT count(*) FROM ${r.schema.name}.outbox`)
    await r.relay({ pollMs: 20 })
    for (let n = 0; n < 4; n++)
      await r.add(...Array.from({ length: 1_000 }, (_, i) => ({ queue, body: n * 1_000 + i })))
    await arrivals.count(4_000)
    const looked = async () => {
      const [row] = await r.sql<{ scans: string; read: string }>(
        `SELECT idx_scan AS scans, idx_tup_read AS read FROM pg_stat_user_indexes
         WHERE schemaname = $1 AND indexrelname = 'outbox_ready'`,
        [r.schema.name],
      )
      return { scans: Number(row?.scans), read: Number(row?.read) }
    }
    const perLook = async () => {
      const before = await looked()
      return eventually(async () => {
        const after = await looked()
        expect(after.scans - before.scans).greaterThan(20)
        return (after.read - before.read) / (after.scans - before.scans)
      })
    }
    await eventually(async () => expect(await perLook()).lessThan(50), { withinMs: 20_000 })
    await report.query('COMMIT')
    report.release()
  })

  it('finds what was written before and commits later, with a key and without', async () => {
    const queue = await r.queue()
    const arrivals = await r.arrivals(queue)
    await r.relay({ pollMs: 20 })
    const writer = await r.pool.connect()
    await writer.query('BEGIN')
    await r.outbox.add(
      [
        { queue, body: 'without' },
        { queue, key: 'a', body: 'with' },
      ],
      writer,
    )
    for (let n = 0; n < 40; n++) {
      await r.add({ queue, key: 'a', body: n }, { queue, body: n })
      await arrivals.count(2 * n + 2)
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
    await writer.query('COMMIT')
    writer.release()
    await arrivals.count(82, 5_000)
    expect(arrivals.bodies('a').at(-1)).equal('with')
  })
})

/** The reading of one relay by hand: nothing happens but what the test says. No more than one row of a key is in hand. */
function readingByHand(r: Relaying, owner: string) {
  const { name, pool } = r
  const [schema, leaseMs] = [r.schema.name, 60_000]
  const ask = askOf(pool, schema, { ms: leaseMs, late: () => new Error('late') })
  const book = new Book<RelayedRow>({ windowMessages: 100, windowBytes: 100_000, perKey: 1 })
  const shards = new Shards({ ask, name, schema, owner, leaseMs, inHand: (shard) => book.has(shard) })
  const table = new RelayTable(ask, { schema, name, owner, keepSent: false })
  const of = { pace: new Pace(20), many: 1, pollMs: 20, leaseMs, onRead: () => {} }
  const lease = async () => {
    await shards.turn()
    book.keep(shards.holds)
  }
  return { book, shards, table, lease, reading: new Reading({ book, table, shards, ...of }) }
}

describe('a relay that loses its shards in the course of a look, and has them again before the next', function () {
  this.timeout(60_000)
  let r: Relaying
  beforeEach(async () => {
    r = await Relaying.open()
  })
  afterEach(() => r.close())

  const add = async (body: string) => (await r.add({ queue: 'any', key: 'a', body }))[0]!

  it('sends what could not be moved behind its key before what is committed later', async () => {
    const [one, two] = [readingByHand(r, 'one'), readingByHand(r, 'two')]
    await one.shards.create()
    await one.lease()
    const [, second] = [await add('first'), await add('second')]
    // While its key has enough in hand the second row is not read, and the floor may rise over it soon.
    let asked = 0
    const horizon = one.table.horizon.bind(one.table)
    one.table.horizon = () => {
      asked++
      return horizon()
    }
    await eventually(async () => {
      await one.reading.look()
      expect(asked).equal(4)
    })
    one.book.failed(one.book.next()!, { state: 'held', attempts: 1, delayMs: 3_600_000, error: new Error('no route') })
    await one.table.failed(one.book.failures)
    one.book.recorded(one.book.failures)
    // The next look meets the second row. Before that is held, too, the lease is over, and another relay has the shards.
    const hold = one.table.hold.bind(one.table)
    one.table.hold = async (rows, epochOf) => {
      expect(rows.map((row) => row.message_id)).deep.equal([second])
      await r.sql("UPDATE {schema}.outbox_relays SET until = '-infinity'")
      await r.sql("UPDATE {schema}.outbox_shards SET until = '-infinity'")
      await two.lease()
      await hold(rows, epochOf)
    }
    await one.reading.look()
    expect(await r.states()).deep.equal(['held', 'ready'])
    // That one sends the first row, and leaves.
    await r.sql("DELETE FROM {schema}.outbox WHERE state = 'held'")
    await two.shards.leave()
    await one.lease()
    await add('third')
    await one.reading.look()
    expect(one.book.next()?.row.message_id).equal(second)
  })
})
