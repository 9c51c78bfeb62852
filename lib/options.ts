/**
 * Checks options before anything is opened: what was expected, what came, and a guess at typos.
 * A room states its options once, as a table of rules.
 */
import { InvalidOption } from './errors.ts'

/** Answers undefined when the value is fine, else what was expected: `an integer >= 1`. */
export type Rule = (value: unknown) => string | undefined

/** A table of rules, one per option. An option that is `undefined` is not checked unless its rule is `required`. */
export type Rules = Readonly<Record<string, Rule>>

const required = new WeakSet<Rule>()

/** Makes a rule refuse `undefined` too. */
export function needed(rule: Rule): Rule {
  const strict: Rule = (value) => rule(value)
  required.add(strict)
  return strict
}

/** An integer within bounds. */
export function integer(min = 0, max = Number.MAX_SAFE_INTEGER): Rule {
  const range = max === Number.MAX_SAFE_INTEGER ? `>= ${min}` : `from ${min} to ${max}`
  return (value) => (Number.isInteger(value) && within(value as number, min, max) ? undefined : `an integer ${range}`)
}

/** A finite number within bounds. */
export function number(min: number, max: number): Rule {
  return (value) =>
    typeof value === 'number' && within(value, min, max) ? undefined : `a number from ${min} to ${max}`
}

/** A non-empty string of at most `max` UTF-8 bytes (AMQP's short strings hold 255). */
export function text(max = 255): Rule {
  return (value) =>
    typeof value === 'string' && value.length > 0 && Buffer.byteLength(value) <= max
      ? undefined
      : `a non-empty string of at most ${max} bytes`
}

/** A string of at most `max` UTF-8 bytes that may be empty. */
export function maybeEmptyText(max = 255): Rule {
  return (value) =>
    typeof value === 'string' && Buffer.byteLength(value) <= max ? undefined : `a string of at most ${max} bytes`
}

/** True or false. */
export const flag: Rule = (value) => (typeof value === 'boolean' ? undefined : 'true or false')

/** A function. */
export const callable: Rule = (value) => (typeof value === 'function' ? undefined : 'a function')

/** Any object that is not an array. */
export const object: Rule = (value) =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? undefined : 'an object'

/** An object that has these methods. */
export function having(what: string, ...methods: readonly string[]): Rule {
  return (value) => {
    const candidate = value as Record<string, unknown> | null | undefined
    const fits = typeof candidate === 'object' && candidate && methods.every((m) => typeof candidate[m] === 'function')
    return fits ? undefined : what
  }
}

/** One of the given strings. */
export function oneOf(...choices: readonly string[]): Rule {
  return (value) => (choices.includes(value as string) ? undefined : `one of ${choices.join(', ')}`)
}

/** Either of several rules. */
export function either(...rules: readonly Rule[]): Rule {
  return (value) => {
    const complaints = rules.map((rule) => rule(value))
    return complaints.includes(undefined) ? undefined : complaints.join(', or ')
  }
}

/** An array of at least so many items, each of which follows a rule. */
export function listOf(rule: Rule, least = 0): Rule {
  const expected = least === 0 ? 'an array' : `an array of at least ${least}`
  return (value) => {
    if (!Array.isArray(value) || value.length < least) return expected
    const complaint = value.map(rule).find((c) => c !== undefined)
    return complaint === undefined ? undefined : `an array, each item ${complaint}`
  }
}

/**
 * Checks `given` against `rules`.
 * @param where what the options belong to, for the message: `consume("orders")`
 * @throws InvalidOption naming the option, what was expected and what came
 */
export function checkOptions(where: string, given: unknown, rules: Rules): void {
  if (object(given)) throw noOptions(where, given, rules)
  const options = given as Record<string, unknown>
  for (const name of Object.keys(options))
    if (!Object.hasOwn(rules, name)) throw unknownOption(where, name, rules, options)
  for (const [name, rule] of Object.entries(rules)) checkOne(where, name, options[name], rule)
}

function checkOne(where: string, name: string, value: unknown, rule: Rule): void {
  if (value === undefined && !required.has(rule)) return
  const expected = rule(value)
  if (expected) throw new InvalidOption(`${where}: expected ${name} to be ${expected}, got ${show(value)}`)
}

function unknownOption(where: string, name: string, rules: Rules, options: object): InvalidOption {
  // A pool or a store in place of `{ pool }` has fields of its own, which say nothing to whoever gave it.
  const kind: unknown = options.constructor
  if (typeof kind === 'function' && kind !== Object) return noOptions(where, options, rules)
  return new InvalidOption(`${where}: unknown option "${name}", ${hintAt(name, Object.keys(rules))}`)
}

function noOptions(where: string, given: unknown, rules: Rules): InvalidOption {
  const some = Object.keys(rules).slice(0, 3).join(', ')
  return new InvalidOption(`${where}: expected options such as { ${some} }, got ${show(given)}`)
}

/** A guess at a misspelt name, else all that there are: `did you mean "prefetch"?` */
export function hintAt(name: string, known: readonly string[]): string {
  const guess = known
    .map((k) => [distance(name.toLowerCase(), k.toLowerCase()), k] as const)
    .sort((a, b) => a[0] - b[0])[0]
  return guess && guess[0] <= Math.max(2, name.length / 3)
    ? `did you mean "${guess[1]}"?`
    : `known: ${known.join(', ')}`
}

/** The options that were given: one that is `undefined` counts as left out. */
export function given<T extends object>(options: T): T {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as T
}

/** A value on one line, short, for an error message. An address given in the wrong place is shown without its password. */
export function show(value: unknown): string {
  if (value === undefined) return 'nothing'
  if (typeof value === 'function') return 'a function'
  if (typeof value === 'string') return JSON.stringify(short(withoutPassword(value)))
  if (typeof value !== 'object' || value === null) return String(value)
  return Array.isArray(value) ? `an array of ${value.length}` : `an object of ${className(value)}`
}

/** An object read from the wire may have a `constructor` of its own, of any kind. */
function className(value: object): string {
  const made: unknown = Object.getPrototypeOf(value)?.constructor
  return typeof made === 'function' ? made.name : 'no class'
}

function short(text: string): string {
  return text.length > 60 ? `${text.slice(0, 59)}…` : text
}

/** Before it is cut short: the cut may fall between the password and the "@" it is known by. */
function withoutPassword(text: string): string {
  return text.replace(/(:\/\/[^:]*):.*@/s, '$1:***@').replace(/([?&]password=)[^&]*/gi, '$1***')
}

function within(value: number, min: number, max: number): boolean {
  return value >= min && value <= max
}

/** Levenshtein distance, for guesses at typos. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const swap = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)
      next.push(Math.min(swap, row[j]! + 1, next[j - 1]! + 1))
    }
    row = next
  }
  return row[b.length]!
}
