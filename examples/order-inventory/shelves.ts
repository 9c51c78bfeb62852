/** What lies on the shelves, and what is held for which order: computed from the starting stock and the journal, kept in memory. */
import { readFileSync } from 'node:fs'
import type { Entry } from './journal.ts'

type Lines = NonNullable<Entry['lines']>

export class Shelves {
  readonly #pieces: Map<string, number>
  readonly #held = new Map<string, Lines>()

  constructor(stockFile: string) {
    this.#pieces = new Map(Object.entries(JSON.parse(readFileSync(stockFile, 'utf8')) as Record<string, number>))
  }

  has(lines: Lines): boolean {
    const wanted = new Map<string, number>()
    for (const { sku, quantity } of lines) wanted.set(sku, (wanted.get(sku) ?? 0) + quantity)
    return [...wanted].every(([sku, quantity]) => (this.#pieces.get(sku) ?? 0) >= quantity)
  }

  heldBy(orderId: string): Lines {
    return this.#held.get(orderId) ?? []
  }

  apply({ effect, orderId, lines = [] }: Entry): void {
    const sign = effect === 'reserved' ? -1 : effect === 'released' ? 1 : 0
    for (const { sku, quantity } of lines) this.#pieces.set(sku, (this.#pieces.get(sku) ?? 0) + sign * quantity)
    if (effect === 'reserved') this.#held.set(orderId, lines)
    if (effect === 'released') this.#held.delete(orderId)
  }

  count(): Record<string, number> {
    return Object.fromEntries(this.#pieces)
  }
}
