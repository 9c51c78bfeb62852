/**
 * What the commands on parked transactions share: flags, help, the desk, exit code. The decision store is asked only where it is
 * named: which one a service uses cannot be guessed, and an operator must get on while it is down.
 */
import { Command, Option } from 'commander'
import {
  type DecisionStore,
  InvalidOption,
  type ParkedMessage,
  type ParkedTransaction,
  PostgresDecisionStore,
  RedisDecisionStore,
  type Transactions,
} from '../lib/index.ts'
import { type DatabaseFlags, databaseFlags, withDatabase } from './database.ts'
import { type BrokerFlags, type BrokerSession, brokerFlags, closing, EXIT, withBroker } from './session.ts'
import type { Column } from './terminal.ts'
import { age, plural, safe } from './text.ts'

/** Options of every command on parked transactions. */
export interface TransactionsFlags extends BrokerFlags, DatabaseFlags {
  readonly decisions?: 'redis' | 'postgres'
  readonly redis?: string
  readonly prefix?: string
}

/** An open command. */
export interface TransactionsSession extends BrokerSession {
  readonly desk: Transactions
  /** Is the decision store looked into? */
  readonly looks: boolean
  /** How many instances of the service check back now. */
  instances(): Promise<number>
}

interface Recipe<Flags> {
  readonly description: string
  readonly examples: readonly string[]
  /** Adds arguments and flags of its own. */
  readonly flags?: (command: Command) => Command
  /** @throws InvalidOption for misuse, before anything is opened */
  readonly check?: (flags: Flags, ids: readonly string[]) => void
  /** @returns the exit code */
  readonly run: (session: TransactionsSession, flags: Flags, ids: readonly string[]) => Promise<number>
  readonly help?: string
}

/** A command that opens the desk, runs and sets the exit code. Its second argument may be a list. */
export function transactionsSessionCommand<Flags extends TransactionsFlags>(
  verb: string,
  recipe: Recipe<Flags>,
): Command {
  const command = new Command(verb)
    .description(recipe.description)
    .argument('<name>', 'name of the transactional sender')
  decisionFlags(brokerFlags(recipe.flags?.(command) ?? command))
  const examples = recipe.examples.map((line) => `  ${line}`).join('\n')
  command.addHelpText('after', `\nExamples:\n${examples}\n${recipe.help ?? ''}`)
  command.showSuggestionAfterError().showHelpAfterError('(--help says more)')
  return command.action(async (...given: unknown[]) => {
    const [name, ...rest] = given.slice(0, command.registeredArguments.length) as [string, ...unknown[]]
    const ids = rest.flat().filter((id) => id !== undefined) as string[]
    const flags = command.opts<Flags>()
    recipe.check?.(flags, ids)
    process.exitCode = await open(name, flags, (session) => recipe.run(session, flags, ids))
  })
}

function decisionFlags(command: Command): Command {
  const text = 'look into the decision store of the service, for checks and for what was decided meanwhile'
  command
    .addOption(new Option('--decisions <store>', text).choices(['redis', 'postgres']))
    .option('--redis <url>', 'its decision store in Redis (default with --decisions redis: REDIS_URL)')
    .option('--prefix <text>', 'first part of its keys in Redis (default: surehop)')
  return databaseFlags(command)
}

function open(name: string, flags: TransactionsFlags, run: (session: TransactionsSession) => Promise<number>) {
  return withBroker(flags, 'transactions', (broker) =>
    withDecisions(flags, async (decisions) => {
      const { surehop, output } = broker
      const desk = surehop.transactions(name, decisions ? { decisions } : {})
      if (!(await surehop.queueStatus(`${name}.half.parked`))) {
        output.note(missing(name))
        return EXIT.partly
      }
      const instances = async () => (await surehop.queueStatus(`${name}.half.check`))?.consumers ?? 0
      return run({ ...broker, desk, looks: decisions !== undefined, instances })
    }),
  )
}

function missing(name: string): string {
  return `There is no queue ${safe(name)}.half.parked on this virtual host: no service has prepared a transaction under the name ${safe(name)} here. Are the name and the address of the broker right?`
}

function withDecisions<T>(flags: TransactionsFlags, run: (store: DecisionStore | undefined) => Promise<T>): Promise<T> {
  const { schema, prefix, redis = process.env['REDIS_URL'] } = flags
  const kind = kindOf(flags)
  if (kind === undefined) return run(undefined)
  if (kind === 'postgres')
    return withDatabase(flags, (pool) =>
      closing(new PostgresDecisionStore({ pool, ...(schema === undefined ? {} : { schema }) }), run),
    )
  if (!redis) throw new InvalidOption('expected the address of the decision store: give --redis URL or set REDIS_URL')
  return closing(new RedisDecisionStore({ url: redis }, { prefix }), run)
}

function kindOf({ decisions, redis, database }: TransactionsFlags): TransactionsFlags['decisions'] {
  if (redis !== undefined && database !== undefined)
    throw new InvalidOption('expected either --redis or --database: the decisions of a service are in one store')
  return decisions ?? (redis === undefined ? (database === undefined ? undefined : 'postgres') : 'redis')
}

/** Where a message goes. */
export function targetOf({ exchange, queue, routingKey, type }: ParkedMessage): string {
  if (exchange === undefined) return `queue ${queue}`
  return routingKey === type ? exchange : `${exchange} ${routingKey}`.trim()
}

/** Checks, as far as the store that was looked into knows: one that was parked undecided was asked for at least once. */
export function checksOf({ checks, decision }: ParkedTransaction<unknown>): number | undefined {
  return checks === 0 && decision === undefined ? undefined : checks
}

/** For programs: nothing that is only made up, where it cannot be read or its store knows nothing of it. */
export function asJson<Message>(transaction: ParkedTransaction<Message>): object {
  const made = transaction.unreadable === undefined ? {} : { preparedAt: undefined, ageMs: undefined }
  return { ...transaction, checks: checksOf(transaction), ...made }
}

/** Its age; unknown where it cannot be read. */
export function ageOf({ preparedAt, unreadable }: ParkedTransaction<unknown>): string {
  return age(unreadable === undefined && Number.isFinite(preparedAt.getTime()) ? preparedAt : undefined)
}

/** Columns that only a decision store can fill. */
export function decisionColumns(looks: boolean): Column<ParkedTransaction>[] {
  if (!looks) return []
  return [
    { head: 'CHECKS', of: (t) => String(checksOf(t) ?? '?'), right: true },
    { head: 'DECIDED', of: ({ decision }) => decision ?? '', min: 9, spare: 4 },
  ]
}

/** Who will do it. */
export async function byWhom({ desk, instances }: TransactionsSession): Promise<string> {
  const count = await instances()
  const queue = `${safe(desk.name)}.half.check`
  return count > 0
    ? `${plural(count, 'instance')} of the service ${count === 1 ? 'takes' : 'take'} them up (consumers of ${queue})`
    : `No instance of the service runs now (nobody consumes ${queue}): it will be carried out when one starts`
}
