// A pool of Postgres connections whose every statement is three steps: before it, under way, and answered.

import { createHash } from 'node:crypto'
import { Pool, type PoolClient } from 'pg'
import type { SqlPool, SqlPoolClient } from '../../../lib/index.ts'
import { type Steps, tapped } from './steps.ts'

/** A pool that kills its process where planned. `url` names the schema, as `freshSchema` does. */
export function tappedPool(url: string, steps: Steps): SqlPool {
  const pool = new Pool({ connectionString: url, max: 10 }).on('error', () => {})
  const connect = async (): Promise<SqlPoolClient> => tap(await pool.connect(), steps) as unknown as SqlPoolClient
  return {
    connect,
    async query(sql, parameters) {
      const client = await connect()
      return client.query(sql, parameters).finally(() => client.release())
    },
  }
}

function tap(client: PoolClient, steps: Steps): PoolClient {
  return tapped(client, steps, (method, [sql]) => (method === 'query' ? statementName(textOf(sql)) : undefined))
}

function textOf(sql: unknown): string {
  return typeof sql === 'string' ? sql : (sql as { readonly text: string }).text
}

/** Not the FROM of `extract(epoch FROM ...)`. */
const VERB = /(?<!epoch )\b(INSERT INTO|UPDATE|DELETE FROM|FROM)\s+(?:[a-z_0-9]+\.)?([a-z_]+)/g

/** A name for people, the same in every run: verb, table, and three digits of the text, since some statements differ in their middle only. */
export function statementName(sql: string): string {
  const text = sql
    .replace(/\s+/g, ' ')
    .replace(/VALUES .*/, 'VALUES')
    .replace(/surehop_test_[0-9a-f]+/g, 'schema')
    .trim()
  if (/^[A-Z]+( [a-z_"]+)?$/.test(text)) return `sql ${text}`
  const writes = [...text.matchAll(VERB)].map(([, verb = '', table = '']) => ({ verb, table }))
  const main = writes.find(({ verb }) => !verb.startsWith('FROM')) ?? writes[0]
  const what = main ? `${main.verb === 'FROM' ? 'SELECT FROM' : main.verb} ${main.table}` : text.slice(0, 50)
  return `sql ${what} #${createHash('sha1').update(text).digest('hex').slice(0, 3)}`
}
