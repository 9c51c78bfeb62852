/** `surehop dead groups`: what went wrong, by kind. */
import type { Command } from 'commander'
import type { LetterGroup } from '../../lib/index.ts'
import { sessionCommand } from '../command.ts'
import { FILTER_HELP, type SelectionFlags, selectionFlags, selectionOf } from '../selection.ts'
import { type ConnectionFlags, EXIT, type Session } from '../session.ts'
import { type Column, type Output, table } from '../terminal.ts'
import { age, plural } from '../text.ts'

type Flags = ConnectionFlags & SelectionFlags

export function groupsCommand(): Command {
  return sessionCommand<Flags, [string]>('groups <queue>', {
    description: 'count letters by what went wrong, the most frequent first',
    flags: selectionFlags,
    examples: ['surehop dead groups orders', 'surehop dead groups orders --since 1d --json'],
    help: FILTER_HELP,
    run: groups,
  })
}

async function groups(session: Session, flags: Flags, queue: string): Promise<number> {
  const { output, interrupted } = session
  const found = await session.letters(queue).groups(selectionOf(flags), { signal: interrupted })
  if (flags.json) for (const group of found) await output.json(group)
  else if (found.length === 0) output.note('No dead letters.')
  else await print(output, found)
  return EXIT.done
}

async function print(output: Output, found: readonly LetterGroup[]): Promise<void> {
  await output.line(table(found, columns(output), output.width, output.paint.bold))
  const letters = found.reduce((sum, { count }) => sum + count, 0)
  output.note(`\n${plural(letters, 'letter')} in ${plural(found.length, 'group')}.`)
}

function columns({ paint }: Output): Column<LetterGroup>[] {
  return [
    { head: 'COUNT', of: ({ count }) => count.toLocaleString('en-US'), right: true, keep: true },
    {
      head: 'ERROR',
      of: (g) => (g.by === 'broker' ? 'by the broker' : (g.errorType ?? g.by)),
      paint: paint.red,
      min: 10,
    },
    { head: 'WHY', of: whyOf, min: 14 },
    { head: 'TYPES', of: ({ types }) => types.join(' '), min: 8, spare: 1 },
    { head: 'FIRST', of: ({ firstAt }) => age(firstAt), paint: paint.dim, spare: 3 },
    { head: 'LAST', of: ({ lastAt }) => age(lastAt), paint: paint.dim, spare: 2 },
    { head: 'FINGERPRINT', of: ({ fingerprint }) => fingerprint ?? '', spare: 4 },
    { head: 'FOR INSTANCE', of: ({ sampleId }) => sampleId, min: 36 },
  ]
}

function whyOf({ by, errorMessage, reason }: LetterGroup): string {
  if (by === 'broker') return reason
  return by === 'unknown' ? 'put here by somebody else' : (errorMessage ?? reason)
}
