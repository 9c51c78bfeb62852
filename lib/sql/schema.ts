/** The Postgres schema that holds Surehop's tables: its name, checked, put into statements. Pure. */
import type { Rule } from '../options.ts'

/** Where Surehop's tables are unless another name is given. */
export const DEFAULT_SCHEMA = 'surehop'

/** Words that no schema can be called by without quotes (PostgreSQL documentation, appendix C; a test asks the server). */
const RESERVED = new Set(
  `all analyse analyze and any array as asc asymmetric authorization binary both case cast check collate collation column
  concurrently constraint create cross current_catalog current_date current_role current_schema current_time current_timestamp
  current_user default deferrable desc distinct do else end except false fetch for foreign freeze from full grant group having
  ilike in information_schema initially inner intersect into is isnull join lateral leading left like limit localtime
  localtimestamp natural not notnull null offset on only or order outer overlaps placing primary references returning right
  select session_user similar some symmetric system_user table tablesample then to trailing true union unique user using
  variadic verbose when where window with`.split(/\s+/),
)

/** A plain lower-case identifier: it means the same quoted and unquoted, in Surehop's statements and in yours. */
export const schemaName: Rule = (value) => {
  if (typeof value !== 'string' || !/^[a-z_][a-z0-9_]{0,50}$/.test(value))
    return 'a lower-case SQL identifier of at most 51 characters (letters, digits, _)'
  return RESERVED.has(value) || value.startsWith('pg_') ? 'a name that PostgreSQL does not keep for itself' : undefined
}

/** Puts the schema's name into a statement, wherever it says `{schema}`. */
export function inSchema(schema: string, sql: string): string {
  return sql.replaceAll('{schema}', schema)
}
