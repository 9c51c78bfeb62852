/**
 * Everything that goes wrong, at set points of the progress: poison from a foreign client, a bank outage, and kill -9 of each service
 * in the middle of its work: of orders and inventory while handlers run, of payments right after a charge.
 */
import { watch } from 'node:fs'
import { rm, writeFile } from 'node:fs/promises'
import { setTimeout as pause } from 'node:timers/promises'
import { type ChannelModel, type ConfirmChannel, connect } from 'amqplib'
import { deadQueueOf } from '../../lib/index.ts'
import { type Names, type Order, placedId } from './order.ts'
import type { Service } from './supervisor.ts'
import type { ServiceName } from './tally.ts'

const OUTAGE_MS = 3_000
const OUTAGE_AT_MOST_MS = 15_000

/** A service that can be killed, and the file that it writes while it works. */
export interface Victim {
  readonly service: Service
  readonly writes: string
  /** What it was doing. */
  readonly amid: string
}

export interface TroubleParts {
  readonly names: Names
  readonly amqpUrl: string
  readonly victims: Readonly<Record<ServiceName, Victim>>
  /** The bank is down while this file exists. */
  readonly bankIsDown: string
  /** How many retries there were so far. */
  readonly retries: () => number
  readonly tell: (what: string) => void
  readonly onFailure: (error: Error) => void
  /** An order that comes from a foreign client, typed in by hand, with a mistake. */
  readonly handTyped: Order | undefined
}

export class Trouble {
  /** Poison messages the broker has confirmed: their ids, and how many have none. */
  readonly poison = { ids: [] as string[], nameless: 0 }
  readonly kills: Record<ServiceName, number> = { orders: 0, inventory: 0, payments: 0 }
  /** Orders placed by hand. */
  handTyped = 0
  readonly #parts: TroubleParts
  readonly #plan: { readonly from: number; readonly make: () => Promise<void> }[]
  #connection: ChannelModel | undefined
  #channel: ConfirmChannel | undefined
  readonly #killing = new Map<ServiceName, AbortController>()
  #batches = 0
  readonly #running = new Set<Promise<void>>()

