// Reads the ledgers while they are written: how far the work is, and what it still waits for.
//
// Promises: keeps only what is open, however long the run. Does NOT judge: see `../reconcile.ts`.

import { LedgerReader } from '../ledger/reader.ts'
import type { Noted, Path } from '../ledger.ts'
import type { Progress } from '../world.ts'

/** A run whose end is not on record. */
interface Begun {
  readonly by: number
  readonly token: number
}

interface Open {
  readonly path: Path | undefined
  /** Its letter is to be sent again. */
  readonly revived: boolean
  accepted: boolean
  handled: boolean
  /** It has died or was dropped: the end of most, but not of one whose letter is to be sent again. */
  buried: boolean
}

/** What somebody did with a message of which its producer's file has not told yet. */
const UNKNOWN: Open = { path: undefined, revived: false, accepted: false, handled: false, buried: false }

/** See the head of this file. */
export class Follower {
  /** Accepted, and not yet handled or dead. */
  readonly waiting: Record<Path, number> = { direct: 0, outbox: 0, half: 0 }
  readonly #reader: LedgerReader
  readonly #open = new Map<string, Open>()
  /** By id: its newest run, until that has ended. */
  readonly #begun = new Map<string, Begun>()
  readonly #inWork = new Map<number, number>()
  readonly #takenFrom = new Map<number, number>()
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

  /** How many handlers of a process have begun and not ended; letters it has sent again in a replay under way; half messages it has not decided, and checks. */
  inWork(worker: number): number {
    return this.#inWork.get(worker) ?? 0
  }

  /** How many of those were begun anew by another process. */
  takenFrom(worker: number): number {
    return this.#takenFrom.get(worker) ?? 0
  }

  #take(entry: Noted): void {
    if (entry.is === 'started') this.#begin(entry)
    else if ((entry.is === 'ended' && entry.token > 0) || entry.is === 'denied') this.#finish(entry)
    else if (entry.is === 'died') this.#inWork.delete(entry.worker)
    else if (entry.is === 'replayed' || entry.is === 'prepared' || entry.is === 'checking')
      this.#count(this.#inWork, entry.by, 1)
    else if (entry.is === 'said' || entry.is === 'checked') this.#count(this.#inWork, entry.by, -1)
    else if (entry.is === 'replaying') this.#inWork.delete(entry.by)
    if (entry.is === 'offered') this.#offer(entry)
    else if (entry.is === 'told' && entry.outcome === 'confirmed') this.#accept(entry.id)
    else if (entry.is === 'effect') this.#handle(entry.id)
    else if (entry.is === 'dropped') this.#bury(entry.id)
    else if (entry.is === 'ended' && entry.as === 'dead') this.#bury(entry.id)
    else if (entry.is === 'ended' && entry.as === 'completed' && entry.token === 0) this.#handle(entry.id)
  }

  #begin({ id, by, token }: Noted & { is: 'started' }): void {
    const before = this.#begun.get(id)
    if (before) this.#count(this.#inWork, before.by, -1)
    if (before && before.by !== by) this.#count(this.#takenFrom, before.by, 1)
    this.#begun.set(id, { by, token })
    this.#count(this.#inWork, by, 1)
  }

  #finish({ id, by, token }: Noted & { is: 'ended' | 'denied' }): void {
    const begun = this.#begun.get(id)
    if (begun?.by !== by || begun.token !== token) return
    this.#begun.delete(id)
    this.#count(this.#inWork, by, -1)
  }

  #count(counts: Map<number, number>, worker: number, more: number): void {
    counts.set(worker, (counts.get(worker) ?? 0) + more)
  }

  #offer({ id, path, fate }: Noted & { is: 'offered' }): void {
    this.#offered++
    const known = this.#open.get(id)
    const handled = known?.handled || (known?.buried === true && fate !== 'revived')
    this.#open.set(id, { path, revived: fate === 'revived', accepted: false, handled, buried: false })
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
    if (!open) return void this.#open.set(id, { ...UNKNOWN, handled: true })
    if (open.handled) return
    open.handled = true
    if (!open.accepted) return
    if (open.path) this.waiting[open.path]--
    this.#end(id)
  }

  #bury(id: string): void {
    const open = this.#open.get(id)
    if (open?.path === undefined) this.#open.set(id, { ...(open ?? UNKNOWN), buried: true })
    else if (!open.revived) this.#handle(id)
  }

  #end(id: string): void {
    this.#handled++
    this.#open.delete(id)
  }
}
