/** The Postgres schema that holds Surehop's tables: its name, checked and quoted, put into statements. Pure. */
import type { Rule } from '../options.ts'

/** Where Surehop's tables are unless another name is given. */
export const DEFAULT_SCHEMA = 'surehop'

/** A plain lower-case identifier: it means the same quoted and unquoted, in Surehop's statements and in yours. */
export const schemaName: Rule = (value) =>
  typeof value === 'string' && /^[a-z_][a-z0-9_]{0,50}$/.test(value)
    ? undefined
    : 'a lower-case SQL identifier of at most 51 characters (letters, digits, _)'

/** Puts the schema's name into a statement, wherever it says `{schema}`. */
export function inSchema(schema: string, sql: string): string {
  return sql.replaceAll('{schema}', schema)
}
