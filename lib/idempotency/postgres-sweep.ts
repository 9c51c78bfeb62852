/**
 * Removes what the inbox need not remember any more, bit by bit, at the end of transactions that claim or settle.
 *
 *     due ─▶ SAVEPOINT ─▶ removed ─▶ due again at once where there was more, else in a second; not before nine times as long as it took
 *                            └─failed, or too slow─▶ ROLLBACK TO SAVEPOINT ─▶ due again in a minute, for less
 *
 * Promises: what it costs does not grow with what is remembered; it takes at most a tenth of the time, also where it is slow (while a
 * transaction is open somewhere for hours, Postgres steps over all that was removed since); a removal that fails or takes too long
 * costs nobody an answer.
 * Does NOT promise that an expired record is gone: whoever reads one takes it for absent.
 */
import type { Ask } from './postgres-link.ts'
import * as sql from './postgres-statements.ts'

/** Expired records are looked for this often, and sooner as long as there are more of them. */
const EVERY_MS = 1_000
const AFTER_FAILURE_MS = 60_000
/** For each millisecond that it takes, so many pass without. */
const PAUSE_PER_MS = 9
/** So many are removed per record touched since, within bounds. */
const SWEPT_PER_RECORD = 2
const SWEPT_AT_LEAST = 64
const SWEPT_AT_MOST = 1_024
const SWEPT_OWNERS = 16

/** The sweeping of one store. */
export class PostgresSweep {
  /** Of the time a statement may take, the half: whoever waits for the locks of the transaction waits as long. */
  readonly #limit: string
  #dueAt = performance.now() + EVERY_MS
  #failed = false
  /** Records touched since the last time. */
  #touched = 0

  constructor(statementTimeoutMs: number) {
    this.#limit = `SET LOCAL statement_timeout = ${Math.ceil(statementTimeoutMs / 2)}`
  }

  /** The last work of a transaction that touched so many records. @throws only what ends the transaction, too */
  async run(ask: Ask, touched: number): Promise<void> {
    this.#touched += touched
    const began = performance.now()
    if (began < this.#dueAt) return
    this.#dueAt = began + AFTER_FAILURE_MS
    await ask('SAVEPOINT sweep')
    try {
      await ask(this.#limit)
      const more = await this.#sweep(ask)
      const ended = performance.now()
      this.#dueAt = ended + Math.max(more ? 0 : EVERY_MS, (ended - began) * PAUSE_PER_MS)
      this.#failed = false
    } catch (error) {
      this.#failed = true
      if (!isVerdict(error)) throw error
      await ask('ROLLBACK TO SAVEPOINT sweep')
    }
  }

  /** @returns whether there may be more */
  async #sweep(ask: Ask): Promise<boolean> {
    const wanted = this.#failed ? 0 : this.#touched * SWEPT_PER_RECORD
    const limit = Math.min(SWEPT_AT_MOST, Math.max(SWEPT_AT_LEAST, wanted))
    this.#touched = 0
    const [row] = await ask(sql.SWEEP, [limit])
    if (Number(row?.['swept']) >= limit) return true
    await ask(sql.SWEEP_OWNERS, [SWEPT_OWNERS])
    return false
  }
}

/** Does Postgres say so, and not the lack of its answer? */
function isVerdict(error: unknown): boolean {
  return typeof (error as { code?: unknown }).code === 'string'
}
