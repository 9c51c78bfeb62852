/** Is this Postgres set up so that it does not forget, and the pool so that an outage is survived? Sentences for an operator. */
import { PermissionRefused, SchemaMismatch, StoreUnavailable, textOf } from '../errors.ts'
import { poolWarnings, type SqlPool } from '../sql/client.ts'
import { checkSchema } from '../sql/migrate.ts'
import type { PostgresLink } from './postgres-link.ts'

const SETTINGS = `SELECT current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,
  current_setting('synchronous_commit') AS synchronous_commit, current_setting('transaction_read_only') AS read_only,
  pg_is_in_recovery() AS recovering, (SELECT relpersistence = 'u' FROM pg_class WHERE oid = to_regclass('{schema}.inbox')) AS unlogged`

const TWICE = 'A lost record means that a message may run twice.'

/** @throws StoreUnavailable; SchemaMismatch and PermissionRefused, which no waiting will mend */
export async function warningsOf(link: PostgresLink, pool: SqlPool, schema: string): Promise<string[]> {
  // The bounds of the link first: `checkSchema` has none.
  const [settings] = await link.transaction((ask) => ask(SETTINGS))
  await checkSchema(pool, { schema }).catch((error: unknown) => {
    if (error instanceof SchemaMismatch || error instanceof PermissionRefused) throw error
    throw new StoreUnavailable(`the inbox in schema "${schema}" cannot be checked: ${textOf(error)}`, { cause: error })
  })
  return [...settingsWarnings(settings as unknown as Settings), ...poolWarnings(pool)]
}

interface Settings {
  readonly fsync: string
  readonly full_page_writes: string
  readonly synchronous_commit: string
  readonly read_only: string
  readonly recovering: boolean
  readonly unlogged: boolean | null
}

function settingsWarnings(found: Settings): string[] {
  const warnings = [
    found.recovering && 'This Postgres is a replica: it takes no writes, so nothing will run. Connect to the primary.',
    !found.recovering &&
      found.read_only === 'on' &&
      'This Postgres connection is read-only (default_transaction_read_only): nothing will run.',
    found.fsync === 'off' && `Postgres may lose or damage everything in a crash: fsync is off. ${TWICE}`,
    found.full_page_writes === 'off' && `Postgres may be damaged by a crash: full_page_writes is off. ${TWICE}`,
    found.synchronous_commit === 'off' &&
      `Postgres may forget what it committed last: synchronous_commit is off for this connection. ${TWICE}`,
    found.unlogged && `The table of the inbox is unlogged: a crash of Postgres empties it. ${TWICE}`,
  ]
  return warnings.filter((warning) => typeof warning === 'string')
}
