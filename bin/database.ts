/** Opens the database a command needs, by option or environment, and closes it. Passwords go nowhere. */
import type { Command } from 'commander'
import { Client, Pool } from 'pg'
import { InvalidOption } from '../lib/index.ts'
import { redacted } from './text.ts'

/** Options of every command that asks the database. */
export interface DatabaseFlags {
  readonly database?: string
  readonly schema?: string
}

export function databaseFlags(command: Command): Command {
  return command
    .option(
      '--database <url>',
      'Postgres, e.g. postgres://user:password@host/name?sslmode=verify-full (default: DATABASE_URL)',
    )
    .option('--schema <name>', "schema of Surehop's tables (default: surehop)")
}

const CONNECT_MS = 10_000
/** A command asks one thing after another; the second connection is for one that listens meanwhile. */
const CONNECTIONS = 2

/** Runs something with a pool of connections; closes it whatever happens. */
export async function withDatabase<T>(flags: DatabaseFlags, run: (pool: Pool) => Promise<T>): Promise<T> {
  const pool = new Pool({
    connectionString: addressOf(flags),
    connectionTimeoutMillis: CONNECT_MS,
    application_name: 'surehop',
    max: CONNECTIONS,
  })
  // An idle connection that is lost tells the pool; the next statement says so to us.
  pool.on('error', () => {})
  try {
    return await run(pool)
  } finally {
    await pool.end()
  }
}

/** Is a database named at all? */
export function hasDatabase(flags: DatabaseFlags): boolean {
  return Boolean(flags.database ?? process.env['DATABASE_URL'])
}

function addressOf(flags: DatabaseFlags): string {
  const address = flags.database ?? process.env['DATABASE_URL']
  if (!address) throw new InvalidOption('expected the address of the database: give --database URL or set DATABASE_URL')
  const source = flags.database ? '--database' : 'DATABASE_URL'
  if (isAddress(address)) return readable(address, source)
  throw new InvalidOption(
    `expected ${source}, with # / ? @ : % of a password percent-encoded (# as %23), to be like postgres://user@host:5432/name`,
  )
}

/** The driver reads the files that an address names (`sslrootcert`, `sslcert`, `sslkey`), and would tell only their absence. */
function readable(address: string, source: string): string {
  try {
    new Client({ connectionString: address })
    return address
  } catch (error) {
    const why = redacted((error as Error).message)
    throw new InvalidOption(`expected ${source} to be an address that can be used, with files that can be read: ${why}`)
  }
}

/**
 * An address with a plain "#" or "/" in its password is read as another one: its rest would go where hosts are printed.
 * One without "//" names no host: the driver would ask whatever listens on this machine.
 */
function isAddress(address: string): boolean {
  if (!URL.canParse(address)) return false
  return /^postgres(ql)?:\/\//.test(address) && new URL(address).hash === ''
}
