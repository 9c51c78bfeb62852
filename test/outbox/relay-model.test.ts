// The book and the floor of a relay against a simulated table and broker: up to three relays, leases that change hands, crashes, lost
// answers, relays that act beyond their lease, and an operator. Looks go from the floor on, as in relay-reading.ts; rows that an
// operator or a lease turn lets go of below it must be found all the same.

import fc from 'fast-check'
import { Book, type BookRow, type Entry, type Failure } from '../../lib/outbox/relay-book.ts'
import { Floor, type Horizon } from '../../lib/outbox/relay-floor.ts'

const KEYS = ['a', 'b', undefined] as const
const RELAYS = 3
const SHARDS = 2
const PER_KEY = 4
const ATTEMPTS = 3
const PAGE = 6

interface Stored {
  readonly position: number
  readonly key: string | undefined
  readonly shard: number
  state: 'ready' | 'held' | 'parked'
  notBefore: number
  attempts: number
}

interface Flight {
  readonly relay: number
  readonly book: Book<BookRow>
  readonly entry: Entry<BookRow>
  arrived: boolean
}

/** What the statements of relay-table.ts and shards.ts do, in memory. */
class Table {
  rows = new Map<number, Stored>()
  readonly leases = Array.from({ length: SHARDS }, () => ({ owner: -1, epoch: 0 }))
  now = 0
  #last = 0

  insert(key: string | undefined): number {
    const position = ++this.#last
    const shard = key === 'b' ? 1 : 0
    this.rows.set(position, { position, key, shard, state: 'ready', notBefore: 0, attempts: 0 })
    return position
  }

  /** Each transaction gives one position, and is over at once: the floor rises as fast as it may. */
  get horizon(): Horizon {
    const next = BigInt(this.#last + 1)
    return { server: 'one', last: BigInt(this.#last), oldest: next, next }
  }

  ready(
    shards: readonly number[],
    { hand, crowded, after }: { hand: Set<number>; crowded: readonly string[]; after: bigint },
  ): BookRow[] {
    const rows = this.#of('ready').filter(
      ({ shard, position }) => shards.includes(shard) && !hand.has(position) && position > after,
    )
    const wanted = rows.filter(({ key }) => key === undefined || !crowded.includes(key)).slice(0, PAGE)
    return wanted.map((row) => {
      const before = this.#heldOf(row.key).some(({ position }) => !hand.has(position))
      return bookRow(row, row.key !== undefined && before)
    })
  }

  due(shards: readonly number[], hand: Set<number>): BookRow[] {
    const heads = this.#of('held').filter(
      (row) => shards.includes(row.shard) && !hand.has(row.position) && row.notBefore <= this.now && this.#isFirst(row),
    )
    const chains = heads.flatMap((head) => (head.key === undefined ? [head] : this.#heldOf(head.key).slice(0, PER_KEY)))
    return chains.slice(0, PAGE).map((row) => bookRow(row, false))
  }

  sent(rows: readonly BookRow[]): void {
    for (const { position } of rows) this.rows.delete(position)
  }

  failed(relay: number, failures: readonly Failure<BookRow>[]): void {
    for (const { entry, verdict, followers } of failures) {
      this.#putOff(relay, entry.row, entry.epoch, (row) => {
        row.state = verdict.state
        row.attempts = verdict.attempts
        row.notBefore = this.now + verdict.delayMs
      })
      if (verdict.state === 'held') this.hold(relay, followers)
    }
  }

  hold(relay: number, rows: readonly Pick<Entry<BookRow>, 'row' | 'epoch'>[]): void {
    for (const { row, epoch } of rows)
      this.#putOff(relay, row, epoch, (stored) => {
        stored.state = 'held'
        stored.notBefore = Number.POSITIVE_INFINITY
      })
  }

  promote(keys: readonly string[]): void {
    for (const key of keys) {
      const [first] = this.#heldOf(key)
      if (first?.notBefore === Number.POSITIVE_INFINITY) first.notBefore = this.now
    }
  }

  repair(): void {
    this.promote(['a', 'b'])
  }

  #putOff(relay: number, { position, attempts }: BookRow, epoch: number, change: (row: Stored) => void): void {
    const row = this.rows.get(position)
    if (!row || row.state === 'parked' || row.attempts !== attempts) return
    const lease = this.leases[row.shard]!
    if (lease.owner === relay && lease.epoch === epoch) change(row)
  }

  #of(state: string): Stored[] {
    return [...this.rows.values()].filter((row) => row.state === state).sort((a, b) => a.position - b.position)
  }

  #heldOf(key: string | undefined): Stored[] {
    return this.#of('held').filter((row) => row.key === key)
  }

  #isFirst(row: Stored): boolean {
    return row.key === undefined || this.#heldOf(row.key)[0] === row
  }
}

