/**
 * What went wrong with Postgres, in words that a stranger can act on. Pure.
 *
 * Promises: finds what the driver said inside the errors of query tools, too (Drizzle's `cause`, TypeORM's `driverError`, Prisma's
 * `meta`); no message and no cause holds a password, a connection string, a statement or its parameters.
 * Does not promise: to explain mistakes in statements, constraints and the like. Those come back as they were thrown.
 */
import {
  ConnectionRefused,
  DatabaseUnavailable,
  PermissionRefused,
  type RefusalReason,
  SchemaMismatch,
  SurehopError,
  textOf,
} from '../errors.ts'
import { LATEST_VERSION } from './migrations/all.ts'

/** How to have the tables; every mismatch ends with it. */
export const HOW_TO_MIGRATE =
  'run `surehop migrate` (--schema for one not named surehop), or call migrate(pool), as a user who may create tables'

type Make = (message: string, cause: Error) => Error

const unavailable: Make = (message, cause) => new DatabaseUnavailable(message, { cause })
const permission: Make = (message, cause) => new PermissionRefused(message, { cause })
const mismatch: Make = (message, cause) =>
  new SchemaMismatch({ found: undefined, expected: LATEST_VERSION }, message, { cause })
const refused =
  (reason: RefusalReason): Make =>
  (message, cause) =>
    new ConnectionRefused(reason, message, { cause })

/**
 * The first pattern that fits "code text" says what it is and what to do. Codes: SQLSTATE (PostgreSQL documentation, appendix A),
 * those of Node, and texts of pg and pg-pool, which have none.
 */
