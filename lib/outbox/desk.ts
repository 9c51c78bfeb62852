/**
 * The desk of the outbox: what waits, what is held or parked and why, and what to do about it. The one API behind
 * `surehop outbox`, and what others build on it. Needs the database only, no broker.
 *
 * Promises: looking changes nothing and locks nothing; memory does not grow with the number of rows; whatever is done to rows is
 * done in batches, each whole or not at all, and leaves the order of keys as it can be (see `heads.ts`); nothing is ever deleted
 * but by `drop`.
 * Does NOT promise that a row parked or dropped in the moment of its turn was not sent: outcomes say where that may be.
 */
import { InvalidOption } from '../errors.ts'
import {
  callable,
  checkOptions,
  flag,
  given,
  having,
  integer,
  listOf,
  needed,
  object,
  oneOf,
  text,
} from '../options.ts'
import type { SqlPool, SqlRow } from '../sql/client.ts'
import { DEFAULT_SCHEMA, inSchema, schemaName } from '../sql/schema.ts'
import { explainSql } from '../sql/trouble.ts'
import { act, type DeskOutcome, type DeskVerb, judged } from './desk-acts.ts'
import { FIND, LAST, PAGE } from './desk-sql.ts'
import { type OutboxStatus, readStatus } from './desk-status.ts'
import { HINT_CHANNEL } from './hints.ts'
import { COLUMNS, type FullOutboxRow, fullRowOf, type OutboxRow, type OutboxState, rowOf, STATES } from './rows.ts'

/** Options of a desk. */
export interface OutboxDeskOptions {
  /** A pool of the database, such as `pg`'s. The caller closes it. */
  readonly pool: SqlPool
  /** The Postgres schema of Surehop's tables. Default `surehop`. */
  readonly schema?: string
  /** Only this outbox. Default: all of the schema. */
  readonly name?: string
}

/** Which row: a message id, a position as a number, or a position as text, `#17`. */
export type OutboxRef = string | number | bigint

/** Which rows are meant: some of them, or all of a state. */
export interface DeskSelection {
  readonly rows?: readonly OutboxRef[]
  /** All in this state when the call begins. Either this or `rows`. */
  readonly state?: OutboxState
  /** At most so many, by position. Default: all. */
  readonly limit?: number
}

/** How rows are dealt with. */
export interface DeskOptions {
  /** Only say what would be done. */
  readonly dryRun?: boolean
  /** `drop` only: rows that are not parked, too. */
  readonly force?: boolean
  /** Ends between two batches. */
  readonly signal?: AbortSignal
  /** Told of each row, after its batch was done. */
  readonly onOutcome?: (outcome: DeskOutcome) => void
}

/** What was done. */
export interface DeskResult {
  readonly done: number
  /** Those left as they are: in another state, or gone. */
  readonly skipped: number
  /** Of those done: so many may have been sent in the same moment. */
  readonly mayBeSent: number
  /** Of those done: so many have a key, and go after whatever of it was sent meanwhile. */
  readonly outOfOrder: number
  /** Of the rows asked for by name: those that are not there. */
  readonly missing: readonly OutboxRef[]
  readonly stopped: 'done' | 'interrupted'
}

const PAGE_ROWS = 200
const BATCH_ROWS = 100
const LAST_POSITION = '9223372036854775807'

const RULES = {
  pool: needed(having("a pool such as pg's, with query() and connect()", 'query', 'connect')),
  schema: schemaName,
  name: text(128),
}
const LIST_RULES = { state: oneOf(...STATES), limit: integer(1), after: (value: unknown) => refRule(value) }
const SELECTION_RULES = { rows: listOf(refRule), state: oneOf(...STATES), limit: integer(1) }
const ACT_RULES = { dryRun: flag, force: flag, signal: object, onOutcome: callable }

/** What can be seen of the rows of an outbox, and done to them. */
export class OutboxDesk {
  readonly schema: string
  readonly name: string | undefined
  readonly #pool: SqlPool