function bookRow({ position, key, shard, attempts, state }: Stored, blocked: boolean): BookRow {
  return { position, key, shard, attempts, held: state === 'held', blocked, bytes: 1 }
}

/** One relay: what it believes, which may be out of date. */
class Relay {
  readonly id: number
  readonly table: Table
  book = new Book<BookRow>({ windowMessages: 12, windowBytes: 100, perKey: PER_KEY })
  epochs = new Map<number, number>()
  floor = new Floor()
  /** A page that was read, and whose answer is under way. */
  page: Page | undefined
  /** As they were when the floor was last thought of. */
  #shards = ''
  #letGo = 0

  constructor(id: number, table: Table) {
    this.id = id
    this.table = table
  }

  /** A lease turn: learns what is its own. */
  learn(): void {
    if (this.page) return
    this.epochs.clear()
    for (const [shard, { owner, epoch }] of this.table.leases.entries())
      if (owner === this.id) this.epochs.set(shard, epoch)
    this.book.keep((shard, epoch) => this.epochs.get(shard) === epoch)
  }

  ask(held: boolean): void {
    if (this.page) return
    const hand = new Set(this.book.positions)
    const shards = [...this.epochs.keys()]
    this.#lift(shards.join())
    const { crowded, room } = this.book
    const after = this.floor.position
    const found = held ? this.table.due(shards, hand) : this.table.ready(shards, { hand, crowded, after })
    const limit = Math.min(PAGE, room.messages)
    const rows = found.slice(0, limit)
    this.page = { rows, held, cut: rows.length >= limit }
  }

  #lift(shards: string): void {
    if (shards !== this.#shards || this.book.letGo !== this.#letGo) this.floor.reset()
    this.#shards = shards
    this.#letGo = this.book.letGo
    // A relay that has no other trouble finds by its half-minute look what a fault here would leave behind: not this one.
    this.floor.asked(this.table.horizon, 0)
  }

  answer(): void {
    if (!this.page) return
    const epochOf = (shard: number) => this.epochs.get(shard)
    const { rows, held, cut } = this.page
    const blocked = this.book.take(rows, epochOf)
    this.page = undefined
    if (!held) this.#looked(rows, blocked, cut)
    this.table.hold(
      this.id,
      blocked.map((row) => ({ row, epoch: epochOf(row.shard) ?? -1 })),
    )
    this.table.promote(blocked.map(({ key }) => key!))
  }

  #looked(rows: readonly BookRow[], blocked: readonly BookRow[], cut: boolean): void {
    const upTo = blocked[0] ? blocked[0].position - 1 : cut ? (rows.at(-1)?.position ?? 0) : undefined
    if (this.book.crowded.length > 0 || this.book.letGo !== this.#letGo) return
    this.floor.looked(upTo === undefined ? undefined : BigInt(upTo))
  }

  clear(lost: boolean): void {
    const { done } = this.book
    this.table.sent(done.map(({ row }) => row))
    if (!lost) this.table.promote(this.book.cleared(done.length))
  }

  record(lost: boolean): void {
    if (this.page) return
    this.book.forget()
    const { failures } = this.book
    this.table.failed(this.id, failures)
    if (!lost) this.table.promote(this.book.recorded(failures))
  }

  crash(): void {
    this.book = new Book<BookRow>({ windowMessages: 12, windowBytes: 100, perKey: PER_KEY })
    this.epochs.clear()
    this.page = undefined
    this.floor = new Floor()
  }
}

interface Page {
  readonly rows: readonly BookRow[]
  readonly held: boolean
  /** There may be more. */
  readonly cut: boolean
}

class World {
  readonly table = new Table()
  readonly relays = Array.from({ length: RELAYS }, (_, id) => new Relay(id, this.table))
  flights: Flight[] = []
  readonly committed: { readonly position: number; readonly key: string | undefined }[] = []
  readonly arrivals = new Map<string, number[]>()
  readonly arrived = new Set<number>()
  /** Given up on, by us or by the operator: no order is promised to them. */
  readonly givenUp = new Set<number>()

