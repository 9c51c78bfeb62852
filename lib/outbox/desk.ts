/**
 * The desk of the outbox: what waits, what is held or parked and why, and what to do about it. The one API behind
 * `surehop outbox`, and what others build on it. Needs the database only, no broker.
 *
 * Promises: looking changes nothing and locks nothing; memory does not grow with the number of rows; whatever is done to rows is
 * done in batches, each whole or not at all, and leaves the order of keys as it can be (see `heads.ts`); nothing is ever deleted
 * but by `drop`.
 * Does NOT promise that a row parked or dropped in the moment of its turn was not sent: outcomes say where that may be.
 */
import { callable, checkOptions, flag, given, having, integer, needed, object, oneOf, text } from '../options.ts'
import type { SqlPool, SqlRow } from '../sql/client.ts'
import { DEFAULT_SCHEMA, inSchema, schemaName } from '../sql/schema.ts'
import { explainSql } from '../sql/trouble.ts'
import { act, type DeskVerb, judged } from './desk-acts.ts'
import {
  batchesOf,
  checkRefs,
  checkSelection,
  type DeskOptions,
  type DeskResult,
  type DeskSelection,
  means,
  type OutboxRef,
  position,
  Tally,
} from './desk-selection.ts'
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

const PAGE_ROWS = 200
/** The sequence begins at 1; rows written by hand may stand anywhere. */
const FIRST_POSITION = -(2n ** 63n)
const LAST_POSITION = 2n ** 63n - 1n

const RULES = {
  pool: needed(having("a pool such as pg's, with query() and connect()", 'query', 'connect')),
  schema: schemaName,
  name: text(128),
}
const LIST_RULES = { state: oneOf(...STATES), limit: integer(1), after: position }
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
    const { state = 'parked', limit = Number.POSITIVE_INFINITY, after } = given(options)
    const from = after === undefined ? FIRST_POSITION : BigInt(after) + 1n
    yield* this.#pages(state, from, LAST_POSITION, limit)
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
      return { missing: [], batches: batchesOf(this.#pages(state!, FIRST_POSITION, await this.#last(), limit)) }
    const rows = (await this.#find(refs, COLUMNS)).map(rowOf)
    const missing = refs.filter((ref) => !rows.some((row) => means(ref, row)))
    return { missing, batches: batchesOf(rows.slice(0, limit)) }
  }

  async *#pages(state: OutboxState, first: bigint, last: bigint, limit: number): AsyncGenerator<OutboxRow> {
    for (let [left, from] = [limit, first]; left > 0 && from <= last; ) {
      const bounds = [String(from), String(last), Math.min(PAGE_ROWS, left)]
      const rows = (await this.#query(PAGE, [this.name ?? null, state, ...bounds])).map(rowOf)
      yield* rows
      if (rows.length < PAGE_ROWS) return
      left -= rows.length
      from = BigInt(rows.at(-1)!.position) + 1n
    }
  }

  #find(refs: readonly OutboxRef[], columns: string): Promise<readonly SqlRow[]> {
    checkRefs(refs)
    const ids = refs.filter((ref) => typeof ref === 'string')
    const positions = refs.filter((ref) => typeof ref !== 'string').map(String)
    return this.#query(FIND(columns), [this.name ?? null, ids, positions])
  }

  async #last(): Promise<bigint> {
    const [row] = await this.#query(LAST, [])
    return BigInt(String(row!['last']))
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
