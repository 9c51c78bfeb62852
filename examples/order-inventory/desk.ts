/** Publishes the orders of a file as `order.placed`; now and then twice, as nervous publishers do. */
import { setTimeout as pause } from 'node:timers/promises'
import { Order, placedId } from './order.ts'
import { readOrders } from './orders-file.ts'
import type { Shop } from './service.ts'

/** Every so many orders one is sent twice at once, a double click. */
const DOUBLE_EVERY = 12
/** And every so many once more when all is over, as a restarted upstream system does. */
const LATE_EVERY = 40
const BATCH_MS = 100

export class Desk {
  readonly #shop: Shop
  readonly #producer

  constructor(shop: Shop) {
    this.#shop = shop
    this.#producer = shop.surehop.producer({ schemas: { 'order.placed': Order } })
  }

  /** All orders of the file but one, so many per second; resolves when the broker has confirmed them. */
  async place(file: string, perSecond: number, except: string): Promise<void> {
    const orders = [...(await readOrders(file)).values()].filter(({ id }) => id !== except)
    const size = Math.max(1, Math.round((perSecond * BATCH_MS) / 1_000))
    for (let at = 0; at < orders.length; at += size) {
      const turn = pause(BATCH_MS)
      await Promise.all(
        orders.slice(at, at + size).map(async (order, n) => {
          const nervous = (at + n) % DOUBLE_EVERY === DOUBLE_EVERY - 1
          await Promise.all([this.#publish(order, 'published'), nervous && this.#publish(order, 'copied')])
        }),
      )
      await turn
    }
  }

  /** Some of them once more. */
  async placeAgain(file: string, except: string): Promise<void> {
    const orders = [...(await readOrders(file)).values()].filter(({ id }, n) => n % LATE_EVERY === 0 && id !== except)
    await Promise.all(orders.map((order) => this.#publish(order, 'copied')))
  }

  async #publish(order: Order, what: 'published' | 'copied'): Promise<void> {
    const { names, diary } = this.#shop
    const ids = { messageId: placedId(order.id), transactionId: order.id }
    await this.#producer.publish(names.events, { ...ids, type: 'order.placed', key: order.id, body: order })
    diary.note(what, ids)
  }
}
