/** `surehop outbox retry`, `park` and `drop`. */
import type { Command } from 'commander'
import {
  type DeskOptions,
  type DeskOutcome,
  type DeskResult,
  type DeskSelection,
  InvalidOption,
  type OutboxState,
} from '../../lib/index.ts'
import { confirmed } from '../ask.ts'
import {
  type OutboxFlags,
  type OutboxSession,
  outboxSessionCommand,
  positionNumber,
  stateOption,
} from '../outbox-session.ts'
import { Progress } from '../progress.ts'
import { wholeNumber } from '../selection.ts'
import { EXIT } from '../session.ts'
import { plural, safe } from '../text.ts'
import { missing } from './outbox-show.ts'

type Verb = 'retry' | 'park' | 'drop'

interface Flags extends OutboxFlags {
  readonly position?: readonly bigint[]
  readonly state?: OutboxState
  readonly limit?: number
  readonly force?: boolean
  readonly dryRun?: boolean
  readonly yes?: boolean
}

interface Words {
  readonly description: string
  readonly done: string
  readonly examples: readonly string[]
  readonly help: string
}

const WORDS: Readonly<Record<Verb, Words>> = {
  retry: {
    description: 'try parked messages again, their attempts counted anew, or held ones at once',
    done: 'Put back',
    examples: [
      'surehop outbox retry --state parked',
      'surehop outbox retry 0198f5c2-7d1e-7c4e-b5a0-3f2f1f6f5a11 --yes',
    ],
    help: '\nA parked message with a key goes out of order: the messages behind it went on when it was parked.',
  },
  park: {
    description: 'take messages out of the way until they are retried or dropped; their keys go on without them',
    done: 'Parked',
    examples: [
      'surehop outbox park 0198f5c2-7d1e-7c4e-b5a0-3f2f1f6f5a11',
      'surehop outbox park --state held --limit 10',
    ],
    help: '\nA relay may have a message in hand in the same moment: it may be sent nevertheless.',
  },
  drop: {
    description: 'delete parked messages for good',
    done: 'Dropped',
    examples: ['surehop outbox drop --position 4711', 'surehop outbox drop --state parked --dry-run'],
    help: '\nWhat was dropped is never sent and cannot be restored; `show --json` keeps a copy.',
  },
}

export function outboxActCommand(verb: Verb): Command {
  const { description, examples, help } = WORDS[verb]
  return outboxSessionCommand<Flags>(verb, {
    description,
    flags: (command) => flagsOf(command, verb),
    examples,
    help,
    run: (session, flags, ids) => run(session, flags, ids, verb),
  })
}

function flagsOf(command: Command, verb: Verb): Command {
  command
    .argument('[ids...]', 'message ids')
    .option('--position <position>', 'the message at this position; may be repeated', (text, before: bigint[] = []) => [
      ...before,
      positionNumber(text),
    ])
    .addOption(stateOption('all in this state, instead of ids and positions'))
    .option('--limit <count>', 'at most so many, by position', wholeNumber)
    .option('--dry-run', 'say what would be done, and do nothing')
    .option('-y, --yes', 'do not ask')
  return verb === 'drop' ? command.option('--force', 'also what is not parked') : command
}

/** One run takes no more; positions are kept in memory, so that exactly what was asked about is done. */
const MOST = 100_000
/** So many are done in one transaction: of these, all or none. */
const CHUNK = 100

async function run(session: OutboxSession, flags: Flags, ids: readonly string[], verb: Verb): Promise<number> {
  const { output, desk, interrupted } = session
  const selection = selectionOf(flags, ids)
  const options: DeskOptions = { signal: interrupted, ...(flags.force ? { force: true } : {}) }
  const print = printer(session, flags, `would ${verb}`, flags.json && !flags.dryRun ? 'skipped' : 'would skip')
  const asked: bigint[] = []
  const onOutcome = (outcome: DeskOutcome) => {
    if (flags.dryRun || !outcome.done) print(outcome)
    else asked.push(BigInt(outcome.row.position))
  }
  const limit = Math.min(selection.limit ?? MOST, MOST)
  const plan = await desk[verb]({ ...selection, limit }, { ...options, dryRun: true, onOutcome })
  if (plan.stopped === 'interrupted') return EXIT.interrupted
  for (const ref of plan.missing) output.note(missing(ref, flags))
  output.note(`Would ${verb} ${plural(plan.done, 'message')}${skipText('skip', plan.skipped)}.`)
  if (plan.done + plan.skipped === MOST)
    output.note(`The first ${MOST.toLocaleString('en-US')}: say it again for the rest.`)
  if (flags.dryRun || plan.done === 0) return exitCodeOf(selection, plan)
  const question = `${verb[0]!.toUpperCase()}${verb.slice(1)} ${plural(plan.done, 'message')}?`
  if (await confirmed(session, question, flags.yes === true))
    return carryOut(session, flags, verb, { asked, selection, options, plan })
  return interrupted.aborted ? EXIT.interrupted : EXIT.partly
}

