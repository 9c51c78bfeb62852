// What is in a schema, as Postgres tells it: for comparing two schemas.

import type { Pool } from 'pg'

const OBJECTS = `
SELECT 'column' AS kind, format('%s.%s %s %s %s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
    CASE WHEN a.attnotnull THEN 'not null' END, pg_get_expr(d.adbin, d.adrelid)) AS text
  FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
  WHERE c.relnamespace = to_regnamespace($1) AND c.relkind IN ('r', 'p', 'v') AND a.attnum > 0 AND NOT a.attisdropped
UNION ALL SELECT 'class', format('%s %s %s', relname, relkind, relpersistence) FROM pg_class
  WHERE relnamespace = to_regnamespace($1) AND relkind <> 't'
UNION ALL SELECT 'constraint', format('%s on %s: %s', conname, conrelid::regclass, pg_get_constraintdef(oid)) FROM pg_constraint
  WHERE connamespace = to_regnamespace($1)
UNION ALL SELECT 'index', indexdef FROM pg_indexes WHERE schemaname = $1
UNION ALL SELECT 'trigger', pg_get_triggerdef(t.oid) FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
  WHERE c.relnamespace = to_regnamespace($1) AND NOT t.tgisinternal
UNION ALL SELECT 'function', pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = to_regnamespace($1)
UNION ALL SELECT 'type', format('%s %s', typname, typtype) FROM pg_type WHERE typnamespace = to_regnamespace($1)
ORDER BY 1, 2`

/** All objects of a schema, each as one line; the schema's own name is left out. */
export async function objectsOf(pool: Pool, schema: string): Promise<string[]> {
  const { rows } = await pool.query<{ kind: string; text: string }>(OBJECTS, [schema])
  return rows.map(({ kind, text }) => `${kind} ${text}`.replaceAll(schema, '{schema}'))
}

/** The steps recorded as applied. */
export async function stepsOf(pool: Pool, schema: string): Promise<string[]> {
  const { rows } = await pool.query(`SELECT version, name FROM ${schema}.migrations ORDER BY version`)
  return rows.map(({ version, name }) => `${version} ${name}`)
}
