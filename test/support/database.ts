// A schema of one's own, so that tests share one database and may run in any order.
//
// Promises: whatever is made without naming a schema, by `pool` or by any process that connects with `url`, is made there;
// `close` drops it. Does not promise that it is dropped when the server is gone, or somebody still holds a lock in it after 5 s.

import { Client, Pool, type PoolConfig } from 'pg'
import { within } from './eventually.ts'
import { unique } from './unique.ts'

/** A schema, and a pool of connections that work in it. */
export interface Schema extends AsyncDisposable {
  readonly name: string
  /** For other processes: the database, with this schema as the only one on the search path. */
  readonly url: string
  readonly pool: Pool
  /** Ends the pool and drops the schema; never fails. */
  close(): Promise<void>
}

const PATIENCE_MS = 5_000

/** Makes a schema in the database of `url` (default DATABASE_URL); the other options are those of pg's Pool. */
export async function freshSchema({
  url = databaseUrl(),
  ...options
}: PoolConfig & { url?: string } = {}): Promise<Schema> {
  const name = unique('surehop_test').replaceAll('-', '_')
  await once(url, `CREATE SCHEMA ${name}`)
  const own = new URL(url)
  own.searchParams.set('options', `-c search_path=${name}`)
  const pool = new Pool({ ...options, connectionString: own.href }).on('error', () => {})
  let closed: Promise<void> | undefined
  const close = async () => {
    // A client that was never given back keeps `end` waiting.
    await within(pool.end(), { withinMs: PATIENCE_MS }).catch(() => {})
    await once(url, `DROP SCHEMA ${name} CASCADE`).catch(() => {})
  }
  const schema: Schema = {
    name,
    url: own.href,
    pool,
    close: () => (closed ??= close()),
    [Symbol.asyncDispose]: () => schema.close(),
  }
  return schema
}

function databaseUrl(): string {
  const url = process.env['DATABASE_URL']
  if (url) return url
  throw new Error('DATABASE_URL is not set: run with `node test/support/first-run.mjs --services ...`.')
}

async function once(connectionString: string, statement: string): Promise<void> {
  const client = new Client({ connectionString, connectionTimeoutMillis: PATIENCE_MS, query_timeout: PATIENCE_MS })
  client.on('error', () => {})
  await client.connect()
  await client.query(statement).finally(() => client.end())
}
