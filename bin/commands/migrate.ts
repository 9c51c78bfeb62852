/** `surehop migrate`: makes Surehop's tables in Postgres, or prints or checks them. Needs no broker. */
import { Command, InvalidArgumentError } from 'commander'
import { checkSchema, InvalidOption, migrate, migrationSql, SchemaMismatch } from '../../lib/index.ts'
import { type DatabaseFlags, databaseFlags, withDatabase } from '../database.ts'
import { EXIT } from '../session.ts'
import { Output } from '../terminal.ts'

interface Flags extends DatabaseFlags {
  readonly print?: boolean
  readonly check?: boolean
  readonly from?: number
  readonly json?: boolean
}

const HELP = `
Examples:
  surehop migrate                                         apply what is missing to DATABASE_URL
  surehop migrate --check                                 is everything there? (exit code 1 if not)
  surehop migrate --print > surehop.sql                   for your own migration tool, or for psql
  surehop migrate --print --from 3                        only the steps from the third on

Each step is a transaction of its own, and several migrations at once do no harm. The printed text is one transaction: leave
its BEGIN and COMMIT out where your tool brings its own.`

export function migrateCommand(): Command {
  const command = new Command('migrate')
    .description("make or complete Surehop's tables in Postgres (outbox, inbox, decisions)")
    .option('--print', 'print the SQL instead of applying it; asks no database')
    .option('--from <step>', 'with --print: the first step to print', stepNumber)
    .option('--check', 'change nothing; tell whether every step is applied')
    .option('--json', 'one JSON object instead of words')
  return databaseFlags(command)
    .addHelpText('after', HELP)
    .showSuggestionAfterError()
    .showHelpAfterError('(--help says more)')
    .action(async (flags: Flags) => {
      process.exitCode = await run(flags, new Output(process.stdout, process.stderr))
    })
}

async function run(flags: Flags, output: Output): Promise<number> {
  if (flags.print && flags.check) throw new InvalidOption('expected --print or --check, got both')
  if (flags.from !== undefined && !flags.print) throw new InvalidOption('--from belongs to --print: give both')
  if (flags.print) return print(flags, output)
  return flags.check ? check(flags, output) : apply(flags, output)
}

async function print({ from, json, ...flags }: Flags, output: Output): Promise<number> {
  const sql = migrationSql({ ...where(flags), ...(from === undefined ? {} : { from }) })
  await (json ? output.json({ sql }) : output.write(sql))
  return EXIT.done
}

async function apply(flags: Flags, output: Output): Promise<number> {
  const { schema, version, applied } = await withDatabase(flags, (pool) => migrate(pool, where(flags)))
  if (flags.json) await output.json({ schema, version, applied })
  else {
    for (const step of applied) await output.line(`applied ${step.version} ${step.name}`)
    const nothing = applied.length === 0 ? ', nothing to do' : ''
    await output.line(`schema "${schema}" is at version ${version}${nothing}`)
  }
  return EXIT.done
}

async function check(flags: Flags, output: Output): Promise<number> {
  try {
    const version = await withDatabase(flags, (pool) => checkSchema(pool, where(flags)))
    if (flags.json) await output.json({ ok: true, found: version, expected: version })
    else await output.line(`schema "${flags.schema ?? 'surehop'}" is at version ${version}, as expected`)
    return EXIT.done
  } catch (error) {
    if (flags.json && error instanceof SchemaMismatch)
      await output.json({ ok: false, found: error.found, expected: error.expected })
    throw error
  }
}

function where({ schema }: DatabaseFlags): { schema?: string } {
  return schema === undefined ? {} : { schema }
}

function stepNumber(text: string): number {
  if (/^[1-9]\d{0,8}$/.test(text)) return Number(text)
  throw new InvalidArgumentError('expected the number of a step, such as 2.')
}
