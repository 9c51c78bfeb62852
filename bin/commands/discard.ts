/** `surehop dead discard` and `restore`: to the archive, and back. */
import type { Command } from 'commander'
import type { Letter, MoveOptions, MoveResult, Selection } from '../../lib/index.ts'
import { confirmed } from '../ask.ts'
import { sessionCommand } from '../command.ts'
import { exitCodeOf } from '../explained.ts'
import { Progress } from '../progress.ts'
import { Asked, FILTER_HELP, isWhole, type SelectionFlags, selectionFlags, selectionOf } from '../selection.ts'
import { type ConnectionFlags, EXIT, type Session } from '../session.ts'
import { plural, redacted, safe } from '../text.ts'

interface Flags extends ConnectionFlags, SelectionFlags {
  readonly dryRun?: boolean
  readonly yes?: boolean
}

type Move = (selection: Selection, options: MoveOptions) => Promise<MoveResult>

interface Words {
  readonly verb: string
  readonly done: string
  readonly from: string
  readonly moveOf: (session: Session, queue: string) => Move
}

const DISCARD: Words = {
  verb: 'discard',
  done: 'Discarded',
  from: 'dead',
  moveOf: (session, queue) => (selection, options) => session.letters(queue).discard(selection, options),
}
const RESTORE: Words = {
  verb: 'restore',
  done: 'Restored',
  from: 'archive',
  moveOf: (session, queue) => (selection, options) => session.letters(queue).restore(selection, options),
}

export function discardCommand(): Command {
  return command('move letters to the archive, where they can be restored for 14 days', DISCARD, [
    "surehop dead discard orders --where 'error=ValidationError' --dry-run",
    'surehop dead discard orders --id 0198f5c2-7d1e-7c4e-b5a0-3f2f1f6f5a11 --yes',
  ])
}

export function restoreCommand(): Command {
  return command('bring discarded letters back to the dead letters', RESTORE, [
    'surehop dead list orders --archive',
    'surehop dead restore orders --since 1d',
  ])
}

function command(description: string, words: Words, examples: readonly string[]): Command {
  return sessionCommand<Flags, [string]>(`${words.verb} <queue>`, {
    description,
    flags: (command) =>
      selectionFlags(command)
        .option('--dry-run', 'say which letters are meant, and do nothing')
        .option('-y, --yes', 'do not ask'),
    examples,
    help: FILTER_HELP,
    run: (session, flags, queue) => run(session, flags, queue, words),
  })
}

async function run(session: Session, flags: Flags, queue: string, words: Words): Promise<number> {
  const { output, interrupted } = session
  const selection = selectionOf(flags)
  const move = words.moveOf(session, queue)
  const asked = new Asked()
  const print = printer(session, flags, `would ${words.verb}`)
  const onMoved = (letter: Letter) => (flags.dryRun ? print(letter) : asked.add(letter))
  const plan = await move(selection, { dryRun: true, signal: interrupted, onMoved })
  if (plan.error) throw plan.error
  if (interrupted.aborted) return EXIT.interrupted
  const all = isWhole(selection) && plan.moved > 0 ? 'all of them: ' : ''
  output.note(
    `Would ${words.verb} ${all}${plural(plan.moved, 'letter')} of ${plan.seen.toLocaleString('en-US')} seen in ${safe(queue)}.${words.from}.`,
  )
  if (flags.dryRun) return EXIT.done
  if (plan.moved === 0) return selection.ids === undefined ? EXIT.done : EXIT.partly
  if (
    !(await confirmed(
      session,
      `${words.verb[0]!.toUpperCase()}${words.verb.slice(1)} ${plural(plan.moved, 'letter')}?`,
      flags.yes === true,
    ))
  )
    return interrupted.aborted ? EXIT.interrupted : EXIT.partly
  return carryOut(session, flags, words, move, asked.of(selection, plan.moved))
}

async function carryOut(session: Session, flags: Flags, words: Words, move: Move, asked: Selection): Promise<number> {
  const { output, interrupted } = session
  const progress = new Progress(output, asked.limit ?? 0)
  const print = printer(session, flags, words.done.toLowerCase())
  const onMoved = (letter: Letter) => {
    progress.step()
    if (flags.json) print(letter)
  }
  const result = await move(asked, { signal: interrupted, onMoved }).finally(() => progress.stop())
  output.note(`${words.done} ${plural(result.moved, 'letter')}.${restOf(result)}`)
  if (result.stopped === 'interrupted') return EXIT.interrupted
  return result.error ? Math.max(EXIT.partly, exitCodeOf(result.error)) : EXIT.done
}

function restOf({ stopped, failed, error }: MoveResult): string {
  const why = error ? `: ${safe(redacted(error.message))}` : ' (interrupted).'
  if (stopped !== 'done') return ` The rest is untouched${why}`
  return failed === 0 ? '' : ` ${plural(failed, 'letter')} cannot be moved, for instance${why}`
}

function printer({ output }: Session, flags: Flags, outcome: string) {
  return (letter: { readonly id: string; readonly type: string | undefined }) => {
    const { id, type } = letter
    if (flags.json) void output.json({ id, type, outcome })
    else void output.line(`${output.paint.yellow(outcome)}  ${safe(id)}${type ? ` ${safe(type)}` : ''}`)
  }
}
