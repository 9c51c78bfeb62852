/**
 * The databases of the services. Orders and inventory have a schema each, which stands for a database of its own: their tables, and
 * beside them Surehop's outbox and inbox. Promises: `close()` of a run drops its schemas; nothing else in the database is touched.
 *
 * The tables of effects have no unique constraint on purpose: were something done twice, it would stand there twice.
 */
import { Pool } from 'pg'
import { migrate } from '../../lib/index.ts'

/** Two services keep their data in Postgres. */
export type DatabaseName = 'orders' | 'inventory'

const TABLES: Readonly<Record<DatabaseName, string>> = {
  orders: `
    CREATE TABLE orders (id text PRIMARY KEY, total_cents integer NOT NULL);
    -- One row each time an order is closed.
    CREATE TABLE endings (order_id text NOT NULL, how text NOT NULL);
    -- One row for each message that was written to the outbox once more, on purpose.
    CREATE TABLE copies (order_id text NOT NULL);`,
  inventory: `
    CREATE TABLE stock (sku text PRIMARY KEY, pieces integer NOT NULL);
    -- One row each time an order's stock is reserved, refused or put back.
    CREATE TABLE effects (order_id text NOT NULL, effect text NOT NULL);
    CREATE TABLE reservations (order_id text NOT NULL, sku text NOT NULL, pieces integer NOT NULL);
    CREATE INDEX ON reservations (order_id);`,
}

/** The schema of a service, in one run of the demo. */
export function schemaOf(run: string, service: DatabaseName): string {
  return `${run.replaceAll('-', '_')}_${service}`
}

/** Connections that find the tables of one schema by their plain names. */
export function poolFor(schema: string, max: number): Pool {
  const url = new URL(process.env['DATABASE_URL'] ?? '')
  url.searchParams.set('options', `-c search_path=${schema}`)
  const pool = new Pool({ connectionString: url.href, max })
  // An idle connection that is lost is no reason to die: the next statement gets another one.
  return pool.on('error', () => {})
}

/** Makes the schemas of a run, and puts the stock on the shelves. */
export async function makeDatabases(run: string, stock: ReadonlyMap<string, number>): Promise<void> {
  for (const service of ['orders', 'inventory'] as const) {
    const schema = schemaOf(run, service)
    const pool = poolFor(schema, 1)
    try {
      await migrate(pool, { schema })
      await pool.query(TABLES[service])
      if (service === 'inventory')
        await pool.query('INSERT INTO stock SELECT * FROM unnest($1::text[], $2::integer[])', [
          [...stock.keys()],
          [...stock.values()],
        ])
    } finally {
      await pool.end()
    }
  }
}

/** Drops what `makeDatabases` made. */
export async function dropDatabases(run: string): Promise<void> {
  const pool = poolFor('public', 1)
  try {
    for (const service of ['orders', 'inventory'] as const)
      await pool.query(`DROP SCHEMA IF EXISTS ${schemaOf(run, service)} CASCADE`)
  } finally {
    await pool.end()
  }
}
