/** `surehop dead show`: one letter with its story and body. */
import type { Command } from 'commander'
import type { FullLetter } from '../../lib/index.ts'
import { bodyJson, bodyText } from '../body.ts'
import { sessionCommand } from '../command.ts'
import { type ConnectionFlags, EXIT, type Session } from '../session.ts'
import type { Output } from '../terminal.ts'
import { age, headerText, indented, safe } from '../text.ts'

type Flags = ConnectionFlags & { readonly archive?: boolean; readonly raw?: boolean }

const LABEL_WIDTH = 14

export function showCommand(): Command {
  return sessionCommand<Flags, [string, string]>('show <queue> <id>', {
    description: 'show one letter: its story, headers and body',
    flags: (command) =>
      command.option('--archive', 'one that was discarded').option('--raw', 'only the bytes of the body, as they are'),
    examples: [
      'surehop dead show orders 0198f5c2-7d1e-7c4e-b5a0-3f2f1f6f5a11',
      'surehop dead show orders ID --raw > body.json',
    ],
    run: show,
  })
}

async function show(session: Session, flags: Flags, queue: string, id: string): Promise<number> {
  const { output, interrupted: signal } = session
  const found = await session.letters(queue).show(id, { archive: flags.archive === true, signal })
  if (found.length === 0)
    output.note(
      `No letter with the id ${safe(id)} in the ${flags.archive ? 'archive' : 'dead letters'} of ${safe(queue)}.`,
    )
  for (const letter of found) {
    if (flags.raw) output.stdout.write(letter.body)
    else if (flags.json) await output.json({ ...letter, ...bodyJson(letter.body) })
    else await print(output, letter)
  }
  if (found.length > 1)
    output.note(`\n${found.length} letters have this id: copies, or an edited one beside its original.`)
  return found.length > 0 ? EXIT.done : EXIT.partly
}

async function print(output: Output, letter: FullLetter): Promise<void> {
  const { paint } = output
  for (const [label, value] of facts(letter)) {
    const text = value === undefined ? '' : safe(value)
    if (text !== '') await output.line(`${paint.dim(label.padEnd(LABEL_WIDTH))}${text}`)
  }
  const headers = Object.entries(letter.headers)
  if (headers.length > 0) await output.line(`\n${paint.bold('Headers')}`)
  for (const [name, value] of headers) await output.line(`  ${safe(name)}: ${safe(headerText(value))}`)
  if (letter.errorStack) await output.line(`\n${paint.bold('Stack')}\n${indented(letter.errorStack)}`)
  await output.line(`\n${paint.bold('Body')}\n${indented(bodyText(letter.body))}`)
}

function facts(l: FullLetter): [string, string | undefined][] {
  const times = (date: Date | undefined) => date && `${date.toISOString()} (${age(date)} ago)`
  return [
    ['id', l.id],
    ['transaction', l.transactionId === l.id ? undefined : l.transactionId],
    ['type', l.type],
    ['key', l.key],
    ['died', times(l.deadAt)],
    ['reason', `${l.reason}${l.by === 'broker' ? ' (said by the broker)' : ''}`],
    ['error', l.errorType === undefined ? undefined : `${l.errorType}: ${l.errorMessage ?? ''}`],
    ['fingerprint', l.fingerprint],
    ['failed in', [l.queue, l.service && `service ${l.service}`, l.host && `on ${l.host}`].filter(Boolean).join(', ')],
    [
      'attempts',
      l.attempt === undefined
        ? undefined
        : `${l.attempt}${l.firstFailedAt ? `, the first failed ${times(l.firstFailedAt)}` : ''}`,
    ],
    ['sent again', l.generation === 0 ? 'never' : `generation ${l.generation}`],
    ['edited from', l.editedFrom],
    ['discarded', times(l.discardedAt)],
    ['published', [times(l.publishedAt), l.publisher && `by ${l.publisher}`].filter(Boolean).join(' ')],
    ['to', l.exchange ? `exchange ${l.exchange}, routing key ${l.routingKey ?? ''}` : l.routingKey],
    [
      'body',
      `${l.bodyBytes} bytes${l.contentType ? `, ${l.contentType}` : ''}${l.contentEncoding ? `, ${l.contentEncoding}` : ''}`,
    ],
  ]
}