  constructor(parts: TroubleParts) {
    this.#parts = parts
    const poison = () => this.#sendPoison()
    const kill = (service: ServiceName) => () => this.#kill(service)
    this.#plan = [
      { from: 0.05, make: poison },
      { from: 0.1, make: kill('inventory') },
      { from: 0.1, make: kill('payments') },
      { from: 0.15, make: kill('orders') },
      { from: 0.25, make: poison },
      { from: 0.3, make: () => this.#outage() },
      { from: 0.4, make: kill('inventory') },
      { from: 0.4, make: kill('orders') },
      { from: 0.45, make: () => this.#sendHandTyped() },
      { from: 0.5, make: poison },
      { from: 0.6, make: kill('payments') },
      { from: 0.75, make: poison },
      { from: 0.8, make: kill('inventory') },
      { from: 0.8, make: kill('payments') },
      { from: 0.85, make: kill('orders') },
    ]
  }

  async open(): Promise<void> {
    this.#connection = await connect(this.#parts.amqpUrl)
    this.#connection.on('error', this.#parts.onFailure)
    this.#channel = await this.#connection.createConfirmChannel()
  }

  /** Makes the trouble that is due when `done` (0 to 1) of the orders have reached the inventory. */
  step(done: number): void {
    while (this.#plan.length > 0 && this.#plan[0]!.from <= done) {
      const made = this.#plan.shift()!.make().catch(this.#parts.onFailure)
      this.#running.add(made)
      void made.then(() => this.#running.delete(made))
    }
  }

  /** No more trouble from now on; resolves when what was begun is over. */
  async over(): Promise<void> {
    this.#plan.length = 0
    for (const stop of this.#killing.values()) stop.abort()
    await Promise.all(this.#running)
  }

  /** How many letters lie in a queue's dead letters. */
  async countLetters(queue: string): Promise<number> {
    return (await this.#channel!.checkQueue(deadQueueOf(queue))).messageCount
  }

  async close(): Promise<void> {
    await this.#connection?.close().catch(() => {})
  }

  async #outage(): Promise<void> {
    const { bankIsDown, victims, retries, tell } = this.#parts
    await victims.payments.service.ready
    const before = retries()
    await writeFile(bankIsDown, '')
    tell('the bank is down: payments fail and are retried with backoff')
    const begun = performance.now()
    const lasts = () => performance.now() - begun
    // Long enough to be noticed: a service that was just started has nothing to ask the bank for yet.
    while (lasts() < OUTAGE_MS || (retries() === before && lasts() < OUTAGE_AT_MOST_MS)) await pause(100)
    await rm(bankIsDown)
    tell('the bank is up again')
  }

  /** Waits until it writes, which it does in mid-work, and kills it that moment. */
  async #kill(name: ServiceName): Promise<void> {
    const { victims, tell } = this.#parts
    const { service, writes, amid } = victims[name]
    await service.ready
    if (this.#killing.has(name)) return
    const stop = new AbortController()
    this.#killing.set(name, stop)
    const written = new Promise<void>((resolve) => {
      stop.signal.addEventListener('abort', () => resolve())
      watch(writes, { signal: stop.signal }, () => {
        service.kill9()
        resolve()
      })
    })
    await written
    const fired = !stop.signal.aborted
    stop.abort()
    this.#killing.delete(name)
    if (!fired) return
    this.kills[name]++
    tell(`kill -9 of the ${name} service, ${amid}`)
  }

  /** As a client in another language sends it. */
  async #sendHandTyped(): Promise<void> {
    const { handTyped: order, names, tell } = this.#parts
    if (!order) return
    const [first, ...others] = order.lines
    const body = { ...order, lines: [{ ...first, quantity: 'a few' }, ...others] }
    const headers = { transaction_id: order.id }
    const properties = { contentType: 'application/json', type: 'order.placed', messageId: placedId(order.id), headers }
    this.#channel!.publish(names.events, 'order.placed', Buffer.from(JSON.stringify(body)), {
      ...properties,
      persistent: true,
    })
    await this.#channel!.waitForConfirms()
    this.handTyped = 1
    tell(`order ${order.id} is typed in by hand with a mistake: its first quantity is "a few"`)
  }

  async #sendPoison(): Promise<void> {
    const { names, tell } = this.#parts
    const id = `poison-${++this.#batches}`
    const order = JSON.stringify(strangeOrder(id))
    const json = { contentType: 'application/json', type: 'order.placed', messageId: id }
    const forged = {
      'surehop-attempt': 1_000_000,
      'surehop-generation': -7,
      'x-death': [{ count: 99, queue: 'nowhere' }],
    }
    const messages = [
      { body: order.slice(0, -20), properties: { ...json, messageId: `${id}-broken` } },
      { body: order.replace('"quantity":1', '"quantity":"one"'), properties: { ...json, messageId: `${id}-schema` } },
      { body: order, properties: { contentType: 'application/json', type: 'order.placed' } },
      { body: order, properties: { ...json, messageId: `${id}-forged`, headers: forged } },
    ]
    for (const { body, properties } of messages)
      this.#channel!.publish(names.events, 'order.placed', Buffer.from(body), { ...properties, persistent: true })
    await this.#channel!.waitForConfirms()
    for (const { properties } of messages)
      if ('messageId' in properties) this.poison.ids.push(properties.messageId)
      else this.poison.nameless++
    tell('poison from a foreign client: not JSON, wrong schema, no id, forged headers')
  }
}

/** An order nobody placed; if any service took it, the books would not balance. */
function strangeOrder(id: string): object {
  return {
    id,
    placedAt: new Date().toISOString(),
    channel: 'stranger',
    customer: { name: 'Nobody', city: 'Nowhere' },
    lines: [{ sku: 'MUG-WHITE', name: 'Enamel mug, white', unitPriceCents: 1_190, quantity: 1 }],
    totalCents: 1_190,
    payment: { method: 'card', account: 'tok_0000_4242' },
  }
}
