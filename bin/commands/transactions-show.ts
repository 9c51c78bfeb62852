/** `surehop transactions show`: one parked transaction with its messages. */
import type { Command } from 'commander'
import { type FullParkedMessage, InvalidOption, type ParkedTransaction, TransactionUnknown } from '../../lib/index.ts'
import { bodyJson, bodyText } from '../body.ts'
import { wholeNumber } from '../selection.ts'
import { EXIT } from '../session.ts'
import type { Output } from '../terminal.ts'
import { duration, headerText, indented, plural, safe } from '../text.ts'
import {
  ageOf,
  asJson,
  checksOf,
  type TransactionsFlags,
  type TransactionsSession,
  transactionsSessionCommand,
} from '../transactions-session.ts'
import { plain } from './outbox-show.ts'

interface Flags extends TransactionsFlags {
  readonly body?: boolean
  readonly raw?: boolean
  readonly message?: number
}

type Shown = ParkedTransaction<FullParkedMessage>

const LABEL_WIDTH = 14

export function transactionsShowCommand(): Command {
  return transactionsSessionCommand<Flags>('show', {
    description: 'show one parked transaction: how it stands, and its messages',
    flags: (command) =>
      command
        .argument('<id>', 'its transaction id')
        .option('--body', 'with the bodies')
        .option('--message <number>', 'only this one of its messages, from 1', wholeNumber)
        .option('--raw', 'only the bytes of the body, as they are'),
    examples: [
      'surehop transactions show payments order-4711 --body',
      'surehop transactions show payments order-4711 --message 2 --raw > body.json',
    ],
    run: show,
  })
}

async function show(session: TransactionsSession, flags: Flags, [id = '']: readonly string[]): Promise<number> {
  const { output } = session
  const found = await lookUp(session, id, flags)
  if (found.length === 0) output.note(unknown(id, session.desk.name))
  if (flags.raw && found.length > 0) return raw(output, found, flags)
  for (const transaction of found) {
    if (flags.json) await output.json({ ...asJson(transaction), messages: chosen(transaction, flags).map(messageJson) })
    else await print(output, transaction, flags)
  }
  if (found.length > 1) output.note(`\n${found.length} half messages have this id: it was prepared more than once.`)
  return found.length > 0 ? EXIT.done : EXIT.partly
}

async function lookUp({ desk }: TransactionsSession, id: string, { body, raw }: Flags): Promise<Shown[]> {
  try {
    return await desk.show(id, { bodies: body === true || raw === true })
  } catch (error) {
    if (error instanceof TransactionUnknown) return []
    throw error
  }
}

/** Why there is nothing of that id. */
export function unknown(id: string, name: string): string {
  return `No parked transaction of ${safe(name)} has the id ${safe(id)}: it was never prepared, is decided, or is still being checked.`
}

function chosen({ messages }: Shown, { message }: Flags): readonly FullParkedMessage[] {
  return message === undefined ? messages : messages.slice(message - 1, message)
}

function raw(output: Output, found: readonly Shown[], flags: Flags): number {
  const [first, ...others] = found.flatMap((transaction) => chosen(transaction, flags))
  if (!first) throw new InvalidOption('expected --raw for a message there is; without it, show says which there are')
  if (others.length > 0) throw new InvalidOption('expected --message with --raw: there are several, show lists them')
  output.stdout.write(first.body ?? '')
  return EXIT.done
}

function messageJson({ body, headers, ...message }: FullParkedMessage): object {
  return { ...message, headers: plain(headers), ...(body ? bodyJson(body) : {}) }
}

async function print(output: Output, transaction: Shown, flags: Flags): Promise<void> {
  await lines(output, facts(transaction))
  const { messages } = transaction
  for (const message of chosen(transaction, flags)) {
    const title = `Message ${messages.indexOf(message) + 1} of ${messages.length}`
    await output.line(`\n${output.paint.bold(title)}`)
    await lines(output, messageFacts(message))
    for (const [name, value] of Object.entries(message.headers))
      await lines(output, [['header', `${name}: ${headerText(value)}`]])
    if (message.body) await output.line(`\n${indented(bodyText(message.body))}`)
  }
}

async function lines(output: Output, told: readonly [string, string | undefined][]): Promise<void> {
  for (const [label, value] of told) {
    const text = value === undefined ? '' : safe(value)
    if (text !== '') await output.line(`${output.paint.dim(label.padEnd(LABEL_WIDTH))}${text}`)
  }
}

function facts(transaction: Shown): [string, string | undefined][] {
  const { transactionId, service, preparedAt, decision, messages, unreadable } = transaction
  const readable = unreadable === undefined
  const time = Number.isFinite(preparedAt.getTime()) ? preparedAt.toISOString() : 'at no valid time'
  const checks = checksOf(transaction)
  return [
    ['transaction', transactionId],
    ['unreadable', unreadable],
    ['prepared', readable ? `${time} (${ageOf(transaction)} ago) by ${service}` : undefined],
    ['service', readable ? undefined : service],
    ['checks', checks === undefined ? undefined : String(checks)],
    ['decided', decision && `${decision} meanwhile: an instance takes it up by itself`],
    ['messages', readable ? plural(messages.length, 'message') : undefined],
  ]
}

function messageFacts(m: FullParkedMessage): [string, string | undefined][] {
  return [
    ['id', m.messageId],
    ['type', m.type],
    ['key', m.key],
    ['to', m.exchange === undefined ? `queue ${m.queue}` : `exchange ${m.exchange}, routing key ${m.routingKey}`],
    ['delay', m.delayMs === undefined ? undefined : `${duration(m.delayMs / 1_000)} from the prepare on`],
    ['body', `${m.bodyBytes} bytes${m.contentType ? `, ${m.contentType}` : ''}`],
  ]
}
