// Appends to the ledger of this process.
//
// Promises: `write` returns when the entry, and all noted before it, is with the kernel, which outlives us. `note` costs no system
// call of its own: the entry goes with the next `write`, at the latest at the end of this turn of the event loop. Note only what
// nobody relies on yet: what we were told, as long as nothing is done because of it before the turn ends.

import { closeSync, mkdirSync, openSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import type { Entry } from '../ledger.ts'
import { lineOf } from './lines.ts'

/** The ledger file of one process. */
export class LedgerWriter {
  readonly #file: number
  #noted = ''
  #planned: NodeJS.Immediate | undefined

  /** @param worker number of this process; a number is used once */
  constructor(folder: string, worker: number) {
    mkdirSync(folder, { recursive: true })
    this.#file = openSync(join(folder, `${worker}`), 'ax')
  }

  /** On record when this returns. */
  write(entry: Entry): void {
    this.#noted += `${lineOf(entry)}\n`
    this.flush()
  }

  /** On record at the end of this turn. */
  note(entry: Entry): void {
    this.#noted += `${lineOf(entry)}\n`
    this.#planned ??= setImmediate(() => this.flush())
  }

  /** Puts all that was noted on record. */
  flush(): void {
    if (this.#planned) clearImmediate(this.#planned)
    this.#planned = undefined
    const bytes = Buffer.from(this.#noted)
    this.#noted = ''
    for (let at = 0; at < bytes.length; ) at += writeSync(this.#file, bytes, at)
  }

  close(): void {
    this.flush()
    closeSync(this.#file)
  }
}
