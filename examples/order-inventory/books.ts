/**
 * The books: does what the services did agree with the orders that were placed? Pure, and trusts no service alone: stock as counted
 * on the shelves, lines and prices from the order file, effects from the tables and the file of charges, dead letters from the broker.
 */
import type { Order } from './order.ts'
import type { Entry } from './truth.ts'

export interface Facts {
  /** The orders of the file, by id. */
  readonly orders: ReadonlyMap<string, Order>
  readonly stockBefore: ReadonlyMap<string, number>
  /** As it lies there now. */
  readonly stockAfter: ReadonlyMap<string, number>
  /** Every effect, as often as it was done. */
  readonly journal: readonly Entry[]
  /** Every dead letter in the broker's queues. */
  readonly deadLetters: readonly Letter[]
  /** What was sent that is no order, and not discarded since. */
  readonly poison: Poison
}

/** What the books need of a dead letter. The transaction id of an order's messages is the order's id. */
export interface Letter {
  readonly messageId?: string
  readonly transactionId?: string
}

export interface Poison {
  /** Message ids. */
  readonly ids: readonly string[]
  /** Messages without any id. */
  readonly nameless: number
}

/** One equation of the books. */
export interface Check {
  readonly name: string
  readonly holds: boolean
  readonly says: string
  /** What differs, at most `MOST_DIFFERENCES`; empty when it holds. */
  readonly differences: readonly string[]
}

const MOST_DIFFERENCES = 5

/** All equations; the books balance when each holds. */
export function audit(facts: Facts): readonly Check[] {
  const ledger = new Ledger(facts)
  return [orders(facts, ledger), stock(facts, ledger), money(facts, ledger), once(facts), poison(facts)]
}

/** Effects that were done although they had been done before: an order is reserved, refused, put back, charged and closed once. */
export function repeated(journal: readonly Entry[]): readonly Entry[] {
  const seen = new Set<string>()
  return journal.filter(({ orderId, effect }) => {
    // Reserving and refusing are the two answers to one message.
    const key = `${orderId}\n${effect === 'rejected' ? 'reserved' : effect}`
    const again = seen.has(key)
    seen.add(key)
    return again
  })
}

/** Effects and dead letters, by order. */
class Ledger {
  readonly #effects = new Map<string, number>()
  readonly dead: ReadonlySet<string>
  readonly orderIds: readonly string[]

  constructor({ orders, journal, deadLetters }: Facts) {
    const touched = new Set(orders.keys())
    for (const entry of journal) {
      touched.add(entry.orderId)
      this.#add(entry.orderId, entry.effect === 'closed' ? `closed ${entry.by}` : entry.effect)
    }
    this.dead = new Set(deadLetters.map((letter) => letter.transactionId ?? '').filter((id) => touched.has(id)))
    this.orderIds = [...touched]
  }

  /** How often something was done for an order. */
  count(orderId: string, effect: string): number {
    return this.#effects.get(`${orderId}\n${effect}`) ?? 0
  }

  ends(orderId: string): Ends {
    const paid = this.count(orderId, 'closed payment.taken')
    const declined = this.count(orderId, 'closed payment.declined')
    const soldOut = this.count(orderId, 'closed stock.rejected')
    // A closed order may have a dead letter too (a message about it that nobody needs any more); that is not a second end.
    const dead = paid + declined + soldOut === 0 && this.dead.has(orderId) ? 1 : 0
    return { paid, declined, soldOut, dead }
  }

  #add(orderId: string, effect: string): void {
    const key = `${orderId}\n${effect}`
    this.#effects.set(key, (this.#effects.get(key) ?? 0) + 1)
  }
}

interface Ends {
  readonly paid: number
  readonly declined: number
  readonly soldOut: number
  readonly dead: number
}

/** Every order ends exactly once, and no order is known that was never placed. */
function orders({ orders }: Facts, ledger: Ledger): Check {
  const sum = { paid: 0, declined: 0, soldOut: 0, dead: 0 }
  const wrong: string[] = []
  for (const id of ledger.orderIds) {
    const ends = ledger.ends(id)
    for (const end of Object.keys(sum) as (keyof Ends)[]) sum[end] += ends[end]
    const times = ends.paid + ends.declined + ends.soldOut + ends.dead
    if (!orders.has(id)) wrong.push(`${id} was never placed, yet a service worked on it`)
    else if (times !== 1) wrong.push(`${id} ended ${times} times${howOf(ends)}`)
  }
  return check(
    'orders',
    wrong,
    `${n(orders.size)} placed = ${n(sum.paid)} paid + ${n(sum.soldOut)} out of stock + ${n(sum.declined)} declined + ${n(sum.dead)} dead-lettered; each ended exactly once`,
  )
}

function howOf(ends: Ends): string {
  const how = Object.entries(ends).filter(([, times]) => times > 0)
  return how.length === 0 ? '' : ` (${how.map(([end, times]) => `${end} ${times}`).join(', ')})`
}

