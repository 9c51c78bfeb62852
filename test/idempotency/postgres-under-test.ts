// What the tests of the Postgres inbox share: a migrated schema of their own, in DATABASE_URL or a private Postgres.

import type { Pool, PoolConfig } from 'pg'
import { PostgresIdempotencyStore } from '../../lib/idempotency/postgres.ts'
import { migrate } from '../../lib/sql/migrate.ts'
import { freshSchema } from '../support/database.ts'
import { type Services, startServices } from '../support/services.ts'

/** A schema with Surehop's tables, and a pool. */
export interface Inbox extends AsyncDisposable {
  readonly pool: Pool
  readonly schema: string
  readonly url: string
  close(): Promise<void>
}

/** Makes one; the tables stand in the schema that is also on the search path, so that tests may make tables beside them. */
export async function freshInbox(options: PoolConfig & { url?: string } = {}): Promise<Inbox> {
  const { pool, name: schema, url, close } = await freshSchema(options)
  await migrate(pool, { schema })
  return { pool, schema, url, close, [Symbol.asyncDispose]: close }
}

/** One for all tests of the current suite. */
export function sharedInbox(): { readonly pool: Pool; readonly schema: string; open(): PostgresIdempotencyStore } {
  let services: Services | undefined
  let inbox: Inbox | undefined
  before(async function () {
    this.timeout(60_000)
    services = await startServices({ postgres: true })
    inbox = await freshInbox({ url: services.databaseUrl })
  })
  after(async () => {
    await inbox?.close()
    await services?.stop()
  })
  return {
    get pool() {
      return inbox!.pool
    },
    get schema() {
      return inbox!.schema
    },
    open: () => new PostgresIdempotencyStore({ pool: inbox!.pool, schema: inbox!.schema }),
  }
}
