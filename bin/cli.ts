#!/usr/bin/env node
/**
 * The command `surehop`. Exit codes: 0 done, 1 partly or not, 2 usage, 3 no connection, 130 interrupted.
 */
import { createRequire } from 'node:module'
import { Command, CommanderError } from 'commander'
import { deadCommand } from './commands/dead.ts'
import { doctorCommand } from './commands/doctor.ts'
import { migrateCommand } from './commands/migrate.ts'
import { outboxCommand } from './commands/outbox.ts'
import { topologyCommand } from './commands/topology.ts'
import { transactionsCommand } from './commands/transactions.ts'
import { explained } from './explained.ts'
import { redacted, safeLines } from './text.ts'

const EXAMPLES = `
Examples:
  surehop dead groups orders                                    what went wrong, by kind
  surehop dead list orders --since 2h                           the letters
  surehop dead replay orders --where error=TimeoutError --dry-run
  surehop doctor orders                                         is everything set up as it should be
  surehop outbox status                                         what waits to be sent, and who sends it
  surehop transactions list payments                            half messages that nobody could decide
  surehop migrate                                               make or complete the tables in Postgres

Connection: --amqp URL or AMQP_URL; --redis URL or REDIS_URL; --database URL or DATABASE_URL. Prefer the environment: a command line can be seen by others.
Exit codes: 0 done, 1 partly or not, 2 usage, 3 no connection, 130 interrupted.`

function program(): Command {
  return new Command('surehop')
    .description('Dead letters, outbox, half messages, topology, tables and health of Surehop services on RabbitMQ.')
    .version((createRequire(import.meta.url)('surehop/package.json') as { version: string }).version)
    .addCommand(deadCommand())
    .addCommand(topologyCommand())
    .addCommand(doctorCommand())
    .addCommand(outboxCommand())
    .addCommand(transactionsCommand())
    .addCommand(migrateCommand())
    .addHelpText('after', EXAMPLES)
    .showSuggestionAfterError()
    .showHelpAfterError('(--help says more)')
}

async function main(): Promise<void> {
  const root = program()
  for (const command of tree(root)) command.exitOverride().configureOutput({ outputError })
  try {
    await root.parseAsync()
  } catch (error) {
    if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? 0 : 2
    else process.exitCode = explained(error)
  }
}

/** A mistyped option may hold an address, and that a password. */
function outputError(text: string, write: (text: string) => void): void {
  write(safeLines(redacted(text)))
}

function tree(command: Command): Command[] {
  return [command, ...command.commands.flatMap(tree)]
}

await main()