/** Who asks for a message by name wants it done; "all in a state" is done also where there is none. */
function exitCodeOf({ rows }: DeskSelection, { skipped, missing }: DeskResult): number {
  return rows !== undefined && skipped + missing.length > 0 ? EXIT.partly : EXIT.done
}

function skipText(word: string, skipped: number): string {
  return skipped > 0 ? `, ${word} ${skipped.toLocaleString('en-US')}` : ''
}

interface Order {
  /** Positions of the rows a person was asked about. */
  readonly asked: readonly bigint[]
  readonly selection: DeskSelection
  readonly options: DeskOptions
  readonly plan: DeskResult
}

async function carryOut(session: OutboxSession, flags: Flags, verb: Verb, order: Order): Promise<number> {
  const { output, desk } = session
  const { asked, selection, options, plan } = order
  const progress = new Progress(output, asked.length)
  const print = printer(session, flags, WORDS[verb].done.toLowerCase(), 'skipped')
  const onOutcome = (outcome: DeskOutcome) => {
    progress.step()
    if (flags.json) print(outcome)
  }
  let result: DeskResult = { ...plan, done: 0, mayBeSent: 0, outOfOrder: 0 }
  try {
    for (let at = 0; at < asked.length && result.stopped === 'done'; at += CHUNK)
      result = sum(result, await desk[verb]({ rows: asked.slice(at, at + CHUNK) }, { ...options, onOutcome }))
  } finally {
    progress.stop()
    output.note(`${WORDS[verb].done} ${plural(result.done, 'message')}${skipText('skipped', result.skipped)}.`)
    for (const warning of warningsOf(result)) output.note(warning)
  }
  if (result.stopped !== 'interrupted') return exitCodeOf(selection, result)
  output.note('The rest is untouched (interrupted).')
  return EXIT.interrupted
}

/** Rows that were sent or dropped meanwhile count as skipped. */
function sum(before: DeskResult, { done, skipped, mayBeSent, outOfOrder, missing, stopped }: DeskResult): DeskResult {
  return {
    done: before.done + done,
    skipped: before.skipped + skipped + missing.length,
    mayBeSent: before.mayBeSent + mayBeSent,
    outOfOrder: before.outOfOrder + outOfOrder,
    missing: before.missing,
    stopped,
  }
}

function warningsOf({ mayBeSent, outOfOrder }: DeskResult): string[] {
  const ofThem = (count: number) => `${count.toLocaleString('en-US')} of them`
  const sent = `${ofThem(mayBeSent)} may have been sent in the same moment: a relay could have had them in hand.`
  const order = `${ofThem(outOfOrder)} with a key: sent after whatever of their key went on meanwhile.`
  return [...(mayBeSent > 0 ? [sent] : []), ...(outOfOrder > 0 ? [order] : [])]
}

function selectionOf({ position = [], state, limit }: Flags, ids: readonly string[]): DeskSelection {
  const rows = [...ids, ...position]
  if (rows.length > 0 === (state !== undefined))
    throw new InvalidOption('expected message ids or --position, or else --state for all in a state')
  return { ...(state === undefined ? { rows } : { state }), ...(limit === undefined ? {} : { limit }) }
}

function printer({ output }: OutboxSession, { json }: Flags, doneText: string, skippedText: string) {
  return ({ row, done, why }: DeskOutcome) => {
    const { position, outbox, messageId, type } = row
    const outcome = done ? doneText : skippedText
    const words = `${safe(messageId)}${type ? ` ${safe(type)}` : ''}${why ? `: ${why}` : ''}`
    if (json) void output.json({ position, outbox, messageId, type, outcome, why })
    else void output.line(`${output.paint.yellow(outcome)}  ${words}`)
  }
}
