// The books of the demo find every planted loss and every planted double; sound books balance.

import { expect } from 'chai'
import { audit, type Facts, repeated } from '../../examples/order-inventory/books.ts'
import type { Order } from '../../examples/order-inventory/order.ts'
import type { Entry } from '../../examples/order-inventory/truth.ts'

const MUG = { sku: 'MUG', unitPriceCents: 1_000, quantity: 2 }
const TENT = { sku: 'TENT', unitPriceCents: 20_000, quantity: 1 }

/** Two poison messages with an id, one without. */
const POISON = [{ messageId: 'p1', transactionId: 'p1' }, { messageId: 'p2' }, {}]

function order(id: string, lines = [MUG, TENT]): Order {
  const totalCents = lines.reduce((sum, line) => sum + line.quantity * line.unitPriceCents, 0)
  const customer = { name: 'Anna', city: 'Graz' }
  const payment = { method: 'card', account: 'tok_1' }
  return { id, placedAt: '2024-05-17T06:00:00.000Z', channel: 'web', customer, lines, totalCents, payment }
}

function entry(orderId: string, effect: Entry['effect'], more: Partial<Entry> = {}): Entry {
  return { orderId, effect, ...more }
}

/** One order of each ending: paid, out of stock, declined (stock put back), dead at the payment (stock held). */
function sound(): Facts {
  const orders = ['paid', 'soldOut', 'declined', 'dead'].map((id) => order(id))
  return {
    orders: new Map(orders.map((one) => [one.id, one])),
    stockBefore: new Map([
      ['MUG', 10],
      ['TENT', 5],
    ]),
    stockAfter: new Map([
      ['MUG', 6],
      ['TENT', 3],
    ]),
    journal: [
      entry('paid', 'reserved'),
      entry('paid', 'charged', { cents: 22_000 }),
      entry('paid', 'closed', { by: 'payment.taken' }),
      entry('soldOut', 'rejected'),
      entry('soldOut', 'closed', { by: 'stock.rejected' }),
      entry('declined', 'reserved'),
      entry('declined', 'released'),
      entry('declined', 'closed', { by: 'payment.declined' }),
      entry('dead', 'reserved'),
    ],
    deadLetters: [{ messageId: 'reserved-dead', transactionId: 'dead' }, ...POISON],
    poison: { ids: ['p1', 'p2'], nameless: 1 },
  }
}

/** Names of the equations that do not hold, and all differences as one text. */
function wrong(facts: Facts): { names: string[]; differences: string } {
  const broken = audit(facts).filter(({ holds }) => !holds)
  return { names: broken.map(({ name }) => name), differences: broken.flatMap((one) => one.differences).join('\n') }
}

function without(facts: Facts, orderId: string, effect: Entry['effect']): Facts {
  return { ...facts, journal: facts.journal.filter((one) => one.orderId !== orderId || one.effect !== effect) }
}

function plus(facts: Facts, ...entries: Entry[]): Facts {
  return { ...facts, journal: [...facts.journal, ...entries] }
}

