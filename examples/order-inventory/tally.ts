/**
 * Counts while the shop works: what was done, from where it stands, and what was told, from the diaries of the services. What a killed
 * process had in memory counts for nothing.
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { join } from 'node:path'
import { repeated } from './books.ts'
import type { Note } from './diary.ts'
import { wholeLines } from './lines.ts'
import type { Entry, Truth } from './truth.ts'

const SERVICES = ['orders', 'inventory', 'payments'] as const

/** What a message that began can end with: done, dead, or found to be one or the other by a copy that was dropped. */
const ENDS: ReadonlySet<Note['what']> = new Set(['completed', 'dead', 'duplicate', 'superseded'] as const)

export type ServiceName = (typeof SERVICES)[number]

export class Tally {
  /** All effects so far. */
  journal: readonly Entry[] = []
  /** Orders placed through the outbox, and messages written to it once more. */
  placed = { orders: 0, copies: 0 }
  readonly #truth: Truth
  readonly #orders: ReadonlyMap<string, unknown>
  /** Orders that a dead letter was told of. */
  readonly #dead = new Set<string>()
  readonly #files: Follower<Note>[]
  readonly #notes = new Map<Note['what'], number>()
  readonly #runs = new Map<string, number>()
  #effects = new Map<string, number>()
  #closed = new Set<string>()
  readonly #strangers = new Set<string>()
  #nameless = 0
  readonly #underWay = new Set<string>()

  /** @param orders by id: nothing else counts as an order */
  constructor(folder: string, truth: Truth, orders: ReadonlyMap<string, unknown>) {
    this.#truth = truth
    this.#orders = orders
    this.#files = SERVICES.map(
      (name) => new Follower(join(folder, name, 'diary.ndjson'), (note: Note) => this.#note(name, note)),
    )
  }

  /** Changes with everything that happens. */
  get position(): string {
    return [this.placed.orders, this.journal.length, ...this.#files.map((file) => file.offset)].join()
  }

  /** Takes in what happened since the last time. */
  async refresh(): Promise<void> {
    for (const file of this.#files) file.refresh()
    this.placed = await this.#truth.placed()
    this.journal = await this.#truth.effects()
    this.#effects = new Map()
    for (const { effect, by } of this.journal) add(this.#effects, effect === 'closed' ? `closed ${by}` : effect)
    const closed = this.journal.filter(({ effect, orderId }) => effect === 'closed' && this.#orders.has(orderId))
    this.#closed = new Set(closed.map(({ orderId }) => orderId))
  }

  notes(what: Note['what']): number {
    return this.#notes.get(what) ?? 0
  }

  /** Messages that some handler began and that have not ended: retried, or cut off by a kill and not yet delivered again. */
  get underWay(): number {
    return this.#underWay.size
  }

  /** Copies that were dropped. */
  get dropped(): number {
    return this.notes('duplicate') + this.notes('superseded')
  }

  /** How often an effect was done; `closed payment.taken` and so on for the ends. */
  effects(effect: string): number {
    return this.#effects.get(effect) ?? 0
  }

  /** Effects that were done although they had been done before. */
  get repeated(): number {
    return repeated(this.journal).length
  }

  /** Runs that began although the same attempt had begun before: its process was killed, and the broker delivered again. */
  get redelivered(): number {
    return [...this.#runs.values()].reduce((sum, times) => sum + times - 1, 0)
  }

  /** Orders that are paid or rejected. */
  get closed(): number {
    return this.#closed.size
  }

  /** Orders that ended as a dead letter. */
  get dead(): number {
    return [...this.#dead].filter((id) => !this.#closed.has(id)).length
  }

  /** Orders that have not ended yet. */
  get open(): string[] {
    return [...this.#orders.keys()].filter((id) => !this.#closed.has(id) && !this.#dead.has(id))
  }

  /** Dead letters that are no order. */
  get strangers(): number {
    return this.#strangers.size + this.#nameless
  }

  #note(service: ServiceName, note: Note): void {
    // One message may have several readers.
    const run = `${service}\n${note.messageId}`
    add(this.#notes, note.what)
    if (note.what === 'began') add(this.#runs, [run, note.generation, note.attempt].join('\n'))
    if (note.what === 'began') this.#underWay.add(run)
    else if (ENDS.has(note.what)) this.#underWay.delete(run)
    // A service that is killed between the letter and its note leaves the letter only; the copy dropped next tells of it.
    if (note.what === 'dead' || note.what === 'superseded') this.#buried(note)
  }

  #buried({ messageId, transactionId }: Note): void {
    if (this.#orders.has(transactionId)) this.#dead.add(transactionId)
    else if (messageId) this.#strangers.add(messageId)
    else this.#nameless++
  }
}

function add<K>(counts: Map<K, number>, key: K): void {
  counts.set(key, (counts.get(key) ?? 0) + 1)
}

/** Gives every complete line of a growing file once. */
class Follower<T = never> {
  readonly #path: string
  readonly #each: (value: T) => void
  offset = 0

  constructor(path: string, each: (value: T) => void) {
    this.#path = path
    this.#each = each
  }

  refresh(): void {
    let file: number
    try {
      file = openSync(this.#path, 'r')
    } catch {
      return // The service has not written yet.
    }
    try {
      const content = Buffer.alloc(Math.max(0, fstatSync(file).size - this.offset))
      const read = readSync(file, content, 0, content.length, this.offset)
      const { values, bytes } = wholeLines<T>(content.subarray(0, read))
      this.offset += bytes
      for (const value of values) this.#each(value)
    } finally {
      closeSync(file)
    }
  }
}
