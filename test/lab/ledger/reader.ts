// Reads ledgers back, also while their processes still write.
//
// Promises: entries stream in the order of each file, no matter how large it is; a last line without its line feed is not given, and
// given later if the rest of it comes. A line in the middle that cannot be read is an error: nothing but a death tears a line.

import { closeSync, openSync, readdirSync, readSync } from 'node:fs'
import { join } from 'node:path'
import type { Noted } from '../ledger.ts'
import { entryOf } from './lines.ts'

const CHUNK_BYTES = 1 << 20
const LINE_FEED = 0x0a

/** Goes through all files of a folder, and goes on from there when asked again. */
export class LedgerReader {
  readonly #folder: string
  /** Worker -> bytes read so far. */
  readonly #read = new Map<number, number>()
  readonly #chunk = Buffer.allocUnsafe(CHUNK_BYTES)
  /** Files that end in the middle of a line, as far as was read. */
  torn = 0

  constructor(folder: string) {
    this.#folder = folder
  }

  /** What has come since the last time. */
  *entries(): Generator<Noted> {
    this.torn = 0
    const workers = readdirSync(this.#folder)
      .filter((name) => /^\d+$/.test(name))
      .map(Number)
    for (const worker of workers.sort((a, b) => a - b)) yield* this.#fileOf(worker)
  }

  *#fileOf(by: number): Generator<Noted> {
    const file = openSync(join(this.#folder, `${by}`), 'r')
    try {
      for (;;) {
        const from = this.#read.get(by) ?? 0
        const bytes = readSync(file, this.#chunk, 0, CHUNK_BYTES, from)
        const end = this.#chunk.subarray(0, bytes).lastIndexOf(LINE_FEED) + 1
        if (end > 0) yield* linesIn(this.#chunk.toString('utf8', 0, end - 1), by)
        this.#read.set(by, from + end)
        if (bytes < CHUNK_BYTES || end === 0) {
          if (bytes > end) this.torn++
          return
        }
      }
    } finally {
      closeSync(file)
    }
  }
}

function* linesIn(lines: string, by: number): Generator<Noted> {
  for (const line of lines.split('\n')) yield Object.assign(entryOf(line), { by })
}
