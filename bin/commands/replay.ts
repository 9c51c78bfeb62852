/** `surehop dead replay`: sends letters again, a few at first, and stops when too many fail again. */
import { type Command, InvalidArgumentError } from 'commander'
import { type ReplayOptions, type ReplayOutcome, type ReplayResult, type Selection, skipText } from '../../lib/index.ts'
import { confirmed } from '../ask.ts'
import { sessionCommand } from '../command.ts'
import { exitCodeOf } from '../explained.ts'
import { Progress } from '../progress.ts'
import { Asked, FILTER_HELP, type SelectionFlags, selectionFlags, selectionOf, Versions } from '../selection.ts'
import { type ConnectionFlags, EXIT, type Session } from '../session.ts'
import { plural, redacted, safe } from '../text.ts'

interface Flags extends ConnectionFlags, SelectionFlags {
  readonly rate: number
  readonly watch: boolean
  readonly force?: boolean
  readonly to?: string
  readonly dryRun?: boolean
  readonly yes?: boolean
}

const PER_SECOND: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3_600 }

export function replayCommand(): Command {
  return sessionCommand<Flags, [string]>('replay <queue>', {
    description: 'send letters to their queue again, in growing batches, and stop when too many fail again',
    flags: (command) =>
      selectionFlags(command)
        .option('--rate <rate>', 'letters per second, minute or hour (50/s, 600/m); 0 or none: no limit', rateOf, 50)
        .option('--no-watch', 'do not wait in between to see whether they fail again')
        .option('--to <queue>', 'for letters that do not say where they come from')
        .option('--force', 'also those already completed; their consumer drops them')
        .option('--dry-run', 'say what would be done with each letter, and do nothing')
        .option('-y, --yes', 'do not ask'),
    examples: [
      'surehop dead replay orders --where error=TimeoutError --dry-run',
      "surehop dead replay orders --where 'error=TimeoutError and type=order.*' --since 2h",
      'surehop dead replay orders --id 0198f5c2-7d1e-7c4e-b5a0-3f2f1f6f5a11 --yes',
      'surehop dead replay orders --rate none --no-watch --yes',
    ],
    help: FILTER_HELP,
    run: replay,
  })
}

async function replay(session: Session, flags: Flags, queue: string): Promise<number> {
  const { output } = session
  const selection = selectionOf(flags)
  if (!session.store)
    output.note('Without --redis nothing is known of what was completed: a letter that was is sent and dropped.')
  const asked = new Asked()
  const plan = await preview(session, flags, queue, selection, asked)
  if (plan.error) throw plan.error
  if (session.interrupted.aborted) return EXIT.interrupted
  output.note(planText(plan, queue))
  if (plan.replayed > 0) await noteIdle(session, flags, queue)
  if (flags.dryRun) return EXIT.done
  if (plan.replayed === 0) return plan.selected === 0 && selection.ids === undefined ? EXIT.done : EXIT.partly
  if (!(await confirmed(session, `Send ${plural(plan.replayed, 'letter')} again?`, flags.yes === true)))
    return session.interrupted.aborted ? EXIT.interrupted : EXIT.partly
  return run(session, flags, queue, asked.of(selection, plan.selected), plan)
}

function optionsOf(flags: Flags, { interrupted }: Session): ReplayOptions {
  const { rate, watch, force, to } = flags
  const target = to === undefined ? {} : { to }
  return { perSecond: rate, watch, force: force === true, ...target, signal: interrupted }
}

/** Letters sent to a queue without a consumer wait there, and a replay that watches them waits with them. */
async function noteIdle({ surehop, output }: Session, { watch }: Flags, queue: string): Promise<void> {
  const status = await surehop.queueStatus(queue)
  if (status?.consumers !== 0) return
  const then = watch ? ', and this command with it after each batch (--no-watch does not)' : ''
  output.note(`Nobody consumes ${safe(queue)} now: what is sent waits there${then}.`)
}

/** What would be done; told letter by letter with `--dry-run`. */
async function preview(
  session: Session,
  flags: Flags,
  queue: string,
  selection: Selection,
  asked: Asked,
): Promise<ReplayResult> {
  const versions = new Versions()
  const onOutcome = (outcome: ReplayOutcome) => {
    if (outcome.outcome === 'would-replay') versions.add(outcome.letter)
    if (flags.dryRun) void tell(session, flags, outcome)
    else asked.add(outcome.letter)
  }
  const options = { ...optionsOf(flags, session), dryRun: true, onOutcome }
  const plan = await session.letters(queue).replay(selection, options)
  if (versions.older) session.output.note(session.output.notePaint.yellow(olderText(versions.older, queue)))
  return plan
}

function olderText({ id, generation }: NonNullable<Versions['older']>, queue: string): string {
  const [q, letter] = [safe(queue), safe(id)]
  return `${letter} lies here in a newer generation, too, as an edit that was cut off leaves it: sent again together, the older may be handled, and the newer dropped. Look: surehop dead show ${q} ${letter}. Take the older away: surehop dead discard ${q} --id ${letter} --where generation=${generation}`
}

