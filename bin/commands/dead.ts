/** `surehop dead ...`: what can be done with the dead letters of a queue. */
import { Command } from 'commander'
import { FILTER_HELP } from '../selection.ts'
import { discardCommand, restoreCommand } from './discard.ts'
import { editCommand } from './edit.ts'
import { exportCommand, importCommand } from './export.ts'
import { groupsCommand } from './groups.ts'
import { listCommand } from './list.ts'
import { replayCommand } from './replay.ts'
import { showCommand } from './show.ts'

const EXAMPLES = `
Examples:
  surehop dead groups orders
  surehop dead show orders 0198f5c2-7d1e-7c4e-b5a0-3f2f1f6f5a11
  surehop dead replay orders --where 'error=TimeoutError and type=order.*' --since 2h
  surehop dead export orders > letters.ndjson
${FILTER_HELP}`

export function deadCommand(): Command {
  const dead = new Command('dead')
    .description('look at dead letters, send them again, discard, restore, edit, export, import')
    .addHelpText('after', EXAMPLES)
  const all = [listCommand, groupsCommand, showCommand, replayCommand, discardCommand]
  const rest = [restoreCommand, editCommand, exportCommand, importCommand]
  for (const make of [...all, ...rest]) dead.addCommand(make())
  return dead.showHelpAfterError('(--help says more)').showSuggestionAfterError()
}
