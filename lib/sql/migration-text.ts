/**
 * The statements around the steps of the schema, and all of it as one text for people who apply migrations with a tool of their own.
 *
 * Promises: the text does what `migrate` does, in one transaction: all of it or nothing. Run over a schema it does not start from,
 * it refuses before it has changed anything. `psql -f` runs it as it is, and so does any tool that can send a script.
 */
import { InvalidOption } from '../errors.ts'
import { checkOptions, given, integer } from '../options.ts'
import { LATEST_VERSION, MIGRATIONS, type Migration } from './migrations/all.ts'
import { DEFAULT_SCHEMA, inSchema, schemaName } from './schema.ts'

/** Whoever waited for the lock must see what was done meanwhile, whatever the database's default is. */
const SEE_COMMITTED = 'ISOLATION LEVEL READ COMMITTED'

/**
 * The first of a transaction that migrates. One whose line is lost in the middle must not keep all others waiting until the server notices,
 * hours later.
 */
export const AS_COMMITTED = `SET TRANSACTION ${SEE_COMMITTED}; SET LOCAL idle_in_transaction_session_timeout = '10s'`

/** Held until its transaction ends, by one who migrates: a lock of the transaction works through a pooler, too. */
export const SCHEMA_LOCK = "SELECT pg_advisory_xact_lock(hashtext('surehop.migrations'), hashtext('{schema}'))"

/** The table of applied steps. Creating what exists is not tried: "IF NOT EXISTS" wants the right to create even then. */
export const VERSIONS_TABLE = {
  // Not by to_regclass: that sees what is committed now, the rest of the statement what was when it began, and between them lies a creation.
  find: `SELECT count(DISTINCT c.oid) > 0 AS found,
  count(a.attname) FILTER (WHERE a.attname IN ('version', 'name', 'applied_at')) = 3 AS ours
FROM pg_catalog.pg_namespace n
  JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = 'migrations'
  LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND NOT a.attisdropped
WHERE n.nspname = '{schema}'`,
  read: 'SELECT coalesce(max(version), 0) AS version FROM {schema}.migrations',
  create: `
DO $surehop$ BEGIN
  IF to_regnamespace('{schema}') IS NULL THEN CREATE SCHEMA {schema}; END IF;
  IF to_regclass('{schema}.migrations') IS NULL THEN
    CREATE TABLE {schema}.migrations (
      version    integer     PRIMARY KEY,
      name       text        NOT NULL,
      applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
    );
  END IF;
END $surehop$;
`,
}

/** Records a step as applied. */
export function recordOf({ version, name }: Migration): string {
  return `INSERT INTO {schema}.migrations (version, name) VALUES (${version}, '${name}');`
}

/** Options of {@link migrationSql}. */
export interface MigrationSqlOptions {
  /** The Postgres schema of the tables. Default `surehop`. A lower-case identifier. */
  readonly schema?: string
  /** The first step to print, for a schema that has those before it. Default 1: everything. */
  readonly from?: number
}

/**
 * The migrations as SQL: for review, for a user with more rights, or for the migration tool of your project. It opens and
 * commits a transaction; where your tool does that, leave its BEGIN and COMMIT out.
 * @throws InvalidOption
 */
export function migrationSql(options: MigrationSqlOptions = {}): string {
  checkOptions('migrationSql', options, { schema: schemaName, from: integer(1, LATEST_VERSION) })
  const { schema = DEFAULT_SCHEMA, from = 1 } = given(options)
  const steps = MIGRATIONS.filter(({ version }) => version >= from)
  if (steps.length === 0) throw new InvalidOption(`expected from to be at most ${LATEST_VERSION}, got ${from}`)
  const text = [
    `-- Surehop's tables in schema "${schema}", version ${from === LATEST_VERSION ? from : `${from} to ${LATEST_VERSION}`}. Needs PostgreSQL 13 or later.`,
    `BEGIN ${SEE_COMMITTED};`,
    `DO $surehop$ BEGIN ${SCHEMA_LOCK.replace('SELECT', 'PERFORM')}; END $surehop$;`,
    ...(from === 1 ? [VERSIONS_TABLE.create.trim()] : []),
    refuseOthers(from),
    ...steps.map((step) => `-- ${step.version}: ${step.name}\n${step.sql.trim()}\n\n${recordOf(step)}`),
    'COMMIT;',
  ]
  return `${inSchema(schema, text.join('\n\n'))}\n`
}

function refuseOthers(from: number): string {
  return `DO $surehop$
DECLARE
  version_found integer := 0;
  advice text := 'there is nothing to do';
BEGIN
  IF to_regclass('{schema}.migrations') IS NOT NULL THEN
    SELECT coalesce(max(version), 0) INTO version_found FROM {schema}.migrations;
  END IF;
  IF version_found < ${LATEST_VERSION} THEN advice := 'print the text with --from ' || version_found + 1; END IF;
  IF version_found <> ${from - 1} THEN
    RAISE EXCEPTION 'schema "{schema}" is at version %, this text is for version ${from - 1}: %; nothing was changed', version_found, advice;
  END IF;
END $surehop$;`
}
