/**
 * The database of the payments service: a file, the list of what was charged, one JSON line each. No outbox fits into it, hence the
 * half messages.
 *
 * Promises: a charge is one write(2) with O_APPEND before `add()` returns, so it survives kill -9 at any point; an order is charged
 * once; a transaction that was refused is never charged afterwards. All of it holds for one process at a time. Does NOT promise
 * to survive a power cut: nothing here waits for the disk.
 */
import { readFileSync } from 'node:fs'
import { append, opened, wholeLines } from './lines.ts'

export interface Charge {
  readonly orderId: string
  readonly cents: number
  /** The half message that tells of it. */
  readonly transactionId: string
}

export class Charges {
  readonly #file: number
  readonly #byOrder = new Map<string, Charge>()
  readonly #charged = new Set<string>()
  readonly #refused = new Set<string>()

  /** Opens or creates the file. */
  constructor(path: string) {
    this.#file = opened(path)
    for (const charge of wholeLines<Charge>(readFileSync(path)).values) this.#remember(charge)
  }

  /** The charge of an order, if it was charged. */
  of(orderId: string): Charge | undefined {
    return this.#byOrder.get(orderId)
  }

  /** @throws Error when the order was charged before, or the transaction was refused: nothing is charged then */
  add(charge: Charge): void {
    const { orderId, transactionId } = charge
    if (this.#refused.has(transactionId)) throw new Error(`transaction ${transactionId} was rolled back`)
    if (this.#byOrder.has(orderId)) throw new Error(`order ${orderId} is charged already`)
    append(this.#file, charge)
    this.#remember(charge)
  }

  /**
   * Was something charged in this transaction? If not, it never will be: this very question refuses it, so that the answer stays
   * true. Charges of a process that died need no refusal.
   */
  settled(transactionId: string): 'commit' | 'rollback' {
    if (this.#charged.has(transactionId)) return 'commit'
    this.#refused.add(transactionId)
    return 'rollback'
  }

  #remember(charge: Charge): void {
    this.#byOrder.set(charge.orderId, charge)
    this.#charged.add(charge.transactionId)
  }
}
