/** `--id --where --since --until --limit`, for every command that means some letters; and what a person was asked about. */
import { type Command, InvalidArgumentError } from 'commander'
import { compileSelection, FILTER_FIELDS, type Selection } from '../lib/index.ts'

export interface SelectionFlags {
  readonly id?: readonly string[]
  readonly where?: string
  readonly since?: string
  readonly until?: string
  readonly limit?: number
}

export function selectionFlags(command: Command): Command {
  return command
    .option('--id <id>', 'this letter; may be repeated', (id: string, before: string[] = []) => [...before, id])
    .option('--where <filter>', "e.g. 'error=TimeoutError and type=order.*'; see below", onlyFilter)
    .option('--since <time>', 'died at or after: 90s, 15m, 2h, 7d ago, or a date')
    .option('--until <time>', 'died before; the same forms')
    .option('--limit <count>', 'at most so many, the oldest first', wholeNumber)
}

/** The last of two would win, and mean more letters than both together. */
function onlyFilter(filter: string, before?: string): string {
  if (before === undefined) return filter
  throw new InvalidArgumentError('expected it once: join two filters with "and" or "or"')
}

/** Says how to write a filter. */
export const FILTER_HELP = `
Filter: FIELD OPERATOR VALUE, joined by and, or, not and parentheses.
  fields     ${FILTER_FIELDS.join(' ')}
  operators  = != (with * for any text; on message: contains)  ~ !~ (regular expression)  > >= < <= (numbers)`

/** @throws InvalidOption */
export function selectionOf({ id, where, since, until, limit }: SelectionFlags): Selection {
  const selection = { ids: id, where, since, until, limit }
  compileSelection(selection)
  return selection
}

/** So many ids are kept in memory. */
const MOST = 100_000

/** The letters a person was asked about. The answer may come late, and others may have come, or have been taken away, meanwhile. */
export class Asked {
  readonly #ids = new Set<string>()

  add({ id }: { readonly id: string }): void {
    if (this.#ids.size <= MOST) this.#ids.add(id)
  }

  /** Those and no others; beyond 100,000 at least no more than `count`. */
  of(selection: Selection, count: number): Selection {
    return { ...selection, limit: count, ids: this.#ids.size > MOST ? selection.ids : [...this.#ids] }
  }
}

/** Finds letters of one id and different generations: an edit that was cut off leaves the original beside the edited one. */
export class Versions {
  /** An older one, the first that was found. */
  older: Version | undefined
  readonly #newest = new Map<string, number>()

  add({ id, generation }: Version): void {
    const known = this.#newest.get(id)
    if (known !== undefined && known !== generation) this.older ??= { id, generation: Math.min(known, generation) }
    if (known !== undefined || this.#newest.size < MOST) this.#newest.set(id, Math.max(known ?? 0, generation))
  }
}

interface Version {
  readonly id: string
  readonly generation: number
}

/** Is anything said about which letters are meant? */
export function isWhole({ ids, where, since, until, limit }: Selection): boolean {
  return [ids, where, since, until, limit].every((part) => part === undefined)
}

export function wholeNumber(text: string): number {
  const value = Number(text)
  if (!/^\d{1,9}$/.test(text) || value < 1) throw new InvalidArgumentError('expected a whole number from 1')
  return value
}
