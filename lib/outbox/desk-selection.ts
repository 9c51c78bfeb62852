/** Which rows an operator means, and the tally of what was done to them. Pure. */
import { InvalidOption } from '../errors.ts'
import { checkOptions, integer, listOf, oneOf, type Rule } from '../options.ts'
import type { DeskOutcome, DeskVerb } from './desk-acts.ts'
import { type OutboxRow, type OutboxState, STATES } from './rows.ts'

/** Which row: a message id (text), or a position (a number). */
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

const MAX_POSITION = 2n ** 63n - 1n
const MIN_POSITION = -(2n ** 63n)

/** A position, also as text. */
export const position: Rule = (value) => {
  const whole =
    Number.isSafeInteger(value) ||
    typeof value === 'bigint' ||
    (typeof value === 'string' && /^-?\d{1,19}$/.test(value))
  const fits = whole && BigInt(value as string) >= MIN_POSITION && BigInt(value as string) <= MAX_POSITION
  return fits ? undefined : 'a position: a whole number'
}

const ref: Rule = (value) => {
  const fits = typeof value === 'string' ? value !== '' && !value.includes('\0') : position(value) === undefined
  return fits ? undefined : 'a message id (text) or a position (a whole number)'
}

const RULES = { rows: listOf(ref), state: oneOf(...STATES), limit: integer(1) }

/** @throws InvalidOption */
export function checkRefs(rows: readonly OutboxRef[]): void {
  checkOptions('outbox desk', { rows }, RULES)
}

/** @throws InvalidOption */
export function checkSelection(verb: DeskVerb, selection: DeskSelection): void {
  checkOptions(`${verb}()`, selection, RULES)
  if ((selection.rows === undefined) === (selection.state === undefined))
    throw new InvalidOption(`${verb}(): expected either rows or a state, to say which rows are meant`)
}

/** Is this the row that is asked for? */
export function means(ref: OutboxRef, { messageId, position }: OutboxRow): boolean {
  return typeof ref === 'string' ? ref === messageId : String(ref) === position
}

const BATCH_ROWS = 100

/** Rows in groups that are dealt with together. */
export async function* batchesOf(rows: AsyncIterable<OutboxRow> | Iterable<OutboxRow>): AsyncGenerator<OutboxRow[]> {
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
export class Tally {
  /** Names of the outboxes in which something was done. */
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
    return { done, skipped: this.#skipped, mayBeSent: this.#mayBeSent, outOfOrder: this.#outOfOrder, missing, stopped }
  }
}