async function run(
  session: Session,
  flags: Flags,
  queue: string,
  asked: Selection,
  plan: ReplayResult,
): Promise<number> {
  const { output } = session
  const progress = new Progress(output, plan.replayed)
  const onOutcome = (outcome: ReplayOutcome) => {
    if (outcome.outcome === 'replayed') progress.step()
    if (flags.json || outcome.outcome !== 'replayed') void tell(session, flags, outcome)
  }
  const replaying = session.letters(queue).replay(asked, { ...optionsOf(flags, session), onOutcome })
  const result = await replaying.finally(() => progress.stop())
  if (flags.json) await output.json({ summary: { ...result, error: result.error && redacted(result.error.message) } })
  output.note(summary(result))
  return exitCode(result)
}

function tell({ output }: Session, flags: Flags, outcome: ReplayOutcome): Promise<void> {
  return flags.json ? output.json(outcomeJson(outcome)) : output.line(outcomeLine(outcome, flags, output.paint))
}

function outcomeJson(outcome: ReplayOutcome): object {
  const { letter, to } = outcome
  const base = { id: letter.id, type: letter.type, to, outcome: outcome.outcome }
  if (outcome.outcome === 'skipped') return { ...base, why: skipText(outcome.why) }
  if (outcome.outcome === 'failed') return { ...base, why: redacted(outcome.error.message) }
  return { ...base, generation: outcome.generation }
}

function outcomeLine(outcome: ReplayOutcome, { dryRun }: Flags, paint: Session['output']['paint']): string {
  const { letter, to } = outcome
  const what = `${safe(letter.id)}${letter.type ? ` ${safe(letter.type)}` : ''}`
  switch (outcome.outcome) {
    case 'would-replay':
      return `${paint.green('would replay')}  ${what} → ${safe(to)}, generation ${outcome.generation}`
    case 'replayed':
      return `${paint.green('replayed')}      ${what} → ${safe(to)}, generation ${outcome.generation}`
    case 'skipped':
      return `${paint.yellow((dryRun ? 'would skip' : 'skipped').padEnd(12))}  ${what}: ${skipText(outcome.why)}`
    case 'failed':
      return `${paint.red('failed')}        ${what}: ${safe(redacted(outcome.error.message))}`
  }
}

function planText({ replayed, skipped, seen }: ReplayResult, queue: string): string {
  if (replayed + skipped === 0) return `None of ${plural(seen, 'letter')} in ${safe(queue)}.dead is meant.`
  const skip = skipped > 0 ? `, would skip ${skipped.toLocaleString('en-US')} (already completed, or newer known)` : ''
  return `Would replay ${plural(replayed, 'letter')} of ${seen.toLocaleString('en-US')} seen in ${safe(queue)}.dead${skip}.`
}

function summary(result: ReplayResult): string {
  const { replayed, skipped, failed, completed, failedAgain, stopped } = result
  const parts = [`Replayed ${plural(replayed, 'letter')}`]
  if (completed > 0) parts.push(`${completed.toLocaleString('en-US')} completed`)
  if (failedAgain > 0) parts.push(`${failedAgain.toLocaleString('en-US')} failed again`)
  if (skipped > 0) parts.push(`${skipped.toLocaleString('en-US')} skipped`)
  if (failed > 0) parts.push(`${failed.toLocaleString('en-US')} could not be sent and stay`)
  return `${parts.join(', ')}.${STOPPED[stopped](result)}`
}

const STOPPED: Readonly<Record<ReplayResult['stopped'], (result: ReplayResult) => string>> = {
  done: () => '',
  failing: () =>
    ' Stopped: too many fail again. The rest is untouched; mend the cause first, "surehop dead groups" says which.',
  interrupted: () => ' Interrupted: the rest is untouched.',
  unreachable: ({ error }) => ` Cut short, the rest is untouched: ${safe(redacted(error?.message ?? 'no answer'))}`,
}

function exitCode({ stopped, failed, failedAgain, replayed, error }: ReplayResult): number {
  if (stopped === 'interrupted') return EXIT.interrupted
  if (stopped === 'unreachable') return Math.max(EXIT.partly, exitCodeOf(error))
  return stopped === 'failing' || failed > 0 || failedAgain > 0 || replayed === 0 ? EXIT.partly : EXIT.done
}

function rateOf(text: string): number {
  if (/^(none|0|unlimited)$/i.test(text)) return 0
  const [, count, unit = 's'] = /^(\d{1,7}(?:\.\d{1,3})?)(?:\/([smh]))?$/.exec(text) ?? []
  const perSecond = Number(count) / PER_SECOND[unit]!
  if (!(perSecond > 0)) throw new InvalidArgumentError('expected a rate such as 50/s, 600/m, or none')
  return perSecond
}