/** Per product: before = after + what the orders that still hold stock asked for; and they hold it once. */
function stock({ orders, stockBefore, stockAfter }: Facts, ledger: Ledger): Check {
  const wrong: string[] = []
  const reserved = new Map<string, number>()
  for (const id of ledger.orderIds) {
    const held = ledger.count(id, 'reserved') - ledger.count(id, 'released')
    const { paid, dead } = ledger.ends(id)
    const fits = paid > 0 ? held === 1 : dead > 0 ? held === 0 || held === 1 : held === 0
    if (!fits)
      wrong.push(`${id} holds its stock ${held} times, and is ${paid > 0 ? 'paid' : dead > 0 ? 'dead' : 'not paid'}`)
    if (held > 0)
      for (const { sku, quantity } of orders.get(id)?.lines ?? [])
        reserved.set(sku, (reserved.get(sku) ?? 0) + quantity)
  }
  for (const sku of new Set([...stockBefore.keys(), ...stockAfter.keys(), ...reserved.keys()])) {
    const [before, after, held] = [stockBefore, stockAfter, reserved].map((pieces) => pieces.get(sku) ?? 0)
    if (before !== after! + held! || after! < 0)
      wrong.push(`${sku}: ${before} before, ${after} after, ${held} reserved`)
  }
  const [before, after, held] = [stockBefore, stockAfter, reserved].map(sumOf)
  return check(
    'stock',
    wrong,
    `${n(before!)} pieces before = ${n(after!)} after + ${n(held!)} reserved, and so for each of ${n(stockBefore.size)} products`,
  )
}

/** Charged are exactly the paid orders, each once, at the price of the order file. */
function money({ orders, journal }: Facts, ledger: Ledger): Check {
  const wrong: string[] = []
  const charged = new Map<string, number>()
  for (const { effect, orderId, cents = 0 } of journal)
    if (effect === 'charged') charged.set(orderId, (charged.get(orderId) ?? 0) + cents)
  const due = new Map(
    [...orders.values()].filter(({ id }) => ledger.ends(id).paid > 0).map(({ id, totalCents }) => [id, totalCents]),
  )
  for (const id of new Set([...charged.keys(), ...due.keys()])) {
    const [is, shall] = [charged.get(id) ?? 0, due.get(id) ?? 0]
    const times = ledger.count(id, 'charged')
    if (is !== shall || times !== 1) wrong.push(`${id}: ${euro(is)} charged in ${times} charges, ${euro(shall)} due`)
  }
  return check(
    'money',
    wrong,
    `${euro(sumOf(charged))} charged = the sum of ${n(due.size)} paid orders (${euro(sumOf(due))})`,
  )
}

/** Counted over all tables of effects and all charges: nothing was done twice. */
function once({ journal }: Facts): Check {
  const twice = repeated(journal)
  const wrong = twice.map(({ orderId, effect }) => `${orderId} was ${effect} once more`)
  return check('once', wrong, `${n(journal.length)} effects, ${n(twice.length)} of them done twice`)
}

/**
 * What is no order at all stays where an operator can see it, each message once; but nobody can tell copies of a message
 * without an id from one another, so of those there may be more.
 */
function poison({ orders, deadLetters, poison: { ids, nameless } }: Facts): Check {
  const strangers = deadLetters.filter(({ transactionId = '' }) => !orders.has(transactionId))
  const seen = new Set(strangers.flatMap(({ messageId }) => messageId ?? []))
  const unnamed = strangers.filter(({ messageId }) => messageId === undefined).length
  const wrong = [
    ...ids.filter((id) => !seen.has(id)).map((id) => `${id} was sent, and is no dead letter`),
    ...[...seen].filter((id) => !ids.includes(id)).map((id) => `${id} is a dead letter that nobody sent`),
    ...(unnamed < nameless ? [`${nameless} messages without an id were sent, ${unnamed} are dead letters`] : []),
  ]
  const [sent, found] = [ids.length + nameless, seen.size + Math.min(unnamed, nameless)]
  const copies = strangers.length - found
  const why = copies > 0 ? ` (and ${n(copies)} copies, where a kill came between a letter and its ack)` : ''
  return check('poison', wrong, `${n(sent)} poison messages left = ${n(found)} dead letters that are no order${why}`)
}

function check(name: string, wrong: readonly string[], says: string): Check {
  const more = wrong.length > MOST_DIFFERENCES ? [`and ${wrong.length - MOST_DIFFERENCES} more`] : []
  return { name, holds: wrong.length === 0, says, differences: [...wrong.slice(0, MOST_DIFFERENCES), ...more] }
}

function sumOf(counts: ReadonlyMap<string, number>): number {
  return [...counts.values()].reduce((a, b) => a + b, 0)
}

/** `12,345` */
export function n(count: number): string {
  return count.toLocaleString('en-US')
}

/** `€ 1,234.50` */
export function euro(cents: number): string {
  return `€ ${(cents / 100).toLocaleString('en-US', { minimumFractionDigits: 2, maximumFractionDigits: 2 })}`
}