describe('the books of the demo', () => {
  it('balance when every order ended once', () => {
    const checks = audit(sound())
    expect(checks.map(({ name }) => name)).to.deep.equal(['orders', 'stock', 'money', 'once', 'poison'])
    expect(checks.filter(({ holds }) => !holds)).to.deep.equal([])
    expect(checks[0]?.says).to.match(/^4 placed = 1 paid \+ 1 out of stock \+ 1 declined \+ 1 dead-lettered/)
    expect(checks[1]?.says).to.match(/^15 pieces before = 9 after \+ 6 reserved/)
    expect(checks[2]?.says).to.match(/^€ 220\.00 charged = the sum of 1 paid orders/)
    expect(checks[3]?.says).to.equal('9 effects, 0 of them done twice')
  })

  it('find an order that was lost', () => {
    const { names, differences } = wrong(without(sound(), 'soldOut', 'closed'))
    expect(names).to.deep.equal(['orders'])
    expect(differences).to.include('soldOut ended 0 times')
  })

  it('find a dead letter that was lost', () => {
    const { names, differences } = wrong({ ...sound(), deadLetters: POISON })
    expect(names).to.deep.equal(['orders', 'stock'])
    expect(differences).to.include('dead ended 0 times').and.include('dead holds its stock 1 times')
  })

  it('find an order that was closed twice, the same way or two ways', () => {
    for (const by of ['payment.taken', 'stock.rejected'])
      expect(wrong(plus(sound(), entry('paid', 'closed', { by }))).differences).to.include('paid ended 2 times')
  })

  it('find an order that nobody placed', () => {
    expect(wrong(plus(sound(), entry('ghost', 'rejected'))).differences).to.include('ghost was never placed')
  })

  it('find a double reservation, although the shelves agree with the journal', () => {
    const facts = plus(sound(), entry('paid', 'reserved'))
    const stockAfter = new Map([
      ['MUG', 4],
      ['TENT', 2],
    ])
    const { names, differences } = wrong({ ...facts, stockAfter })
    expect(names).to.deep.equal(['stock', 'once'])
    expect(differences).to.include('paid holds its stock 2 times').and.include('MUG: 10 before, 4 after, 4 reserved')
  })

  it('find whatever was done twice, also where it changes neither stock nor money', () => {
    const twice = plus(sound(), entry('soldOut', 'rejected'))
    expect(wrong(twice)).to.deep.equal({ names: ['once'], differences: 'soldOut was rejected once more' })
    expect(wrong(plus(sound(), entry('paid', 'rejected'))).names).to.deep.equal(['once'])
    expect(repeated(sound().journal)).to.deep.equal([])
    const doubled = [...sound().journal, ...sound().journal]
    expect(repeated(doubled)).to.have.length(sound().journal.length)
  })

  it('find stock that was not put back, and stock that was put back twice', () => {
    expect(wrong(without(sound(), 'declined', 'released')).differences).to.include('declined holds its stock 1 times')
    expect(wrong(plus(sound(), entry('declined', 'released'))).differences).to.include('declined holds its stock -1')
  })

  it('find pieces that vanished from the shelves, and shelves below zero', () => {
    const { stockAfter, ...facts } = sound()
    expect(wrong({ ...facts, stockAfter: new Map([...stockAfter, ['MUG', 5]]) }).differences).to.equal(
      'MUG: 10 before, 5 after, 4 reserved',
    )
    const sold = { ...sound(), stockBefore: new Map([['MUG', 3]]), stockAfter: new Map([['MUG', -1]]) }
    expect(wrong(sold).differences).to.include('MUG: 3 before, -1 after, 4 reserved')
  })

  it('find a double charge, a wrong amount, a charge nobody owes, and a paid order that was not charged', () => {
    const charged = (orderId: string, cents: number) => entry(orderId, 'charged', { cents })
    expect(wrong(plus(sound(), charged('paid', 22_000))).differences).to.equal(
      'paid: € 440.00 charged in 2 charges, € 220.00 due\npaid was charged once more',
    )
    expect(wrong(plus(without(sound(), 'paid', 'charged'), charged('paid', 21_999))).names).to.deep.equal(['money'])
    expect(
      wrong(plus(without(sound(), 'paid', 'charged'), charged('paid', 11_000), charged('paid', 11_000))).names,
    ).to.deep.equal(['money', 'once'])
    expect(wrong(plus(sound(), charged('soldOut', 22_000))).differences).to.include('€ 0.00 due')
    expect(wrong(without(sound(), 'paid', 'charged')).differences).to.include('€ 0.00 charged in 0 charges')
  })

  it('find poison that vanished, and a dead letter that nobody sent', () => {
    const letters = sound().deadLetters
    const lost = (gone: number) => wrong({ ...sound(), deadLetters: letters.filter((_, n) => n !== gone) }).differences
    expect(lost(1)).to.equal('p1 was sent, and is no dead letter')
    expect(lost(3)).to.equal('1 messages without an id were sent, 0 are dead letters')
    const more = wrong({ ...sound(), deadLetters: [...letters, { messageId: 'p3', transactionId: 'p3' }] })
    expect(more.differences).to.equal('p3 is a dead letter that nobody sent')
    expect(wrong({ ...sound(), deadLetters: [...letters, {}] }).names).to.deep.equal([])
  })

  it('name at most five differences of an equation, and count the rest', () => {
    const many = Array.from({ length: 9 }, (_, n) => entry(`ghost-${n}`, 'rejected'))
    const [orders] = audit(plus(sound(), ...many))
    expect(orders?.differences).to.have.length(6)
    expect(orders?.differences.at(-1)).to.equal('and 4 more')
  })
})
