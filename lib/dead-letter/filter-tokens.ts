/** Cuts a `where` filter into tokens, and says where a mistake is. Pure. */
import { InvalidOption } from '../errors.ts'

/** One word of a filter, and where it stands. */
export interface Token {
  readonly kind: 'word' | 'quoted' | 'operator' | 'parenthesis' | 'end'
  readonly text: string
  /** From 1. */
  readonly column: number
}

const SPACE = /\s*/y
const OPERATOR = /(?:!=|!~|>=|<=|[=~><])/y
const PARENTHESIS = /[()]/y
const WORD = /[^\s()=!~<>"']+/y
const QUOTED = /"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)'/suy

/** @throws InvalidOption for what is no token */
export function lex(source: string, fields: readonly string[]): Token[] {
  const tokens: Token[] = []
  for (let at = skipped(SPACE, source, 0); at < source.length; at = skipped(SPACE, source, at)) {
    const token = tokenAt(source, at)
    if (!token) throw mistake(source, at + 1, unreadable(source[at]!), fields)
    tokens.push({ kind: token.kind, text: token.text, column: at + 1 })
    at += token.length
  }
  return [...tokens, { kind: 'end', text: '', column: source.length + 1 }]
}

function tokenAt(source: string, at: number): { kind: Token['kind']; text: string; length: number } | undefined {
  for (const [kind, pattern] of KINDS) {
    pattern.lastIndex = at
    const found = pattern.exec(source)
    if (!found) continue
    const text = kind === 'quoted' ? (found[1] ?? found[2] ?? '').replace(/\\(["'\\])/g, '$1') : found[0]
    return { kind, text, length: found[0].length }
  }
  return undefined
}

const KINDS = [
  ['operator', OPERATOR],
  ['parenthesis', PARENTHESIS],
  ['quoted', QUOTED],
  ['word', WORD],
] as const

function skipped(pattern: RegExp, source: string, at: number): number {
  pattern.lastIndex = at
  return at + (pattern.exec(source)?.[0].length ?? 0)
}

function unreadable(character: string): string {
  return character === '"' || character === "'" ? `a quote ${character} without its end` : `unexpected "${character}"`
}

/** A mistake in a filter: what, the column, the filter with a pointer, the fields. */
export function mistake(source: string, column: number, what: string, fields: readonly string[]): InvalidOption {
  const line = source.replace(/\s/g, ' ')
  return new InvalidOption(
    `where: ${what} at column ${column}\n  ${line}\n  ${' '.repeat(column - 1)}^\nfields: ${fields.join(', ')}`,
  )
}