  /** @throws InvalidOption */
  constructor(options: OutboxDeskOptions) {
    checkOptions('new OutboxDesk()', options, RULES)
    this.schema = options.schema ?? DEFAULT_SCHEMA
    this.name = options.name
    this.#pool = options.pool
  }

  /**
   * The rows in a state, `parked` by default, by position; read page by page as they are asked for.
   * @throws InvalidOption, SchemaMismatch, PermissionRefused, DatabaseUnavailable
   */
  async *list(
    options: { readonly state?: OutboxState; readonly limit?: number; readonly after?: number | bigint | string } = {},
  ): AsyncGenerator<OutboxRow> {
    checkOptions('list()', options, LIST_RULES)
    const { state = 'parked', limit = Number.POSITIVE_INFINITY, after = 0 } = given(options)
    yield* this.#pages(state, String(after).replace(/^#/, ''), LAST_POSITION, limit)
  }

  /**
   * The rows of a message with body and headers: normally one, none if there is none. Looked for by message id, all of the table
   * is read, what was sent included; by position it is found at once.
   * @throws InvalidOption, SchemaMismatch, PermissionRefused, DatabaseUnavailable
   */
  async show(ref: OutboxRef): Promise<FullOutboxRow[]> {
    return (await this.#find([ref], FULL)).map(fullRowOf)
  }

  /**
   * Has parked rows tried again, their attempts counted anew, and held ones at once. A parked row of a key goes out of order:
   * its key went on without it.
   * @throws InvalidOption; SchemaMismatch, PermissionRefused, DatabaseUnavailable: batches told of before are done
   */
  retry(selection: DeskSelection, options: DeskOptions = {}): Promise<DeskResult> {
    return this.#act('retry', selection, options)
  }

  /**
   * Gives up on rows that are ready or held, until they are retried or dropped; their keys go on without them.
   * @throws as `retry`
   */
  park(selection: DeskSelection, options: DeskOptions = {}): Promise<DeskResult> {
    return this.#act('park', selection, options)
  }

  /**
   * Deletes parked rows for good; with `force` others, too, their keys go on without them.
   * @throws as `retry`
   */
  drop(selection: DeskSelection, options: DeskOptions = {}): Promise<DeskResult> {
    return this.#act('drop', selection, options)
  }

  /**
   * How each outbox stands: what waits, since when, and who sends it.
   * @throws SchemaMismatch, PermissionRefused, DatabaseUnavailable
   */
  status(): Promise<OutboxStatus[]> {
    return this.#explained(() => readStatus(this.#pool, this.schema, this.name))
  }

  async #act(verb: DeskVerb, selection: DeskSelection, options: DeskOptions): Promise<DeskResult> {
    checkSelection(verb, selection)
    checkOptions(`${verb}(): options`, options, ACT_RULES)
    const { force = false, dryRun, signal, onOutcome } = options
    const tally = new Tally()
    const { missing, batches } = await this.#selected(selection)
    for await (const rows of batches) {
      if (signal?.aborted) return tally.result(missing, 'interrupted')
      const outcomes = dryRun
        ? rows.map((row) => judged(verb, row, row, force))
        : await this.#explained(() => act(this.#pool, { schema: this.schema, verb, rows, force }))
      for (const outcome of outcomes) {
        tally.add(outcome)
        onOutcome?.(outcome)
      }
    }
    if (!dryRun && tally.done > 0) await this.#hint(tally.outboxes)
    return tally.result(missing, 'done')
  }