  commit(key: string | undefined): void {
    this.committed.push({ position: this.table.insert(key), key })
  }

  take(shard: number, relay: number): void {
    const lease = this.table.leases[shard]!
    lease.owner = relay
    lease.epoch++
  }

  fly(relay: Relay): void {
    for (let entry = relay.book.next(); entry; entry = relay.book.next()) {
      const { row } = entry
      const before = this.committed.filter(({ key, position }) => key === row.key && position < row.position)
      const unsent = before.find(({ position }) => !this.arrived.has(position) && !this.givenUp.has(position))
      if (row.key !== undefined && unsent && !this.givenUp.has(row.position))
        throw new Error(`row ${row.position} of ${row.key} is sent before ${unsent.position} is confirmed`)
      this.flights.push({ relay: relay.id, book: relay.book, entry, arrived: false })
    }
  }

  arrive(flight: Flight): void {
    flight.arrived = true
    const { position, key } = flight.entry.row
    if (this.arrived.has(position)) return
    this.arrived.add(position)
    if (key === undefined) return
    const order = this.arrivals.get(key) ?? []
    if (!this.givenUp.has(position)) order.push(position)
    this.arrivals.set(key, order)
  }

  land(flight: Flight, how: 'confirmed' | 'returned' | 'unknown' | 'not-sent'): void {
    const { book, entry } = flight
    if (how === 'confirmed' && !flight.arrived) this.arrive(flight)
    if (how === 'returned' && flight.arrived) return
    this.flights = this.flights.filter((other) => other !== flight)
    // Without an answer it may arrive yet.
    if (how === 'unknown' && !flight.arrived) this.flights.push({ ...flight, book: new Book(NO_BOUNDS) })
    if (book !== this.relays[flight.relay]!.book) return
    if (how === 'confirmed') book.confirmed(entry)
    else if (how === 'not-sent') book.again(entry)
    else book.failed(entry, verdictOf(entry.row, how))
  }

  /** The table says parked: from now on it may come at any time. */
  noteGivenUp(): void {
    for (const { position } of this.committed) {
      const row = this.table.rows.get(position)
      if (row?.state === 'parked' || (!row && !this.arrived.has(position))) this.givenUp.add(position)
    }
  }

  /** No more trouble: one relay, which lives on with its book and floor, and a working broker. */
  heal(): void {
    const [relay, ...others] = this.relays as [Relay, ...Relay[]]
    for (const other of others) other.crash()
    relay.answer()
    for (let shard = 0; shard < SHARDS; shard++) this.take(shard, 0)
    relay.learn()
    for (let round = 0; round < 1_000 && this.#isBusy; round++) {
      this.table.now += 1_000
      this.table.repair()
      for (const held of [true, false]) {
        relay.ask(held)
        relay.answer()
      }
      this.fly(relay)
      for (const flight of [...this.flights]) this.land(flight, 'confirmed')
      relay.clear(false)
      relay.record(false)
    }
  }

  get #isBusy(): boolean {
    return [...this.table.rows.values()].some(({ state }) => state !== 'parked')
  }

  check(): void {
    for (const [key, order] of this.arrivals) {
      const sorted = [...order].sort((a, b) => a - b)
      if (order.join() !== sorted.join()) throw new Error(`rows of ${key} arrived in the order ${order}`)
    }
  }

  checkAll(): void {
    for (const { position } of this.committed)
      if (!this.arrived.has(position) && !this.givenUp.has(position)) throw new Error(`row ${position} is lost`)
    const left = [...this.table.rows.values()].filter(({ state }) => state !== 'parked')
    if (left.length > 0) throw new Error(`rows ${left.map((row) => `${row.position} ${row.state}`)} stay in the table`)
  }
}

const NO_BOUNDS = { windowMessages: 1, windowBytes: 1, perKey: 1 }

function verdictOf({ attempts }: BookRow, how: string) {
  const error = new Error(how)
  if (how === 'unknown') return { state: 'held' as const, attempts, delayMs: 1, error }
  return {
    state: attempts + 1 >= ATTEMPTS ? ('parked' as const) : ('held' as const),
    attempts: attempts + 1,
    delayMs: 1,
    error,
  }
}

type Step = (world: World) => void

const relayOf = fc.nat({ max: RELAYS - 1 })
const landings = fc.constantFrom('confirmed', 'confirmed', 'confirmed', 'returned', 'unknown', 'not-sent' as const)

