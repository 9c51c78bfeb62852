// Reads the ledgers while they are written: how far the work is, and what it still waits for.
//
// Promises: keeps only what is open, however long the run. Does NOT judge: see `../reconcile.ts`.

import { LedgerReader } from '../ledger/reader.ts'
import type { Noted, Path } from '../ledger.ts'
import type { Progress } from '../world.ts'

interface Open {
  readonly path: Path | undefined
  accepted: boolean
  handled: boolean
}

/** See the head of this file. */
export class Follower {
  /** Accepted, and not yet handled or dead. */
  readonly waiting: Record<Path, number> = { direct: 0, outbox: 0 }
  readonly #reader: LedgerReader
  readonly #open = new Map<string, Open>()
  #offered = 0
  #accepted = 0
  #handled = 0

  constructor(folder: string) {
    this.#reader = new LedgerReader(folder)
  }

  get progress(): Progress {
    return { offered: this.#offered, accepted: this.#accepted, handled: this.#handled }
  }

  /** Reads what has come. */
  look(): void {
    for (const entry of this.#reader.entries()) this.#take(entry)
  }

  /** The first few that are accepted and wait. */
  missing(most: number): string[] {
    const ids: string[] = []
    for (const [id, { accepted, handled }] of this.#open) {
      if (accepted && !handled) ids.push(id)
      if (ids.length === most) break
    }
    return ids
  }

  #take(entry: Noted): void {
    if (entry.is === 'offered') this.#offer(entry.id, entry.path)
    else if (entry.is === 'told' && entry.outcome === 'confirmed') this.#accept(entry.id)
    else if (entry.is === 'effect' || entry.is === 'dropped') this.#handle(entry.id)
    else if (entry.is === 'ended' && (entry.as === 'dead' || (entry.as === 'completed' && entry.token === 0)))
      this.#handle(entry.id)
  }

  #offer(id: string, path: Path): void {
    this.#offered++
    this.#open.set(id, { path, accepted: false, handled: this.#open.get(id)?.handled ?? false })
  }

  #accept(id: string): void {
    const open = this.#open.get(id)
    if (!open || open.accepted) return
    this.#accepted++
    open.accepted = true
    if (open.handled) this.#end(id)
    else if (open.path) this.waiting[open.path]++
  }

  #handle(id: string): void {
    const open = this.#open.get(id)
    // Known by another file, or ended before.
    if (!open) return void this.#open.set(id, { path: undefined, accepted: false, handled: true })
    if (open.handled) return
    open.handled = true
    if (!open.accepted) return
    if (open.path) this.waiting[open.path]--
    this.#end(id)
  }

  #end(id: string): void {
    this.#handled++
    this.#open.delete(id)
  }
}
