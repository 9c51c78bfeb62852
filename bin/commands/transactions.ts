/** `surehop transactions ...`: half messages that nobody could decide, and what to do about them. */
import { Command } from 'commander'
import { transactionsActCommand } from './transactions-act.ts'
import { transactionsListCommand } from './transactions-list.ts'
import { transactionsShowCommand } from './transactions-show.ts'

const EXAMPLES = `
This command decides nothing by itself: it hands your verdict to a running instance of the service, whose decision store has the last word.

Examples:
  surehop transactions list payments                            what is parked, and how many wait
  surehop transactions show payments order-4711 --body
  surehop transactions commit payments order-4711               it was done: send its messages
  surehop transactions rollback payments order-4712             it was not done: its messages are never sent
  surehop transactions check payments --all                     ask the service once more`

export function transactionsCommand(): Command {
  const transactions = new Command('transactions')
    .description('look at half messages that nobody could decide, commit, roll back, check again')
    .addHelpText('after', EXAMPLES)
  const acts = (['commit', 'rollback', 'check'] as const).map(transactionsActCommand)
  for (const command of [transactionsListCommand(), transactionsShowCommand(), ...acts])
    transactions.addCommand(command)
  return transactions.showHelpAfterError('(--help says more)').showSuggestionAfterError()
}
