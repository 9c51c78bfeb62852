/** `surehop outbox list`: rows in one state, by position. */
import type { Command } from 'commander'
import type { OutboxRow, OutboxState } from '../../lib/index.ts'
import {
  type OutboxFlags,
  type OutboxSession,
  outboxSessionCommand,
  positionNumber,
  stateOption,
  targetOf,
} from '../outbox-session.ts'
import { wholeNumber } from '../selection.ts'
import { EXIT } from '../session.ts'
import { type Column, type Output, table } from '../terminal.ts'
import { age, duration } from '../text.ts'

interface Flags extends OutboxFlags {
  readonly state: OutboxState
  readonly limit?: number
  readonly after?: bigint
}

/** A person reads a page; a pipe gets everything. */
const PAGE = 50
const CHUNK = 200

export function outboxListCommand(): Command {
  return outboxSessionCommand<Flags>('list', {
    description: 'list messages, by position; looking changes nothing',
    flags: (command) =>
      command
        .addOption(stateOption('those in this state').default('parked'))
        .option('--limit <count>', 'at most so many', wholeNumber)
        .option('--after <position>', 'those behind this position', positionNumber),
    examples: ['surehop outbox list', 'surehop outbox list --state held --json | jq .lastError'],
    run: list,
  })
}

async function list({ output, desk, interrupted }: OutboxSession, flags: Flags): Promise<number> {
  const { state, json, limit = json ? undefined : PAGE + 1, after } = flags
  const options = { state, ...(limit === undefined ? {} : { limit }), ...(after === undefined ? {} : { after }) }
  const rows: OutboxRow[] = []
  let shown = 0
  let last: string | undefined
  let more = false
  for await (const row of desk.list(options)) {
    if (interrupted.aborted) break
    more = !json && flags.limit === undefined && shown + rows.length === PAGE
    if (more) break
    last = row.position
    if (json) await output.json(row)
    else rows.push(row)
    if (rows.length === CHUNK) shown += await flush(output, rows, flags)
  }
  shown += await flush(output, rows, flags)
  if (more) output.note(`\nThe first ${PAGE}. --limit shows more, --after ${last} those behind.`)
  if (shown === 0 && !json) output.note(`No ${state} messages${flags.outbox ? ' in this outbox' : ''}.`)
  return interrupted.aborted && !output.gone.aborted ? EXIT.interrupted : EXIT.done
}

async function flush(output: Output, rows: OutboxRow[], flags: Flags): Promise<number> {
  const some = rows.splice(0)
  if (some.length > 0) await output.line(table(some, columns(output, flags), output.width, output.paint.bold))
  return some.length
}

function columns({ paint }: Output, { outbox, state }: Flags): Column<OutboxRow>[] {
  const held = state === 'held' || state === 'parked'
  return [
    { head: 'AGE', of: ({ createdAt }) => age(createdAt), paint: paint.dim, right: true },
    { head: 'POSITION', of: ({ position }) => position, right: true, spare: 4 },
    ...(outbox === undefined ? [{ head: 'OUTBOX', of: (row: OutboxRow) => row.outbox, min: 6, spare: 5 }] : []),
    { head: 'ID', of: ({ messageId }) => messageId, min: 36, keep: true },
    { head: 'TYPE', of: ({ type }) => type ?? '', min: 8, spare: 1 },
    { head: 'KEY', of: ({ key }) => key ?? '', min: 4, spare: 3 },
    { head: 'TO', of: targetOf, min: 8, spare: 2 },
    ...(held ? heldColumns(paint.red, state) : []),
  ]
}

function heldColumns(red: (text: string) => string, state: OutboxState): Column<OutboxRow>[] {
  const tries = { head: 'TRIES', of: ({ attempts }: OutboxRow) => String(attempts), right: true }
  const error = { head: 'ERROR', of: ({ lastError }: OutboxRow) => whyOf(lastError), paint: red, min: 12 }
  return state === 'held' ? [tries, { head: 'AGAIN', of: againIn, min: 8 }, error] : [tries, error]
}

/** Id and destination have columns of their own: a narrow one is left for the reason. */
function whyOf(lastError = ''): string {
  return lastError.replace(/^message .* was not published \([a-z-]+\): /s, '').replace(/^cannot publish to .*?: /s, '')
}

/** When it will be tried again. */
export function againIn({ waits, nextAttemptAt }: OutboxRow): string {
  if (waits) return 'behind its key'
  if (!nextAttemptAt || Number.isNaN(nextAttemptAt.getTime())) return ''
  const seconds = (nextAttemptAt.getTime() - Date.now()) / 1_000
  return seconds <= 0 ? 'now' : `in ${duration(seconds)}`
}
