/** `surehop outbox show`: one message with what is known of it, and its body. */
import type { Command } from 'commander'
import { type FullOutboxRow, InvalidOption } from '../../lib/index.ts'
import { bodyJson, bodyText } from '../body.ts'
import {
  type OutboxFlags,
  type OutboxSession,
  outboxSessionCommand,
  positionNumber,
  targetOf,
} from '../outbox-session.ts'
import { EXIT } from '../session.ts'
import type { Output } from '../terminal.ts'
import { age, headerText, indented, safe } from '../text.ts'
import { againIn } from './outbox-list.ts'

interface Flags extends OutboxFlags {
  readonly position?: bigint
  readonly raw?: boolean
}

const LABEL_WIDTH = 14

export function outboxShowCommand(): Command {
  return outboxSessionCommand<Flags>('show', {
    description: 'show one message: how it stands, headers and body',
    flags: (command) =>
      command
        .argument('[id]', 'its message id')
        .option('--position <position>', 'its position instead, found at once in a large outbox', positionNumber)
        .option('--raw', 'only the bytes of the body, as they are'),
    examples: ['surehop outbox show 0198f5c2-7d1e-7c4e-b5a0-3f2f1f6f5a11', 'surehop outbox show --position 4711 --raw'],
    run: show,
  })
}

async function show({ output, desk }: OutboxSession, flags: Flags, [id]: readonly string[]): Promise<number> {
  const ref = flags.position ?? id
  if (ref === undefined || (flags.position !== undefined && id !== undefined))
    throw new InvalidOption('expected either the id of a message or --position')
  const found = await desk.show(ref)
  if (found.length === 0) output.note(missing(ref, flags))
  for (const row of found) {
    if (flags.raw) output.stdout.write(row.body)
    else if (flags.json) await output.json({ ...row, headers: plain(row.headers), ...bodyJson(row.body) })
    else await print(output, row)
  }
  if (found.length > 1) output.note(`\n${found.length} rows have this id.`)
  return found.length > 0 ? EXIT.done : EXIT.partly
}

/** Why there is nothing of that name. */
export function missing(ref: string | number | bigint, { outbox }: OutboxFlags): string {
  const where = outbox === undefined ? 'the outbox' : `outbox ${safe(outbox)}`
  const what = typeof ref === 'string' ? `with the id ${safe(ref)}` : `at position ${ref}`
  const hint = typeof ref === 'string' && /^\d+$/.test(ref) ? ' Is it a position? Then say --position.' : ''
  return `No message ${what} in ${where}; what was sent is deleted, unless the relay keeps it for a while.${hint}`
}

async function print(output: Output, row: FullOutboxRow): Promise<void> {
  const { paint } = output
  for (const [label, value] of facts(row)) {
    const text = value === undefined ? '' : safe(value)
    if (text !== '') await output.line(`${paint.dim(label.padEnd(LABEL_WIDTH))}${text}`)
  }
  await output.line(`\n${paint.bold('Headers')}`)
  for (const [name, value] of Object.entries(row.headers))
    await output.line(`  ${safe(name)}: ${safe(headerText(value))}`)
  await output.line(`\n${paint.bold('Body')}\n${indented(bodyText(row.body))}`)
}

function facts(row: FullOutboxRow): [string, string | undefined][] {
  const { state, messageId, transactionId, deliverAt, lastError, bodyBytes, contentType } = row
  const again = state === 'held' ? `, again ${againIn(row)}` : ''
  return [
    ['id', messageId],
    ['transaction', transactionId === messageId ? undefined : transactionId],
    ['outbox', `${row.outbox}, position ${row.position}`],
    ['state', `${state}${again}`],
    ['attempts', row.attempts === 0 ? undefined : String(row.attempts)],
    ['error', lastError],
    ['unreadable', row.unreadable],
    [state === 'sent' ? 'sent' : 'parked', time(row.endedAt)],
    ['type', row.type],
    ['key', row.key],
    ['to', row.exchange === '' ? targetOf(row) : `exchange ${row.exchange}, routing key ${row.routingKey}`],
    ['written', `${time(row.createdAt)}${row.appId === undefined ? '' : ` by ${row.appId}`}`],
    ['deliver at', deliverAt && isoOf(deliverAt)],
    ['correlation', row.correlationId],
    ['reply to', row.replyTo],
    ['body', `${bodyBytes} bytes${contentType ? `, ${contentType}` : ''}`],
  ]
}

function time(date: Date | undefined): string | undefined {
  return date && `${isoOf(date)} (${age(date)} ago)`
}

/** A database knows times that no Date can hold. */
function isoOf(date: Date): string {
  return Number.isFinite(date.getTime()) ? date.toISOString() : 'beyond all dates'
}

/** JSON has no integers of 64 bits. */
export function plain(headers: object): unknown {
  return JSON.parse(JSON.stringify(headers, (_, value) => (typeof value === 'bigint' ? String(value) : value)))
}
