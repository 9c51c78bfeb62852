/** The acts of the demo, one method each. */
import { audit, type Letter, n } from './books.ts'
import { lettersOf, surehop } from './operator.ts'
import { type Order, placedId } from './order.ts'
import type { Screen } from './screen.ts'
import type { Shop } from './shop.ts'
import type { Trouble } from './trouble.ts'

export class Story {
  readonly #shop: Shop
  readonly #screen: Screen
  readonly #orders: ReadonlyMap<string, Order>
  readonly #stockBefore: ReadonlyMap<string, number>
  readonly #letters = new Map<string, readonly Letter[]>()
  #placed = false
  /** Orders that were dead letters when the trading was over. */
  #dead = 0
  #replayed = 0
  #discarded = false

  constructor(
    shop: Shop,
    screen: Screen,
    orders: ReadonlyMap<string, Order>,
    stockBefore: ReadonlyMap<string, number>,
  ) {
    this.#shop = shop
    this.#screen = screen
    this.#orders = orders
    this.#stockBefore = stockBefore
  }

  /** Places the orders while things go wrong, until each has ended and nothing is under way. */
  async trade(perSecond: number): Promise<void> {
    const { orders, trouble, tally } = this.#shop
    await Promise.all([this.#place(perSecond), this.#until(() => this.#placed && tally.open.length === 0)])
    await trouble.over()
    // A kill may be noticed only now.
    await orders.insist('placeAgain', this.#placing)
    await this.#until(() => this.#settled)
    this.#dead = tally.dead
    this.#screen.settle()
    this.#screen.event(`all ${n(this.#orders.size)} orders have ended`, 'good')
  }

  /** Puts the books to the proof. */
  async books(title: string): Promise<boolean> {
    const { names, truth, trouble } = this.#shop
    const queues = [names.reserve, names.release, names.charge, names.close]
    for (const queue of queues)
      this.#letters.set(queue, (await trouble.countLetters(queue)) > 0 ? await lettersOf(queue) : [])
    const checks = audit({
      orders: this.#orders,
      stockBefore: this.#stockBefore,
      stockAfter: await truth.stock(),
      journal: await truth.effects(),
      deadLetters: [...this.#letters.values()].flat(),
      poison: this.#discarded ? NO_POISON : trouble.poison,
    })
    this.#screen.title(title)
    this.#screen.table(this.#counts())
    this.#screen.books(checks)
    return checks.every(({ holds }) => holds)
  }

  /** What an operator does: looks at the dead letters, has the bug mended, sends the orders again, discards the poison. */
  async repair(methods: string): Promise<void> {
    const { names, payments, tally } = this.#shop
    this.#screen.title('The dead letters')
    const queues = [...this.#letters].filter(([, letters]) => letters.length > 0).map(([queue]) => queue)
    const deployed = payments.deploy([methods])
    await Promise.all([deployed, this.#groups(queues)])
    this.#screen.event('the fix is deployed: version 2 of payments knows the method "twint"', 'good')
    for (const queue of queues) await (queue === names.reserve ? this.#tidy(queue) : this.#replay(queue))
    this.#discarded = true
    await this.#until(() => tally.closed === this.#orders.size && this.#settled)
    this.#replayed = this.#dead
    this.#screen.settle()
  }

  async #groups(queues: readonly string[]): Promise<void> {
    for (const queue of queues) await this.#command('dead', 'groups', queue)
  }

  /** Poison and orders lie side by side: the mistake in the order is mended, the orders are sent again, the rest is discarded. */
  async #tidy(queue: string): Promise<void> {
    const { handTyped } = this.#shop
    if (handTyped) {
      const quantity = `lines.0.quantity=${handTyped.lines[0]!.quantity}`
      await this.#command('dead', 'edit', queue, placedId(handTyped.id), '--set', quantity, '--yes')
    }
    if (this.#letters.get(queue)!.some(({ transactionId = '' }) => this.#orders.has(transactionId)))
      await this.#replay(queue, '--where', IS_ORDER, '--inbox', this.#shop.inventoryInbox)
    await this.#command('dead', 'discard', queue, '--where', `not ${IS_ORDER}`, '--yes')
  }

  /** A replay stops when too many fail again, be it by a machine that stands still: an operator waits, and goes on. The books decide. */
  async #replay(queue: string, ...which: string[]): Promise<void> {
    for (let times = 0; times < MOST_REPLAYS; times++) {
      if (await this.#tried('dead', 'replay', queue, ...which, '--yes')) return
      await this.#until(() => this.#settled)
    }
  }

  /** In plain words. */
  closingWords(): void {
    this.#screen.title('What you have just seen')
    this.#screen.text(CLOSING)
  }

  async #place(perSecond: number): Promise<void> {
    await this.#shop.orders.insist('place', { ...this.#placing, perSecond })
    this.#placed = true
    this.#screen.event('all orders of the file are placed, each with its message in the outbox')
  }

  get #placing(): { readonly file: string; readonly except: string } {
    return { file: this.#shop.orderFile, except: this.#shop.handTyped?.id ?? '' }
  }

  /** No copy, no release and no poison is on its way any more. */
  get #settled(): boolean {
    const { tally, trouble } = this.#shop
    return (
      tally.open.length === 0 &&
      tally.underWay === 0 &&
      tally.effects('released') >= tally.effects('closed payment.declined') &&
      tally.dropped >= tally.placed.copies &&
      tally.strangers >= trouble.poison.ids.length + trouble.poison.nameless
    )
  }

  #until(reached: () => boolean): Promise<void> {
    const { trouble, tally } = this.#shop
    const total = this.#orders.size
    return this.#shop.until(reached, () => {
      trouble.step((tally.effects('reserved') + tally.effects('rejected')) / total)
      const ended = total - tally.open.length
      const placed = tally.placed.orders + trouble.handTyped
      this.#screen.progress(
        ended / total,
        `${n(ended)} of ${n(total)} ended · ${n(placed)} placed · retries ${n(tally.notes('retried'))} · kills ${killsOf(trouble)}`,
      )
    })
  }

  #counts(): (readonly [string, string, string])[] {
    const { tally, trouble, inventory, orders, payments } = this.#shop
    const [committed, rolledBack] = [tally.notes('committed'), tally.notes('rolled-back')]
    const rows: readonly (readonly [string, number, string])[] = [
      ['placed', tally.placed.orders + trouble.handTyped, 'rows, each with its message'],
      ['reserved', tally.effects('reserved'), 'all lines taken from the shelves'],
      ['paid', tally.effects('closed payment.taken'), 'charged'],
      ['rejected, out of stock', tally.effects('closed stock.rejected'), 'no line was taken'],
      ['rejected, declined', tally.effects('closed payment.declined'), 'the stock was put back'],
      ['duplicates suppressed', tally.dropped, `${n(tally.placed.copies)} sent on purpose, the rest by kills`],
      ['retries', tally.notes('retried'), 'waited in the broker and came back'],
      ['kill -9 in mid-work', inventory.crashes + orders.crashes + payments.crashes, killed(trouble)],
      ['redelivered', tally.redelivered, 'runs cut off by a kill, begun again'],
      ['half messages asked of', committed + rolledBack, `${n(committed)} committed, ${n(rolledBack)} rolled back`],
      ['duplicate effects', tally.repeated, 'counted in the tables and the file'],
      ['dead letters', this.#dead + tally.strangers, `${n(this.#dead)} orders, ${n(tally.strangers)} poison`],
      ['replayed', this.#replayed, 'sent again after the fix'],
    ]
    return rows.map(([name, count, meaning]) => [name, n(count), meaning])
  }

  async #command(...args: string[]): Promise<void> {
    if (!(await this.#tried(...args))) throw new Error(`surehop ${args.join(' ')} did not do all it was to do`)
  }

  /** @returns whether it did all it was to do */
  async #tried(...args: string[]): Promise<boolean> {
    const typed = args.map((arg) => (/[ "]/.test(arg) ? `'${arg}'` : arg))
    this.#screen.raw(`  $ surehop ${typed.join(' ')}`)
    const { all, done } = await surehop(args, this.#screen.columns - 2)
    this.#screen.raw(`${all.trimEnd().replace(/^(?=.)/gm, '  ')}\n`)
    return done
  }
}

/** So often is one queue replayed. */
const MOST_REPLAYS = 3
/** How orders are told from poison, in the command's filter language. */
const IS_ORDER = `id=${placedId('*')}`
const NO_POISON = { ids: [], nameless: 0 }

/** How often each was killed: `4 inventory, 3 orders, 3 payments`. */
function killed({ kills }: Trouble): string {
  return Object.entries(kills)
    .map(([service, times]) => `${times} ${service}`)
    .join(', ')
}

function killsOf({ kills }: Trouble): number {
  return Object.values(kills).reduce((sum, times) => sum + times, 0)
}

const CLOSING =
  'Three services passed orders on through RabbitMQ while they were fed duplicates and poison, while the bank was down, and while each of ' +
  'them was killed again and again in the middle of its work. No order was lost, nothing was done twice, and whatever could not be done ' +
  'ended as a dead letter with its story, to be looked at, mended and sent again. Orders and inventory keep their data in Postgres: what a ' +
  'message causes, the record that it was handled, and the messages that tell of it (the outbox) are one transaction, all or nothing. Payments ' +
  'keeps a file, which can do no such thing: there each message is stored before the charge and sent after it (the half message), and where a kill ' +
  'came between, the service was asked what had become of it.'
