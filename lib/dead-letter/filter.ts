/**
 * The `where` language: which letters are meant. Pure; a mistake is told with its column and the list of fields.
 *
 *     expression  = all { "or" all }
 *     all         = one { "and" one }
 *     one         = "not" one | "(" expression ")" | field operator value
 *     operator    = "=" | "!=" | "~" | "!~" | ">" | ">=" | "<" | "<="
 *     value       = word | 'quoted' | "quoted"
 *
 * `=` takes `*` for any text; on `message` it looks for the text anywhere. `~` is a JavaScript regular expression. Greater and
 * less compare numbers (attempt, generation). An absent field is the empty text.
 */
import { InvalidOption } from '../errors.ts'
import { lex, mistake, type Token } from './filter-tokens.ts'
import type { Letter } from './story.ts'

const FIELDS = {
  id: (l) => l.id,
  transaction: (l) => l.transactionId,
  type: (l) => l.type,
  error: (l) => l.errorType,
  message: (l) => l.errorMessage,
  reason: (l) => l.reason,
  fingerprint: (l) => l.fingerprint,
  key: (l) => l.key,
  service: (l) => l.service,
  queue: (l) => l.queue,
  attempt: (l) => l.attempt,
  generation: (l) => l.generation,
} satisfies Record<string, (letter: Letter) => string | number | undefined>

/** A field that a filter can ask for. */
export type FilterField = keyof typeof FIELDS
/** How a filter compares. */
export type FilterOperator = '=' | '!=' | '~' | '!~' | '>' | '>=' | '<' | '<='

/** The fields a filter can name. */
export const FILTER_FIELDS = Object.keys(FIELDS) as readonly FilterField[]

const NUMERIC: ReadonlySet<FilterField> = new Set(['attempt', 'generation'])
const COMPARE: Readonly<Record<string, (a: number, b: number) => boolean>> = {
  '=': (a, b) => a === b,
  '!=': (a, b) => a !== b,
  '>': (a, b) => a > b,
  '>=': (a, b) => a >= b,
  '<': (a, b) => a < b,
  '<=': (a, b) => a <= b,
}
/** Deeper nesting than any person writes; the parser recurses. */
const MAX_DEPTH = 100

/** A parsed filter: does this letter fit? */
export type Predicate = (letter: Letter) => boolean

/**
 * Compiles a filter.
 * @throws InvalidOption with the column of the mistake and the fields
 */
export function parseFilter(source: string): Predicate {
  return new Parser(source).parse()
}

class Parser {
  readonly #source: string
  readonly #tokens: readonly Token[]
  #at = 0
  #depth = 0

  constructor(source: string) {
    this.#source = source
    this.#tokens = lex(source, FILTER_FIELDS)
  }

  parse(): Predicate {
    const predicate = this.#either()
    if (this.#peek.kind !== 'end') this.#fail('"and", "or" or the end')
    return predicate
  }

  get #peek(): Token {
    return this.#tokens[this.#at]!
  }

  #either(): Predicate {
    const parts = [this.#all()]
    while (this.#skip('or')) parts.push(this.#all())
    return parts.length === 1 ? parts[0]! : (letter) => parts.some((part) => part(letter))
  }

  #all(): Predicate {
    const parts = [this.#one()]
    while (this.#skip('and')) parts.push(this.#one())
    return parts.length === 1 ? parts[0]! : (letter) => parts.every((part) => part(letter))
  }

  #one(): Predicate {
    if (++this.#depth > MAX_DEPTH) this.#fail(`at most ${MAX_DEPTH} levels of "not" and parentheses`)
    const predicate = this.#skip('not') ? negated(this.#one()) : this.#skip('(') ? this.#group() : this.#comparison()
    this.#depth--
    return predicate
  }

  #group(): Predicate {
    const inner = this.#either()
    if (!this.#skip(')')) this.#fail('")"')
    return inner
  }

  #comparison(): Predicate {
    const field = this.#field()
    const operator = this.#operator(field)
    const value = this.#peek
    if (value.kind !== 'word' && value.kind !== 'quoted') this.#fail('a value')
    this.#at++
    try {
      return comparison(field, operator, value.text)
    } catch (error) {
      throw mistake(this.#source, value.column, (error as Error).message, FILTER_FIELDS)
    }
  }

  #field(): FilterField {
    const { kind, text } = this.#peek
    if (kind !== 'word' || !Object.hasOwn(FIELDS, text)) this.#fail('a field')
    this.#at++
    return text as FilterField
  }

  #operator(field: FilterField): FilterOperator {
    const { kind, text } = this.#peek
    if (kind !== 'operator') this.#fail('an operator (= != ~ !~ > >= < <=)')
    const ordering = text.startsWith('>') || text.startsWith('<')
    if (ordering && !NUMERIC.has(field)) this.#fail(`= != ~ or !~ after "${field}", which is not a number`)
    this.#at++
    return text as FilterOperator
  }

  /** Words such as `and` are words of the language only where a value is not expected. */
  #skip(word: string): boolean {
    const { kind, text } = this.#peek
    const found = (kind === 'word' || kind === 'parenthesis') && text.toLowerCase() === word
    if (found) this.#at++
    return found
  }

  #fail(expected: string): never {
    const { kind, text, column } = this.#peek
    const got = kind === 'end' ? 'the end' : `"${text}"`
    throw mistake(this.#source, column, `expected ${expected}, got ${got}`, FILTER_FIELDS)
  }
}

function negated(predicate: Predicate): Predicate {
  return (letter) => !predicate(letter)
}

function comparison(field: FilterField, operator: FilterOperator, value: string): Predicate {
  const read = FIELDS[field] as (letter: Letter) => string | number | undefined
  if (operator === '~' || operator === '!~') {
    const expression = regExp(value)
    return (letter) => expression.test(String(read(letter) ?? '')) === (operator === '~')
  }
  if (NUMERIC.has(field)) return numeric(read, COMPARE[operator]!, field, value)
  const fits = field === 'message' && !value.includes('*') ? containing(value) : glob(value)
  return (letter) => fits(String(read(letter) ?? '')) === (operator === '=')
}

function numeric(
  read: (letter: Letter) => string | number | undefined,
  compare: (a: number, b: number) => boolean,
  field: FilterField,
  value: string,
): Predicate {
  const number = Number(value)
  if (value.trim() === '' || !Number.isFinite(number))
    throw new InvalidOption(`expected a number for ${field}, got "${value}"`)
  return (letter) => compare((read(letter) as number | undefined) ?? 0, number)
}

function containing(value: string): (text: string) => boolean {
  const wanted = value.toLowerCase()
  return (text) => text.toLowerCase().includes(wanted)
}

/** `*` stands for any text. By hand, not by a regular expression: no input makes it slow. */
function glob(pattern: string): (text: string) => boolean {
  const [first = '', ...rest] = pattern.split('*')
  const last = rest.pop()
  if (last === undefined) return (text) => text === first
  return (text) => {
    if (text.length < first.length + last.length || !text.startsWith(first) || !text.endsWith(last)) return false
    let at = first.length
    const end = text.length - last.length
    for (const part of rest) {
      const found = text.indexOf(part, at)
      if (found < 0 || found + part.length > end) return false
      at = found + part.length
    }
    return true
  }
}

function regExp(value: string): RegExp {
  try {
    return new RegExp(value, 'u')
  } catch (error) {
    throw new InvalidOption(`expected a regular expression: ${(error as Error).message}`)
  }
}
