/** Which letters are meant: ids, a filter, a span of time, and how many. Pure. */
import { InvalidOption } from '../errors.ts'
import { checkOptions, either, integer, listOf, text } from '../options.ts'
import { type Predicate, parseFilter } from './filter.ts'
import type { Letter } from './story.ts'

/** All conditions must hold; without any, every letter is meant. */
export interface Selection {
  /** Letters with one of these ids. */
  readonly ids?: readonly string[] | undefined
  /** A filter such as `error=TimeoutError and type=order.*`; see `FILTER_FIELDS`. */
  readonly where?: string | undefined
  /** Died at or after: a date, ISO 8601 text, or a time ago such as `90s`, `15m`, `2h`, `7d`. */
  readonly since?: Date | string | undefined
  /** Died before. The same forms. */
  readonly until?: Date | string | undefined
  /** At most so many, from the oldest on. Default: no limit. */
  readonly limit?: number | undefined
}

/** A selection that was checked and parsed. */
export interface CompiledSelection {
  readonly matches: Predicate
  /** Without any condition: every letter matches. */
  readonly all: boolean
  readonly limit: number
  /** The ids asked for, where nothing else decides: then looking can end once all were found. */
  readonly ids: ReadonlySet<string> | undefined
}

const UNIT_MS = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000, w: 604_800_000 } as const
const isDate = (value: unknown) => (value instanceof Date && !Number.isNaN(value.getTime()) ? undefined : 'a date')
const RULES = {
  ids: listOf(text(255)),
  where: text(10_000),
  since: either(text(64), isDate),
  until: either(text(64), isDate),
  limit: integer(1),
}

/** @throws InvalidOption; for a filter with the column of the mistake */
export function compileSelection(selection: Selection, now = Date.now()): CompiledSelection {
  checkOptions('selection', selection, RULES)
  const { ids, where, since, until, limit = Number.POSITIVE_INFINITY } = selection
  const wanted = ids === undefined ? undefined : new Set(ids)
  const parts: Predicate[] = []
  if (wanted) parts.push((letter) => wanted.has(letter.id))
  if (where !== undefined) parts.push(parseFilter(where))
  if (since !== undefined) parts.push(after(timeOf('since', since, now)))
  if (until !== undefined) parts.push(before(timeOf('until', until, now)))
  return { matches: (letter) => parts.every((part) => part(letter)), all: parts.length === 0, limit, ids: wanted }
}

/** When a letter died, as far as known: dead-lettered, else published. */
export function timeOfLetter(letter: Letter): Date | undefined {
  return letter.deadAt ?? letter.publishedAt
}

function after(time: number): Predicate {
  return (letter) => (timeOfLetter(letter)?.getTime() ?? Number.NEGATIVE_INFINITY) >= time
}

function before(time: number): Predicate {
  return (letter) => (timeOfLetter(letter)?.getTime() ?? Number.POSITIVE_INFINITY) < time
}

function timeOf(name: string, value: Date | string, now: number): number {
  if (value instanceof Date) return value.getTime()
  const [, count, unit] = /^(\d{1,9}(?:\.\d{1,3})?)\s*([smhdw])$/.exec(value.trim()) ?? []
  if (count !== undefined) return now - Number(count) * UNIT_MS[unit as keyof typeof UNIT_MS]
  const time = /^\d{4}-\d{2}-\d{2}/.test(value) ? Date.parse(value) : Number.NaN
  if (Number.isFinite(time)) return time
  throw new InvalidOption(
    `expected ${name} to be a time ago such as 90s, 15m, 2h, 7d, or a date such as 2025-06-30T12:00:00Z, got "${value}"`,
  )
}
