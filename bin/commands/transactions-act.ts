/** `surehop transactions commit`, `rollback` and `check`: hands a verdict on parked transactions to the service. */
import type { Command } from 'commander'
import { InvalidOption, type Verdict } from '../../lib/index.ts'
import { confirmed } from '../ask.ts'
import { Progress } from '../progress.ts'
import { EXIT } from '../session.ts'
import { plural, safe } from '../text.ts'
import {
  byWhom,
  type TransactionsFlags,
  type TransactionsSession,
  transactionsSessionCommand,
} from '../transactions-session.ts'
import { unknown } from './transactions-show.ts'

interface Flags extends TransactionsFlags {
  readonly all?: boolean
  readonly dryRun?: boolean
  readonly yes?: boolean
}

interface Words {
  readonly description: string
  readonly verb: string
  readonly done: string
  /** What it means for the messages. */
  readonly means: (messages: string) => string
  readonly help: string
}

const STANDS = 'What was decided before stands; an instance then says so (transaction.warning).'

const WORDS: Readonly<Record<Verdict, Words>> = {
  commit: {
    description: 'their work was done: have the service send their messages',
    verb: 'commit',
    done: 'to be committed',
    means: (messages) => `${messages} will be sent`,
    help: `\nSay so only of work that was done. ${STANDS}`,
  },
  rollback: {
    description: 'their work was not done and never will be: have the service drop their messages',
    verb: 'roll back',
    done: 'to be rolled back',
    means: (messages) => `${messages} will never be sent`,
    help: `\nThe messages are gone for good; \`show --json --body\` keeps a copy. ${STANDS}`,
  },
  check: {
    description: 'have the service ask its `check` once more; what that cannot tell is parked again',
    verb: 'check',
    done: 'to be checked once more',
    means: (messages) => `${messages} will go or not as it answers`,
    help: '',
  },
}

/** One run takes no more; ids are kept in memory, so that exactly what was asked about is done. */
const MOST = 100_000

export function transactionsActCommand(verdict: Verdict): Command {
  const { description, help } = WORDS[verdict]
  return transactionsSessionCommand<Flags>(verdict, {
    description,
    flags: (command) => flagsOf(command, verdict),
    examples: [
      `surehop transactions ${verdict} payments order-4711 order-4712`,
      `surehop transactions ${verdict} payments --all --dry-run`,
    ],
    help,
    check: ({ all }, ids) => {
      if (ids.length > 0 === (all === true)) throw new InvalidOption('expected transaction ids, or else --all')
    },
    run: (session, flags, ids) => run(session, flags, ids, verdict),
  })
}

function flagsOf(command: Command, verdict: Verdict): Command {
  command
    .argument('[ids...]', 'transaction ids')
    .option('--all', 'all that are parked, instead of ids')
    .option('--dry-run', 'say what would be done, and do nothing')
  return verdict === 'check' ? command : command.option('-y, --yes', 'do not ask')
}

/** What is meant, and can be done. */
interface Plan {
  readonly chosen: ReadonlySet<string>
  readonly messages: number
  /** Unknown, or not to be read. */
  readonly left: number
}

async function run(session: TransactionsSession, flags: Flags, ids: readonly string[], verdict: Verdict) {
  const { output, interrupted } = session
  const plan = await planOf(session, flags, ids, verdict)
  if (interrupted.aborted) return EXIT.interrupted
  const { chosen, left } = plan
  const { verb, means } = WORDS[verdict]
  const what = `${verb} ${plural(chosen.size, 'transaction')}`
  output.note(chosen.size === 0 && flags.all ? `Nothing is parked in ${safe(session.desk.name)}.` : `Would ${what}.`)
  const code = left > 0 ? EXIT.partly : EXIT.done
  if (flags.dryRun || chosen.size === 0) return code
  const question = `${what[0]!.toUpperCase()}${what.slice(1)}: ${means(plural(plan.messages, 'message'))}?`
  if (!(await confirmed(session, question, verdict === 'check' || flags.yes === true)))
    return interrupted.aborted ? EXIT.interrupted : EXIT.partly
  return Math.max(code, await carryOut(session, flags, chosen, verdict))
}

/** Looks which of them are parked; told one by one with `--dry-run`. */
async function planOf(
  session: TransactionsSession,
  flags: Flags,
  ids: readonly string[],
  verdict: Verdict,
): Promise<Plan> {
  const { output, desk, interrupted } = session
  const wanted = flags.all ? undefined : new Set(ids)
  const chosen = new Set<string>()
  const seen = new Set<string>()
  const tell = teller(session, flags)
  let [messages, unreadable] = [0, 0]
  for await (const t of desk.list()) {
    if (interrupted.aborted || chosen.size === MOST) break
    if (wanted && !wanted.has(t.transactionId)) continue
    seen.add(t.transactionId)
    if (t.unreadable !== undefined) {
      unreadable++
      await tell(t.transactionId, 'would skip', `cannot be read: ${t.unreadable}`)
      continue
    }
    chosen.add(t.transactionId)
    messages += t.messages.length
    const before = t.decision && `${t.decision} meanwhile, and that stands`
    if (flags.dryRun) await tell(t.transactionId, `would ${WORDS[verdict].verb}`, before)
  }
  const unseen = interrupted.aborted ? [] : [...(wanted ?? [])].filter((id) => !seen.has(id))
  for (const id of unseen) output.note(unknown(id, desk.name))
  if (chosen.size === MOST) output.note(`The first ${MOST.toLocaleString('en-US')}: say it again for the rest.`)
  return { chosen, messages, left: unseen.length + unreadable }
}

function teller({ output }: TransactionsSession, { json }: Flags) {
  return async (transactionId: string, outcome: string, why?: string) => {
    if (json) return output.json({ transactionId, outcome, why })
    const text = `${safe(transactionId)}${why ? `: ${safe(why)}` : ''}`
    return output.line(`${output.paint.yellow(outcome)}  ${text}`)
  }
}

async function carryOut(
  session: TransactionsSession,
  flags: Flags,
  chosen: ReadonlySet<string>,
  verdict: Verdict,
): Promise<number> {
  const { output, desk, interrupted } = session
  const progress = new Progress(output, chosen.size)
  const tell = teller(session, flags)
  const handed = new Set<string>()
  const onSent = (id: string) => {
    handed.add(id)
    progress.step()
    if (flags.json) void tell(id, 'handed over')
  }
  try {
    const sending = desk.sendMany(chosen, verdict, { signal: interrupted, onSent })
    const { unsent } = await sending.finally(() => progress.stop())
    return await summary(session, handed.size, unsent, verdict)
  } catch (error) {
    if (handed.size > 0) output.note(`${handedOver(handed.size, verdict)} The rest is untouched:`)
    throw error
  }
}

/** Says no more than is known: that the verdict is in the check queue. What comes of it is the service's. */
async function summary(session: TransactionsSession, sent: number, unsent: readonly string[], verdict: Verdict) {
  const { output, desk, interrupted } = session
  output.note(handedOver(sent, verdict))
  if (sent > 0) output.note(`${await byWhom(session)}.`)
  if (interrupted.aborted && unsent.length > 0) {
    output.note('The rest is untouched (interrupted).')
    return EXIT.interrupted
  }
  for (const id of unsent) output.note(unknown(id, desk.name))
  return unsent.length > 0 ? EXIT.partly : EXIT.done
}

function handedOver(count: number, verdict: Verdict): string {
  return `Handed over ${plural(count, 'transaction')} ${WORDS[verdict].done}.`
}