const signs: readonly (readonly [RegExp, Make, string])[] = [
  [
    /^28000 .*(no encryption|SSL off)/i,
    refused('tls'),
    'it takes encrypted connections only: add sslmode=verify-full to its address',
  ],
  [/^28000 .*pg_hba/i, refused('address'), 'it takes no connections of this user from here: see its pg_hba.conf'],
  [/password must be a.* string/, refused('credentials'), 'it asks for a password, and none was given'],
  [/^28|^\S* ?SASL:/, refused('credentials'), 'it refuses the login: check user name and password'],
  [/^3D/, refused('database'), 'there is no such database: create it, or correct the name in the address'],
  [/does not support SSL/, refused('tls'), 'it speaks no TLS: remove sslmode and ssl, or switch TLS on in the server'],
  [
    /^(ERR_(TLS|SSL)|EPROTO|CERT_|\w*(CERT|ISSUER|LEAF_SIG))/,
    refused('tls'),
    'its certificate was not accepted: name its authority (sslrootcert=file.pem in the address)',
  ],
  [
    /^42501 .*\bschema\b/,
    permission,
    'a right is missing, grant USAGE on the schema to this user (to migrate: CREATE, too)',
  ],
  [
    /^42501 .*\bdatabase\b/,
    permission,
    'a right is missing, grant CREATE on the database to this user, or create the schema for it',
  ],
  [
    /^42501 .*\b(table|relation|view)\b/,
    permission,
    'a right is missing, grant SELECT, INSERT, UPDATE, DELETE on the tables to this user',
  ],
  [/^42501 .*\bsequence\b/, permission, 'a right is missing, grant USAGE and SELECT on the sequences to this user'],
  [/^42501 .*\bfunction\b/, permission, 'a right is missing, grant EXECUTE on the functions to this user'],
  [/^42501/, permission, 'a right is missing, let the owner grant it'],
  [/^42883 .*pg_current_xact_id|^42704 .*xid8/, mismatch, 'Surehop needs PostgreSQL 13 or later'],
  [/^(42P01|3F000)/, mismatch, `Surehop's tables are not there: ${HOW_TO_MIGRATE}`],
  [/^42703|^42883 .*\w\.\w+\(/, mismatch, `its tables are of another version: ${HOW_TO_MIGRATE}`],
  [/^53300/, unavailable, 'all its connections are taken: make the pools smaller, or raise max_connections'],
  [/^53100/, unavailable, 'its disk is full'],
  [/^25006/, unavailable, 'it is read-only, a replica perhaps: connect to the primary'],
  [/^57P0[123]/, unavailable, 'it is stopping or starting'],
  [
    /^(57014|55P03|25P0[34])/,
    unavailable,
    'it gave up because of a time limit (statement, lock or transaction timeout)',
  ],
  [/^(08|53|57P|58)[0-9A-Z]+ /, unavailable, 'it cannot go on just now'],
  [/^ECONNREFUSED|^(ENOENT|EACCES) connect/, unavailable, 'nothing listens there: start it, or correct the address'],
  [/^ENOTFOUND|^EAI_AGAIN/, unavailable, 'the host name is not known'],
  [/^(ETIMEDOUT|EHOSTUNREACH|ENETUNREACH|EHOSTDOWN|ENETDOWN|EADDRNOTAVAIL)/, unavailable, 'it cannot be reached'],
  [/^(ECONNRESET|ECONNABORTED|EPIPE|ERR_STREAM_)/, unavailable, 'the connection was lost'],
  [/connection timeout|trying to connect|timeout expired/, unavailable, 'no connection was to be had in time'],
  [/Query read timeout/, unavailable, 'it did not answer in time; the statement may still be executed'],
  [/Connection terminated|not queryable/, unavailable, 'the connection was lost'],
]

/**
 * What a driver or a query tool threw, as an error with a code where it is one a caller can act on; else as it was.
 * @param doing what was tried, to begin a sentence with: `claiming messages in schema "surehop"`
 */
export function explainSql(error: unknown, doing: string): Error {
  if (error instanceof SurehopError) return error
  for (const { known, text, cause } of layersOf(error).flatMap(recognised)) {
    const [, make, advice] = known
    return make(`${doing[0]?.toUpperCase()}${doing.slice(1)} failed at Postgres: ${advice} (${text}).`, cause)
  }
  return error instanceof Error ? error : new Error(textOf(error))
}

/** SQLSTATE of serialization failures and deadlocks: the transaction was rolled back; the same one may succeed. */
const ROLLED_BACK = new Set(['40001', '40P01'])

/** May it be gone the next time, without a change on anybody's side? */
export function isPassing(error: unknown): boolean {
  if (explainSql(error, 'asking') instanceof DatabaseUnavailable) return true
  return isRolledBack(error)
}

/** Has Postgres rolled back, only because of others at the same time? */
export function isRolledBack(error: unknown): boolean {
  return layersOf(error).some(({ code }) => ROLLED_BACK.has(String(code)))
}

/** Does Postgres refuse every statement but ROLLBACK, because one before it failed? */
export function isAborted(error: unknown): boolean {
  return layersOf(error).some(({ code }) => code === '25P02')
}

interface Layer {
  readonly name?: unknown
  readonly code?: unknown
  readonly message?: unknown
  readonly errors?: unknown
  readonly cause?: unknown
  readonly driverError?: unknown
  readonly meta?: unknown
}

const DEEPEST = 4

/** The error, and those it wraps; a connection tried at several addresses fails with several errors. */
function layersOf(error: unknown, depth = 0): Layer[] {
  if (typeof error !== 'object' || error === null || depth > DEEPEST) return []
  const layer = error as Layer
  const several = Array.isArray(layer.errors) ? layer.errors.slice(0, 1) : []
  const inner = [layer.cause, layer.driverError, layer.meta, ...several]
  return [layer, ...inner.flatMap((it) => layersOf(it, depth + 1))]
}

function recognised({ name, code, message }: Layer) {
  const text = textOfServer(typeof message === 'string' && message !== '' ? message : String(code ?? ''))
  const known = signs.find(([pattern]) => pattern.test(`${typeof code === 'string' ? code : ''} ${text}`.trimStart()))
  if (!known) return []
  const cause = Object.assign(new Error(text), { name: String(name ?? 'Error') }, code === undefined ? {} : { code })
  return [{ known, text, cause }]
}

/** Knex puts the statement, with its parameters, before what the server said. */
function textOfServer(message: string): string {
  return textOf(new Error(message.slice(message.lastIndexOf(' - ') + 1).replace(/^- /, '')), 200)
}
