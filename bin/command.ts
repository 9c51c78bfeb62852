/** What all commands on a queue share: flags, help, exit code. */
import { Command } from 'commander'
import { type ConnectionFlags, connectionFlags, type Session, withSession } from './session.ts'

export interface Recipe<Flags, Args extends unknown[]> {
  readonly description: string
  readonly examples: readonly string[]
  /** Adds flags of its own. */
  readonly flags?: (command: Command) => Command
  /** @returns the exit code */
  readonly run: (session: Session, flags: Flags, ...args: Args) => Promise<number>
  readonly help?: string
}

/**
 * A command that opens a session, runs and sets the exit code.
 * @param signature e.g. `show <queue> <id>`
 */
export function sessionCommand<Flags extends ConnectionFlags, Args extends unknown[]>(
  signature: string,
  recipe: Recipe<Flags, Args>,
): Command {
  const [name = '', ...args] = signature.split(' ')
  const command = new Command(name).description(recipe.description)
  for (const arg of args) command.argument(arg)
  connectionFlags(recipe.flags?.(command) ?? command)
  const examples = recipe.examples.map((line) => `  ${line}`).join('\n')
  command.addHelpText('after', `\nExamples:\n${examples}\n${recipe.help ?? ''}`)
  command.showSuggestionAfterError().showHelpAfterError('(--help says more)')
  return command.action(async (...given: unknown[]) => {
    const values = given.slice(0, args.length) as Args
    const flags = given[args.length] as Flags
    process.exitCode = await withSession(flags, (session) => recipe.run(session, flags, ...values))
  })
}
