/**
 * One run of the demo: its folder, its names, its three services, the trouble made for them, and the count of what they did.
 * Promises: `close()` leaves no process, no file, and nothing in the broker, in Redis or in Postgres.
 */
import { randomBytes } from 'node:crypto'
import { mkdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { cleanUp } from './clean.ts'
import { makeDatabases, schemaOf } from './database.ts'
import { namesOf, type Order } from './order.ts'
import { Service } from './supervisor.ts'
import { type ServiceName, Tally } from './tally.ts'
import { Trouble } from './trouble.ts'
import { Truth } from './truth.ts'

export interface ShopOptions {
  readonly orders: ReadonlyMap<string, Order>
  readonly stock: ReadonlyMap<string, number>
  readonly amqpUrl: string
  readonly redisUrl: string
  /** Payment methods the first version of the payments service knows. */
  readonly methods: string
  /** Gets what happens, for the screen. */
  readonly tell: (what: string, mark?: 'good' | 'bad') => void
}

/** The trouble is made at set parts of the orders, so there must be some. */
const FEW_ORDERS = 20
/** How often it is looked what has happened, ms. */
const TICK_MS = 200
/** Nothing happening for so long means that something is wrong, ms. */
const STUCK_AFTER_MS = 30_000

export class Shop {
  readonly names
  /** The last order comes from somebody else, with a mistake in it; unless there are few. */
  readonly handTyped: Order | undefined
  readonly truth: Truth
  readonly tally: Tally
  readonly trouble: Trouble
  readonly orders: Service
  readonly inventory: Service
  readonly payments: Service
  readonly #options: ShopOptions
  readonly #run: string
  readonly #folder: string
  #failure: Error | undefined
  #closed: Promise<void> | undefined

  constructor(options: ShopOptions) {
    const run = `shop-${randomBytes(2).toString('hex')}`
    const folder = join(tmpdir(), `surehop-demo-${process.pid}-${run}`)
    this.#options = options
    this.#run = run
    this.#folder = folder
    this.names = namesOf(run)
    this.handTyped = options.orders.size < FEW_ORDERS ? undefined : [...options.orders.values()].at(-1)
    this.truth = new Truth(run, folder)
    this.tally = new Tally(folder, this.truth, options.orders)
    this.orders = this.#service(run, 'orders')
    this.inventory = this.#service(run, 'inventory')
    this.payments = this.#service(run, 'payments', [options.methods])
    this.trouble = new Trouble({
      names: this.names,
      amqpUrl: options.amqpUrl,
      victims: {
        orders: { service: this.orders, writes: join(folder, 'orders', 'diary.ndjson'), amid: 'in mid-work' },
        inventory: { service: this.inventory, writes: join(folder, 'inventory', 'diary.ndjson'), amid: 'in mid-work' },
        payments: {
          service: this.payments,
          writes: join(folder, 'payments', 'charges.ndjson'),
          amid: 'right after a charge',
        },
      },
      bankIsDown: join(folder, 'payments', 'bank-is-down'),
      retries: () => this.tally.notes('retried'),
      tell: (what) => options.tell(what, 'bad'),
      onFailure: (error) => this.#fail(error),
      handTyped: this.handTyped,
    })
  }

  /** Writes the services' files and tables and starts them. Close the shop in any case. */
  async open(): Promise<void> {
    const { orders, stock } = this.#options
    await makeDatabases(this.#run, stock)
    for (const name of ['orders', 'inventory', 'payments']) await mkdir(join(this.#folder, name), { recursive: true })
    await writeFile(this.orderFile, [...orders.values()].map((order) => `${JSON.stringify(order)}\n`).join(''))
    await Promise.all([this.orders.start(), this.inventory.start(), this.payments.start(), this.trouble.open()])
  }

  /** The orders as the orders service reads them: checked, and in a file even if they came from standard input. */
  get orderFile(): string {
    return join(this.#folder, 'orders.ndjson')
  }

  /** Where the inventory service remembers which messages it has handled. */
  get inventoryInbox(): string {
    return schemaOf(this.#run, 'inventory')
  }

  /** Calls `each` now and then until `reached`. @throws Error when a service is broken, or nothing moves for 30 s */
  async until(reached: () => boolean, each: () => void = () => {}): Promise<void> {
    let seen = ''
    let movedAt = performance.now()
    for (;;) {
      await this.tally.refresh()
      if (this.#failure) throw this.#failure
      each()
      if (reached()) return
      const now = this.tally.position
      if (now !== seen) movedAt = performance.now()
      seen = now
      if (performance.now() - movedAt > STUCK_AFTER_MS) throw this.#stuck()
      await pause(TICK_MS)
    }
  }

  /** Ends everything, in good order where it can. */
  close(): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  async #close(): Promise<void> {
    const { amqpUrl, redisUrl } = this.#options
    await this.trouble.close()
    await Promise.all([this.orders.close(), this.inventory.close(), this.payments.close()])
    await this.truth.close()
    await cleanUp(this.#run, amqpUrl, redisUrl)
    await rm(this.#folder, { recursive: true, force: true })
  }

  #service(run: string, name: ServiceName, settings: readonly string[] = []): Service {
    return new Service({
      name,
      run,
      folder: join(this.#folder, name),
      settings,
      onBack: () => this.#options.tell(`the ${name} service is back: it was started again`, 'good'),
      onBroken: (error) => this.#fail(error),
    })
  }

  #fail(error: Error): void {
    this.#failure ??= error
  }

  #stuck(): Error {
    const { open } = this.tally
    const some = open.length > 0 ? `: ${open.length} orders have not ended, such as ${open.slice(0, 5).join(', ')}` : ''
    return new Error(`nothing has happened for ${STUCK_AFTER_MS / 1_000} s${some}`)
  }
}