  async #selected({ rows: refs, state, limit = Number.POSITIVE_INFINITY }: DeskSelection) {
    if (refs === undefined)
      return { missing: [], batches: batchesOf(this.#pages(state!, '0', await this.#last(), limit)) }
    const rows = (await this.#find(refs, COLUMNS)).map(rowOf)
    const missing = refs.filter((ref) => !rows.some((row) => means(ref, row)))
    return { missing, batches: batchesOf(rows.slice(0, limit)) }
  }

  async *#pages(state: OutboxState, after: string, last: string, limit: number): AsyncGenerator<OutboxRow> {
    for (let [left, from] = [limit, after]; left > 0; ) {
      const rows = (await this.#query(PAGE, [this.name ?? null, state, from, last, Math.min(PAGE_ROWS, left)])).map(
        rowOf,
      )
      yield* rows
      if (rows.length < PAGE_ROWS) return
      left -= rows.length
      from = rows.at(-1)!.position
    }
  }

  #find(refs: readonly OutboxRef[], columns: string): Promise<readonly SqlRow[]> {
    checkOptions('outbox desk', { rows: refs }, SELECTION_RULES)
    const ids = refs.filter((ref) => typeof ref === 'string')
    const positions = refs.flatMap((ref) => positionOf(ref) ?? [])
    return this.#query(FIND(columns), [this.name ?? null, ids, positions])
  }

  async #last(): Promise<string> {
    const [row] = await this.#query(LAST, [])
    return String(row!['last'])
  }

  async #query(sql: string, parameters: unknown[]): Promise<readonly SqlRow[]> {
    return this.#explained(
      async () => (await this.#pool.query(inSchema(this.schema, sql), parameters)).rows as SqlRow[],
    )
  }

  #explained<T>(run: () => Promise<T>): Promise<T> {
    return run().catch((error: unknown) => {
      throw explainSql(error, `asking the outbox in schema "${this.schema}"`)
    })
  }

  /** Relays look at once; if it fails, they look a little later. */
  async #hint(outboxes: ReadonlySet<string>): Promise<void> {
    for (const name of outboxes)
      await this.#pool.query('SELECT pg_notify($1, $2)', [HINT_CHANNEL, `${this.schema}.${name}`]).catch(() => {})
  }
}

const FULL = `${COLUMNS}, body`

function checkSelection(verb: DeskVerb, selection: DeskSelection): void {
  checkOptions(`${verb}()`, selection, SELECTION_RULES)
  if ((selection.rows === undefined) === (selection.state === undefined))
    throw new InvalidOption(`${verb}(): expected either rows or a state, to say which rows are meant`)
}

function refRule(value: unknown): string | undefined {
  const fits = typeof value === 'string' ? value !== '' : typeof value === 'bigint' || Number.isSafeInteger(value)
  return fits ? undefined : 'a message id, a position, or a position as text such as "#17"'
}

/** Position of a reference that can be one. */
function positionOf(ref: OutboxRef): string | undefined {
  if (typeof ref !== 'string') return String(ref)
  return /^#\d{1,18}$/.test(ref) ? String(BigInt(ref.slice(1))) : undefined
}

function means(ref: OutboxRef, { messageId, position }: OutboxRow): boolean {
  return ref === messageId || positionOf(ref) === position
}

async function* batchesOf(rows: AsyncIterable<OutboxRow> | Iterable<OutboxRow>): AsyncGenerator<OutboxRow[]> {
  let batch: OutboxRow[] = []
  for await (const row of rows) {
    batch.push(row)
    if (batch.length < BATCH_ROWS) continue
    yield batch
    batch = []
  }
  if (batch.length > 0) yield batch
}

/** Counts outcomes. */
class Tally {
  readonly outboxes = new Set<string>()
  done = 0
  #skipped = 0
  #mayBeSent = 0
  #outOfOrder = 0

  add({ row, done, mayBeSent, outOfOrder }: DeskOutcome): void {
    if (done) this.outboxes.add(row.outbox)
    if (done) this.done++
    else this.#skipped++
    if (mayBeSent) this.#mayBeSent++
    if (outOfOrder) this.#outOfOrder++
  }

  result(missing: readonly OutboxRef[], stopped: DeskResult['stopped']): DeskResult {
    const { done } = this
    return {
      done,
      skipped: this.#skipped,
      mayBeSent: this.#mayBeSent,
      outOfOrder: this.#outOfOrder,
      missing,
      stopped,
    }
  }
}
