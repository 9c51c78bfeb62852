/** `surehop outbox ...`: what waits in the outbox, what is stuck and why, and what to do about it. Needs the database, no broker. */
import { Command } from 'commander'
import { outboxActCommand } from './outbox-act.ts'
import { outboxListCommand } from './outbox-list.ts'
import { outboxShowCommand } from './outbox-show.ts'
import { outboxStatusCommand } from './outbox-status.ts'

const EXAMPLES = `
States: ready (to be sent), held (tried again later, or behind another message of its key), parked (given up on), sent (where kept).

Examples:
  surehop outbox status
  surehop outbox list                                           what is parked
  surehop outbox show 0198f5c2-7d1e-7c4e-b5a0-3f2f1f6f5a11
  surehop outbox retry --state parked --dry-run

Connection: --database URL or DATABASE_URL.`

export function outboxCommand(): Command {
  const outbox = new Command('outbox')
    .description('look at the outbox, send parked messages again, park and drop')
    .addHelpText('after', EXAMPLES)
  const acts = (['retry', 'park', 'drop'] as const).map(outboxActCommand)
  for (const command of [outboxStatusCommand(), outboxListCommand(), outboxShowCommand(), ...acts])
    outbox.addCommand(command)
  return outbox.showHelpAfterError('(--help says more)').showSuggestionAfterError()
}
