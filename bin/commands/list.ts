/** `surehop dead list`: the letters, oldest first. */
import type { Command } from 'commander'
import { type Letter, timeOfLetter } from '../../lib/index.ts'
import { sessionCommand } from '../command.ts'
import { untilAborted } from '../interruption.ts'
import { FILTER_HELP, type SelectionFlags, selectionFlags, selectionOf } from '../selection.ts'
import { type ConnectionFlags, EXIT, type Session } from '../session.ts'
import { type Column, type Output, table } from '../terminal.ts'
import { age, plural } from '../text.ts'

type Flags = ConnectionFlags & SelectionFlags & { readonly archive?: boolean }

/** A person reads a page; a pipe gets everything. */
const PAGE = 50
const CHUNK = 200

export function listCommand(): Command {
  return sessionCommand<Flags, [string]>('list <queue>', {
    description: 'list letters, oldest first; looking changes nothing',
    flags: (command) => selectionFlags(command).option('--archive', 'those that were discarded'),
    examples: [
      'surehop dead list orders',
      "surehop dead list orders --where 'type=order.*' --since 2h --json | jq .errorType",
    ],
    help: FILTER_HELP,
    run: list,
  })
}

async function list(session: Session, flags: Flags, queue: string): Promise<number> {
  const { output, interrupted } = session
  const limit = flags.limit ?? (flags.json ? undefined : PAGE + 1)
  const selection = selectionOf({ ...flags, ...(limit === undefined ? {} : { limit }) })
  const letters = session.letters(queue)
  const options = { archive: flags.archive === true, signal: interrupted }
  const rows: Letter[] = []
  let shown = 0
  let cutOff = false
  for await (const letter of untilAborted(letters.list(selection, options), interrupted)) {
    if (flags.limit === undefined && !flags.json && shown + rows.length === PAGE) {
      cutOff = true
      break
    }
    if (flags.json) await output.json(letter)
    else rows.push(letter)
    if (rows.length === CHUNK) shown += await flush(output, rows)
  }
  shown += await flush(output, rows)
  interrupted.throwIfAborted()
  if (cutOff) output.note(await more(letters, options.archive))
  if (shown === 0 && !flags.json) output.note(`No ${flags.archive ? 'discarded' : 'dead'} letters${narrowed(flags)}.`)
  return EXIT.done
}

async function more(letters: ReturnType<Session['letters']>, archive: boolean): Promise<string> {
  const count = await letters.count({ archive })
  return `\nThe first ${PAGE}, of ${plural(Math.max(count, PAGE + 1), 'letter')} in the queue. --limit shows more, --where and --since choose.`
}

function narrowed({ id, where, since, until }: Flags): string {
  return [id, where, since, until].some((part) => part !== undefined) ? ' match' : ''
}

async function flush(output: Output, rows: Letter[]): Promise<number> {
  const some = rows.splice(0)
  if (some.length > 0) await output.line(table(some, columns(output), output.width, output.paint.bold))
  return some.length
}

function columns({ paint }: Output): Column<Letter>[] {
  return [
    { head: 'AGE', of: (l) => age(timeOfLetter(l)), paint: paint.dim, right: true },
    { head: 'ID', of: ({ id }) => id, min: 36, keep: true },
    { head: 'TYPE', of: ({ type }) => type ?? '', min: 8, spare: 1 },
    { head: 'ERROR', of: errorOf, paint: paint.red, min: 10 },
    { head: 'WHY', of: whyOf, min: 12 },
    { head: 'KEY', of: ({ key }) => key ?? '', min: 4, spare: 4 },
    { head: 'TRIES', of: ({ attempt }) => String(attempt ?? ''), right: true, spare: 3 },
    { head: 'GEN', of: ({ generation }) => String(generation), right: true, spare: 2 },
  ]
}

/** What a row shows as the error. */
export function errorOf({ errorType, by }: Letter): string {
  if (by === 'broker') return 'by the broker'
  return errorType ?? (by === 'unknown' ? 'unknown' : '')
}

/** What a row shows as the reason. */
export function whyOf({ errorMessage, reason, by, queue }: Letter): string {
  if (by === 'broker') return `${reason}${queue === undefined ? '' : ` in ${queue}`}`
  if (by === 'unknown') return 'put here by somebody else'
  return errorMessage ?? reason
}
