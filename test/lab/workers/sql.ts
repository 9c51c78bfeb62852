// Pools of connections that no fault can make wait for ever, and the tables of the lab.

import { Pool } from 'pg'

const CONNECT_MS = 5_000
const STATEMENT_MS = 10_000

/** No unique constraint on effects: it would hide what is to be counted. `works`: of half messages; not done: it never will be. */
export const TABLES = `
CREATE TABLE orders (id text PRIMARY KEY, key text NOT NULL, n integer NOT NULL);
CREATE TABLE effects (place bigint GENERATED ALWAYS AS IDENTITY, id text NOT NULL, worker integer NOT NULL);
CREATE INDEX ON effects (id);
CREATE TABLE works (id text PRIMARY KEY, done boolean NOT NULL);
`

/** As far as the client is concerned: the server may still be at work when we have given up. */
export function openPool(connectionString: string, max: number): Pool {
  const pool = new Pool({
    connectionString,
    max,
    connectionTimeoutMillis: CONNECT_MS,
    query_timeout: STATEMENT_MS,
    // A session whose client was cut off must not keep its locks until the kernel notices.
    idle_in_transaction_session_timeout: STATEMENT_MS,
  })
  return pool.on('error', () => {}).on('connect', (client) => void client.on('error', () => {}))
}
