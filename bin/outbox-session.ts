/** What the commands on the outbox share: flags, help, the desk, exit code. */
import { Command, InvalidArgumentError, Option } from 'commander'
import { OutboxDesk, type OutboxRow } from '../lib/index.ts'
import { type DatabaseFlags, databaseFlags, withDatabase } from './database.ts'
import { interruption } from './interruption.ts'
import { Output } from './terminal.ts'

/** Options of every command on the outbox. */
export interface OutboxFlags extends DatabaseFlags {
  readonly outbox?: string
  readonly json?: boolean
}

/** An open command. */
export interface OutboxSession {
  readonly output: Output
  readonly desk: OutboxDesk
  /** Fires at the first Ctrl-C, or when nobody reads the output. */
  readonly interrupted: AbortSignal
}

interface Recipe<Flags> {
  readonly description: string
  readonly examples: readonly string[]
  /** Adds arguments and flags of its own. */
  readonly flags?: (command: Command) => Command
  /** @returns the exit code */
  readonly run: (session: OutboxSession, flags: Flags, argument: readonly string[]) => Promise<number>
  readonly help?: string
}

/** A command that opens the desk, runs and sets the exit code. Its one argument may be a list. */
export function outboxSessionCommand<Flags extends OutboxFlags>(name: string, recipe: Recipe<Flags>): Command {
  const command = new Command(name).description(recipe.description)
  databaseFlags(recipe.flags?.(command) ?? command)
    .option('--outbox <name>', 'only this outbox (default: all of the schema)')
    .option('--json', 'one JSON object per line instead of a table')
  const examples = recipe.examples.map((line) => `  ${line}`).join('\n')
  command.addHelpText('after', `\nExamples:\n${examples}\n${recipe.help ?? ''}`)
  command.showSuggestionAfterError().showHelpAfterError('(--help says more)')
  return command.action(async (...given: unknown[]) => {
    const [argument, flags] = given.length === 2 ? [[], given[0]] : [given[0], given[1]]
    const words = [argument ?? []].flat() as string[]
    process.exitCode = await open(flags as Flags, (session) => recipe.run(session, flags as Flags, words))
  })
}

function open(flags: OutboxFlags, run: (session: OutboxSession) => Promise<number>): Promise<number> {
  const output = new Output(process.stdout, process.stderr)
  const { schema, outbox: name } = flags
  const where = { ...(schema === undefined ? {} : { schema }), ...(name === undefined ? {} : { name }) }
  return withDatabase(flags, (pool) =>
    run({ output, desk: new OutboxDesk({ pool, ...where }), interrupted: interruption(output, 'batch') }),
  )
}

/** `--state`. */
export function stateOption(text: string): Option {
  return new Option('--state <state>', text).choices(['ready', 'held', 'parked', 'sent'])
}

/** For `--position`. */
export function positionNumber(text: string): bigint {
  if (/^-?\d{1,19}$/.test(text)) return BigInt(text)
  throw new InvalidArgumentError('expected a position, a whole number')
}

/** Where a row goes. */
export function targetOf({ exchange, routingKey, type }: OutboxRow): string {
  if (exchange === '') return `queue ${routingKey}`
  return routingKey === type ? exchange : `${exchange} ${routingKey}`.trim()
}
