/**
 * The records of one batch while their rows are locked, and who of their holders lives.
 *
 * Promises: what is decided on is what is in the table, for as long as the transaction lasts; only what a decision changed is
 * written; a holder that was judged dead is told so by its next renewal. Who was away itself judges nobody.
 */
import type { SqlRow } from '../sql/client.ts'
import type { Scope } from './idempotency.ts'
import type { Ask } from './postgres-link.ts'
import { recordOf, rowOf, textKey } from './postgres-rows.ts'
import * as sql from './postgres-statements.ts'
import { type IdempotencyRecord, wasAway } from './record.ts'

/** Locks the rows of some ids. */
export type Lock = (ask: Ask, scope: Scope, asked: readonly { readonly id: string }[]) => Promise<LockedRecords>

/** Owners by name, until when each lives, and the database's time when that was sure. */
export interface Presences {
  readonly nowUs: number
  /** Epoch ms. */
  readonly untilMs: ReadonlyMap<string, number>
}

/** Records under lock, by id. */
export class LockedRecords {
  readonly #scope: Scope
  readonly #records = new Map<string, IdempotencyRecord | undefined>()
  readonly #changed = new Set<string>()
  readonly #made = new Set<string>()
  /** Every id asked for has its row. */
  readonly complete: boolean
  /** The database's clock once all rows were locked, microseconds. */
  readonly nowUs: number

  private constructor(scope: Scope, keys: ReadonlySet<string>, rows: readonly SqlRow[]) {
    this.#scope = scope
    this.complete = rows.length === keys.size
    this.nowUs = Math.max(0, ...rows.map((row) => Number(row['now_us'])))
    for (const row of rows) {
      this.#records.set(row['id'] as string, recordOf(row))
      if (row['state'] === 'absent') this.#made.add(row['id'] as string)
    }
  }

  /** Locks the rows that are there. */
  static readonly present: Lock = async (ask, scope, asked) => {
    const keys = keysOf(asked)
    return new LockedRecords(scope, keys, await ask(sql.LOCK_PRESENT, [textKey(scope.name), JSON.stringify([...keys])]))
  }

  /** Locks all rows, and makes those that are missing. */
  static readonly all: Lock = async (ask, scope, asked) => {
    const keys = keysOf(asked)
    const place = [textKey(scope.name), JSON.stringify([...keys])]
    const made = await ask(sql.LOCK_ALL, [...place, scope.retentionMs])
    return new LockedRecords(scope, keys, made.length < keys.size ? await ask(sql.LOCK_PRESENT, place) : made)
  }

  get(id: string): IdempotencyRecord | undefined {
    return this.#records.get(textKey(id))
  }

  set(id: string, record: IdempotencyRecord | undefined): void {
    const key = textKey(id)
    if (this.#records.get(key) === record) return
    this.#records.set(key, record)
    this.#changed.add(key)
  }

  /** Who holds them. */
  holders(): Set<string> {
    const leased = [...this.#records.values()].flatMap((record) => (record?.state === 'leased' ? [record.owner] : []))
    return new Set(leased)
  }

  /** Writes what was changed; with `alive`, also keeps that owner alive. @returns since when it has been there without a gap */
  async write(ask: Ask, alive?: { readonly owner: string; readonly leaseMs: number }): Promise<number> {
    const { name, retentionMs } = this.#scope
    const place = textKey(name)
    const rows = [...this.#changed].flatMap((key) => {
      const record = this.#records.get(key)
      return record === undefined ? [] : [rowOf(key, record)]
    })
    const unused = [...this.#made].filter((key) => this.#records.get(key) === undefined)
    if (unused.length > 0) await ask(sql.REMOVE_ABSENT, [place, JSON.stringify(unused)])
    const written = [place, JSON.stringify(rows), retentionMs]
    if (!alive) {
      if (rows.length > 0) await ask(sql.WRITE, written)
      return 0
    }
    const [row] =
      rows.length > 0
        ? await ask(sql.WRITE_AND_KEEP_ALIVE, [...written, alive.owner, alive.leaseMs])
        : await ask(sql.KEEP_ALIVE, [place, alive.owner, alive.leaseMs])
    return Number(row!['since'])
  }
}

/** Who asks. */
export interface Asker {
  readonly owner: string
  /** When it began to ask, by the clock of this process (monotonic ms). */
  readonly since: number
}

/**
 * Sees which holders live, and until when the asker did, and keeps it so until the transaction ends: those that are dead are dead for
 * good, and will be told. Who has been asking for more than half of its lease was away too: its renewal, over another connection, may
 * have overtaken a claim that lay in the socket of a frozen database, and the renewals of others not.
 */
export async function presenceOf(ask: Ask, scope: Scope, asker: Asker, records: LockedRecords): Promise<Presences> {
  const { owner, since } = asker
  const others = records.holders()
  others.delete(owner)
  if (others.size === 0) return { nowUs: records.nowUs, untilMs: new Map() }
  const place = textKey(scope.name)
  const [row] = await ask(sql.LOCK_OWNERS, [place, JSON.stringify([owner, ...others])])
  const nowUs = Number(row!['now_us'])
  const untilMs = new Map(Object.entries((row!['untils'] ?? {}) as Record<string, number>))
  if (untilMs.has(owner) && performance.now() - since > scope.leaseMs / 2) untilMs.set(owner, 0)
  if (wasAway(untilMs.get(owner), nowUs, scope.leaseMs)) return { nowUs, untilMs }
  const dead = [...others].filter((name) => untilMs.has(name) && untilMs.get(name)! * 1_000 <= nowUs)
  if (dead.length > 0) await ask(sql.BURY, [place, JSON.stringify(dead)])
  return { nowUs, untilMs }
}

function keysOf(asked: readonly { readonly id: string }[]): Set<string> {
  return new Set(asked.map(({ id }) => textKey(id)))
}
