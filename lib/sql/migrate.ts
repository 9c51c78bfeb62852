/**
 * Brings the schema of Surehop's tables to the version this library works with, and tells which version is there.
 *
 * Promises: each step is one transaction, so that a crash leaves whole steps; however many processes migrate at once, each step is
 * applied once, and all of them end with the schema complete; where it is complete, nothing is locked and no right to create is needed.
 * Does not promise: a way back. Steps only add.
 */
import { InvalidOption, SchemaMismatch } from '../errors.ts'
import { checkOptions, given, having, needed } from '../options.ts'
import { inTransaction, runOn, type SqlClient, type SqlPool } from './client.ts'
import { AS_COMMITTED, recordOf, SCHEMA_LOCK, VERSIONS_TABLE } from './migration-text.ts'
import { LATEST_VERSION, MIGRATIONS, type Migration } from './migrations/all.ts'
import { DEFAULT_SCHEMA, inSchema, schemaName } from './schema.ts'
import { explainSql, HOW_TO_MIGRATE } from './trouble.ts'

/** Where the tables are. */
export interface SchemaOptions {
  /** The Postgres schema of the tables. Default `surehop`. A lower-case identifier. */
  readonly schema?: string
}

/** What a migration did. */
export interface MigrationResult {
  readonly schema: string
  /** The steps that this call applied, in order; none where another process did, or nothing was missing. */
  readonly applied: readonly { readonly version: number; readonly name: string }[]
  /** The version that is there now. */
  readonly version: number
}

/** Before `pg_current_xact_id` and `xid8` there is no way. */
const OLDEST_SERVER = 130_000

/**
 * Applies the steps that are missing, in order. Call it when a service starts, as a user who may create tables, or run
 * `surehop migrate`; see {@link migrationSql} where a tool of your own applies migrations. Waits while another process migrates.
 * @throws SchemaMismatch when the database is newer than this library; PermissionRefused; DatabaseUnavailable; ConnectionRefused;
 *   InvalidOption, also for a server older than PostgreSQL 13
 */
export async function migrate(pool: SqlPool, options: SchemaOptions = {}): Promise<MigrationResult> {
  const schema = checked('migrate', pool, options)
  const doing = `migrating schema "${schema}"`
  const applied: Migration[] = []
  let version = await schemaVersion(pool, { schema })
  if (version < LATEST_VERSION) await explaining(doing, () => refuseOldServer(pool))
  while (version < LATEST_VERSION) {
    const step = await explaining(doing, () => inTransaction(pool, (client) => applyNext(client, schema)))
    if (step) applied.push(step)
    version = step?.version ?? (await schemaVersion(pool, { schema }))
  }
  if (version > LATEST_VERSION) throw tooNew(schema, version)
  return { schema, version, applied: applied.map(({ version, name }) => ({ version, name })) }
}

/**
 * The version of the schema in the database; 0 where Surehop has no tables.
 * @throws SchemaMismatch when its table `migrations` belongs to something else; PermissionRefused; DatabaseUnavailable; ConnectionRefused
 */
export async function schemaVersion(pool: SqlPool, options: SchemaOptions = {}): Promise<number> {
  const schema = checked('schemaVersion', pool, options)
  return explaining(`reading the version of schema "${schema}"`, () => versionIn(pool, schema))
}

/**
 * Throws unless the schema is the one this library works with. Whoever starts something on these tables asks once.
 * @returns the version
 * @throws SchemaMismatch with both versions and what to do; PermissionRefused; DatabaseUnavailable; ConnectionRefused
 */
export async function checkSchema(pool: SqlPool, options: SchemaOptions = {}): Promise<number> {
  const schema = checked('checkSchema', pool, options)
  const found = await schemaVersion(pool, { schema })
  if (found > LATEST_VERSION) throw tooNew(schema, found)
  if (found < LATEST_VERSION) throw tooOld(schema, found)
  return found
}

function checked(where: string, pool: SqlPool, options: SchemaOptions): string {
  checkOptions(where, { pool }, { pool: needed(having("a pool such as pg's Pool", 'query', 'connect')) })
  checkOptions(where, options, { schema: schemaName })
  return given(options).schema ?? DEFAULT_SCHEMA
}

async function explaining<T>(doing: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    throw explainSql(error, doing)
  }
}

async function versionIn(client: SqlClient, schema: string): Promise<number> {
  const [table] = await runOn(client, inSchema(schema, VERSIONS_TABLE.find), [])
  if (!table?.['found']) return 0
  if (!table['ours']) throw foreignTable(schema)
  const [row] = await runOn(client, inSchema(schema, VERSIONS_TABLE.read), [])
  return Number(row?.['version'])
}

/** The lock comes first: everything after it, the schema's creation too, is done by one process at a time. */
async function applyNext(client: SqlClient, schema: string): Promise<Migration | undefined> {
  await client.query(AS_COMMITTED)
  await client.query(inSchema(schema, SCHEMA_LOCK))
  const version = await versionIn(client, schema)
  const step = MIGRATIONS.find((it) => it.version === version + 1)
  if (!step) return undefined
  if (version === 0) await client.query(inSchema(schema, VERSIONS_TABLE.create))
  await client.query(inSchema(schema, step.sql))
  await client.query(inSchema(schema, recordOf(step)))
  return step
}

async function refuseOldServer(client: SqlClient): Promise<void> {
  const [row] = await runOn(client, "SELECT current_setting('server_version_num') AS number", [])
  if (Number(row?.['number']) >= OLDEST_SERVER) return
  const found = Math.floor(Number(row?.['number']) / 10_000)
  throw new InvalidOption(`expected PostgreSQL 13 or later, got ${found}: upgrade it, or give another database`)
}

function tooNew(schema: string, found: number): SchemaMismatch {
  return new SchemaMismatch(
    { found, expected: LATEST_VERSION },
    `schema "${schema}" is at version ${found}, and this version of Surehop knows ${LATEST_VERSION}: upgrade the package surehop here`,
  )
}

function tooOld(schema: string, found: number): SchemaMismatch {
  const what = found === 0 ? 'has no tables of Surehop' : `is at version ${found}`
  return new SchemaMismatch(
    { found, expected: LATEST_VERSION },
    `schema "${schema}" ${what}, expected version ${LATEST_VERSION}: ${HOW_TO_MIGRATE}`,
  )
}

function foreignTable(schema: string): SchemaMismatch {
  return new SchemaMismatch(
    { found: undefined, expected: LATEST_VERSION },
    `the table "${schema}.migrations" is not Surehop's: give Surehop a schema of its own`,
  )
}