const steps: fc.Arbitrary<Step>[] = [
  fc.constantFrom(...KEYS).map((key) => (world: World) => world.commit(key)),
  fc.tuple(fc.constantFrom(...KEYS), fc.integer({ min: 2, max: 7 })).map(([key, count]) => (world: World) => {
    for (let i = 0; i < count; i++) world.commit(key)
  }),
  fc.tuple(fc.nat({ max: SHARDS - 1 }), relayOf).map(
    ([shard, relay]) =>
      (world: World) =>
        world.take(shard, relay),
  ),
  relayOf.map((id) => (world: World) => world.relays[id]!.learn()),
  fc.tuple(relayOf, fc.boolean()).map(
    ([id, held]) =>
      (world: World) =>
        world.relays[id]!.ask(held),
  ),
  relayOf.map((id) => (world: World) => world.relays[id]!.answer()),
  fc.tuple(relayOf, fc.boolean()).map(([id, held]) => (world: World) => {
    world.relays[id]!.ask(held)
    world.relays[id]!.answer()
    world.fly(world.relays[id]!)
  }),
  relayOf.map((id) => (world: World) => world.fly(world.relays[id]!)),
  fc.nat().map((n) => (world: World) => {
    const waiting = world.flights.filter(({ arrived }) => !arrived)
    if (waiting.length > 0) world.arrive(waiting[n % waiting.length]!)
  }),
  fc.tuple(fc.nat(), landings).map(([n, how]) => (world: World) => {
    if (world.flights.length > 0) world.land(world.flights[n % world.flights.length]!, how as 'confirmed')
  }),
  landings.map((how) => (world: World) => {
    for (const flight of [...world.flights]) world.land(flight, how as 'confirmed')
  }),
  fc.tuple(relayOf, fc.boolean()).map(
    ([id, lost]) =>
      (world: World) =>
        world.relays[id]!.clear(lost),
  ),
  fc.tuple(relayOf, fc.boolean()).map(([id, lost]) => (world: World) => {
    world.relays[id]!.record(lost)
    world.noteGivenUp()
  }),
  relayOf.map((id) => (world: World) => world.relays[id]!.crash()),
  fc.integer({ min: 1, max: 3 }).map((ms) => (world: World) => {
    world.table.now += ms
  }),
  fc.constant((world: World) => world.table.repair()),
]

/** An operator takes rows away: parks or drops them, without a thought for those behind. */
const operating: fc.Arbitrary<Step> = fc.tuple(fc.nat(), fc.boolean()).map(([n, drop]) => (world: World) => {
  const rows = [...world.table.rows.values()]
  const row = rows[n % Math.max(1, rows.length)]
  if (!row) return
  world.givenUp.add(row.position)
  if (drop) world.table.rows.delete(row.position)
  else row.state = 'parked'
})

/** A parked row is tried again. */
const retrying: fc.Arbitrary<Step> = fc.nat().map((n) => (world: World) => {
  const rows = [...world.table.rows.values()].filter(({ state }) => state === 'parked')
  const row = rows[n % Math.max(1, rows.length)]
  if (row) Object.assign(row, { state: 'held', attempts: 0, notBefore: row.key ? Number.POSITIVE_INFINITY : 0 })
  if (row?.key) world.table.promote([row.key])
})

function run(script: readonly Step[]): void {
  const world = new World()
  for (let shard = 0; shard < SHARDS; shard++) world.take(shard, shard % RELAYS)
  for (const relay of world.relays) relay.learn()
  for (const step of script) {
    step(world)
    world.noteGivenUp()
    world.check()
  }
  world.heal()
  world.check()
  world.checkAll()
}

const RUNS = Number(process.env['MODEL_RUNS'] ?? 3_000)

describe('three relays on one table, as a model', function () {
  this.timeout(300_000)

  it('send a row only after the one before is confirmed, arrive first in commit order, and lose nothing, whatever crashes or is lost', () => {
    const script = fc.array(fc.oneof(...steps), { maxLength: 120, size: 'max' })
    fc.assert(fc.property(script, run), { numRuns: RUNS })
  })

  it('do so while an operator parks, drops and retries rows', () => {
    const script = fc.array(fc.oneof(...steps, operating, retrying), { maxLength: 120, size: 'max' })
    fc.assert(fc.property(script, run), { numRuns: RUNS })
  })
})
