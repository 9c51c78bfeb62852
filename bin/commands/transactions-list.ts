/** `surehop transactions list`: the parked ones, oldest first, and how many wait. */
import type { Command } from 'commander'
import type { ParkedTransaction } from '../../lib/index.ts'
import { wholeNumber } from '../selection.ts'
import { EXIT } from '../session.ts'
import { type Column, table } from '../terminal.ts'
import { plural, safe } from '../text.ts'
import {
  ageOf,
  asJson,
  decisionColumns,
  type TransactionsFlags,
  type TransactionsSession,
  targetOf,
  transactionsSessionCommand,
} from '../transactions-session.ts'

interface Flags extends TransactionsFlags {
  readonly limit?: number
}

/** A person reads a page; a pipe gets everything. */
const PAGE = 50
const CHUNK = 200

export function transactionsListCommand(): Command {
  return transactionsSessionCommand<Flags>('list', {
    description: 'list parked transactions, oldest first, and count those that wait; looking changes nothing',
    flags: (command) => command.option('--limit <count>', 'at most so many, the oldest first', wholeNumber),
    examples: [
      'surehop transactions list payments',
      'surehop transactions list payments --decisions redis        with checks, and what was decided meanwhile',
      'surehop transactions list payments --json | jq -r .transactionId',
    ],
    run: list,
  })
}

async function list(session: TransactionsSession, flags: Flags): Promise<number> {
  const { output, desk, interrupted } = session
  const { json, limit = json ? Number.POSITIVE_INFINITY : PAGE } = flags
  const rows: ParkedTransaction[] = []
  let shown = 0
  for await (const transaction of desk.list()) {
    if (interrupted.aborted || shown + rows.length >= limit) break
    if (json) await output.json(asJson(transaction))
    else rows.push(transaction)
    if (json) shown++
    if (rows.length === CHUNK) shown += await flush(session, rows)
  }
  shown += await flush(session, rows)
  if (interrupted.aborted) return output.gone.aborted ? EXIT.done : EXIT.interrupted
  if (!json) await footer(session, shown)
  return EXIT.done
}

async function flush({ output, looks }: TransactionsSession, rows: ParkedTransaction[]): Promise<number> {
  const some = rows.splice(0)
  if (some.length > 0) await output.line(table(some, columns(output.paint, looks), output.width, output.paint.bold))
  return some.length
}

function columns(paint: TransactionsSession['output']['paint'], looks: boolean): Column<ParkedTransaction>[] {
  return [
    { head: 'AGE', of: ageOf, paint: paint.dim, right: true },
    { head: 'TRANSACTION', of: ({ transactionId }) => transactionId, min: 36, keep: true },
    ...decisionColumns(looks),
    { head: 'SERVICE', of: ({ service }) => service, min: 8, spare: 3 },
    { head: 'MESSAGES', of: ({ messages }) => String(messages.length), right: true, spare: 2 },
    { head: 'TYPE', of: ({ messages: [first] }) => first?.type ?? '', min: 8 },
    { head: 'TO', of: whereTo, min: 8, spare: 1 },
  ]
}

function whereTo({ messages: [first], unreadable }: ParkedTransaction): string {
  if (unreadable !== undefined) return `cannot be read: ${unreadable}`
  return first ? targetOf(first) : ''
}

/** How many are where. Those in an instance's hand are in no count of the broker's. */
async function footer({ output, desk, instances }: TransactionsSession, shown: number): Promise<void> {
  const { waiting, undecided, parked } = await desk.counts()
  const count = (n: number) => n.toLocaleString('en-US')
  const name = safe(desk.name)
  const first = shown < parked ? `The first ${count(shown)}, --limit shows more. ` : ''
  output.note(shown === 0 ? `Nothing is parked in ${name}.` : `\n${first}${count(parked)} parked.`)
  output.note(
    `${count(undecided)} undecided, ready to be checked; ${count(waiting)} before their first check${waiting > 0 ? ' (most of those are long decided)' : ''}. Not counted: what instances have in hand.`,
  )
  const running = await instances()
  output.note(
    running > 0
      ? `${plural(running, 'instance')} of the service ${running === 1 ? 'checks' : 'check'} back.`
      : `No instance of the service runs: nobody consumes ${name}.half.check, and nothing is checked until one starts.`,
  )
}
