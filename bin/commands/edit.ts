/** `surehop dead edit`: changes the body of a letter, shows the difference, asks; the original goes to the archive. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import type { Command } from 'commander'
import { createTwoFilesPatch } from 'diff'
import { type DeadLetters, type FullLetter, InvalidOption } from '../../lib/index.ts'
import { confirmed, Declined } from '../ask.ts'
import { jsonText, keepsNumbers, utf8, withoutSpaces, withPart } from '../body.ts'
import { sessionCommand } from '../command.ts'
import { Draft } from '../draft.ts'
import { lendingTerminal } from '../interruption.ts'
import { type ConnectionFlags, EXIT, type Session } from '../session.ts'
import type { Output } from '../terminal.ts'
import { safe, safeLines } from '../text.ts'

interface Flags extends ConnectionFlags {
  readonly file?: string
  readonly set?: readonly string[]
  readonly yes?: boolean
}

export function editCommand(): Command {
  return sessionCommand<Flags, [string, string]>('edit <queue> <id>', {
    description: 'change the body of a letter; the original goes to the archive',
    flags: (command) =>
      command
        .option(
          '--set <path=value>',
          'set a part of a JSON body, e.g. lines.0.sku=A-1; may be repeated',
          (part: string, before: string[] = []) => [...before, part],
        )
        .option('--file <path>', 'take the new body from a file, byte by byte')
        .option('-y, --yes', 'do not ask'),
    examples: [
      'surehop dead edit orders ID',
      'surehop dead edit orders ID --set customer.country=DE --yes',
      'surehop dead edit orders ID --file fixed.json',
    ],
    help: '\nWithout --set and --file the body opens in $VISUAL or $EDITOR. The edited letter stays a dead letter until it is replayed.',
    run: edit,
  })
}

async function edit(session: Session, flags: Flags, queue: string, id: string): Promise<number> {
  const { output, interrupted } = session
  if (flags.file !== undefined && flags.set) throw new InvalidOption('expected --file or --set, got both')
  const letters = session.letters(queue)
  const letter = (await letters.show(id, { signal: interrupted })).sort((a, b) => b.generation - a.generation)[0]
  if (!letter) throw new Error(`No letter with the id ${safe(id)} in the dead letters of ${safe(queue)}.`)
  const draft = flags.file === undefined && !flags.set ? draftOf(letter, output) : undefined
  try {
    const body = draft ? await inEditor(letter, draft, output) : given(letter, flags)
    if (interrupted.aborted) throw new Declined('interrupted, nothing was done')
    const code = await replaced(session, flags, letters, letter, body)
    draft?.remove()
    return code
  } finally {
    draft?.leave()
  }
}

async function replaced(
  session: Session,
  flags: Flags,
  letters: DeadLetters,
  letter: FullLetter,
  body: Buffer,
): Promise<number> {
  const { output } = session
  if (body.equals(letter.body)) {
    output.note('Nothing was changed.')
    return EXIT.done
  }
  output.note(difference(letter.body, body, output))
  if (!(await confirmed(session, 'Replace the letter? The original goes to the archive.', flags.yes === true)))
    return EXIT.partly
  const edited = await letters.edit(letter.id, { body, generation: letter.generation })
  const { id, generation, editedFrom, replaced, remaining } = edited
  if (flags.json) await output.json({ id, generation, editedFrom, replaced, remaining })
  if (replaced === 0) {
    output.note(output.notePaint.yellow(leftOf(letter, letters.queue)))
    return EXIT.partly
  }
  if (remaining > 0) output.note(output.notePaint.yellow(othersOf(id, remaining, letters.queue)))
  output.note(
    `Edited ${safe(id)}, now generation ${generation}. The original is in the archive${withCopies(replaced - 1)}. Send it: surehop dead replay ${safe(letters.queue)} --id ${safe(id)}`,
  )
  return EXIT.done
}

/** The edited letter is there, and so may be what it was to replace. */
function leftOf({ id, generation }: FullLetter, queue: string): string {
  const q = safe(queue)
  return `Edited ${safe(id)}, but the connection was lost before the original was taken away: it may be here still, and be handled instead of the edited letter. Look: surehop dead show ${q} ${safe(id)}. Take it away (a copy is in the archive): surehop dead discard ${q} --id ${safe(id)} --where generation=${generation}`
}

function withCopies(copies: number): string {
  return copies === 0 ? '' : `; it replaces ${copies === 1 ? 'a copy of that' : `${copies} copies of that`}, too`
}

/** Which is handled would be chance. */
function othersOf(id: string, count: number, queue: string): string {
  const [letters, have] = count === 1 ? ['letter', 'has'] : ['letters', 'have']
  return `${count} other ${letters} with this id ${have} another generation or message. Sent again together, the first to arrive may be handled, and the others dropped. Look before: surehop dead show ${safe(queue)} ${safe(id)}`
}

function given(letter: FullLetter, { file, set = [] }: Flags): Buffer {
  return file === undefined ? partsSet(letter, set) : readBody(file)
}

function readBody(file: string): Buffer {
  try {
    return readFileSync(file)
  } catch (error) {
    throw new InvalidOption(`expected --file to be readable: ${(error as Error).message}`)
  }
}

function partsSet({ body }: FullLetter, parts: readonly string[]): Buffer {
  const text = utf8(body)
  if (text === undefined || jsonText(text) === undefined)
    throw new InvalidOption(
      '--set needs a JSON body that JavaScript can write again without changing it (no numbers beyond 2^53): use --file or an editor',
    )
  let value: unknown = JSON.parse(text)
  for (const part of parts) {
    const at = part.indexOf('=')
    if (at < 1) throw new InvalidOption(`expected --set path=value, got "${part}"`)
    try {
      value = withPart(value, part.slice(0, at), jsonOrText(part.slice(at + 1)))
    } catch (error) {
      throw new InvalidOption(`--set ${part}: ${(error as Error).message}`)
    }
  }
  return Buffer.from(JSON.stringify(value))
}

/**
 * JSON where it is JSON, else text.
 * @throws RangeError for a number that would become another one
 */
function jsonOrText(text: string): unknown {
  try {
    JSON.parse(text)
  } catch {
    return text
  }
  if (keepsNumbers(text)) return JSON.parse(text)
  throw new RangeError('a number of so many digits would be changed: put it in quotes for a text, or use --file')
}

function draftOf({ body }: FullLetter, output: Output): Draft {
  const text = utf8(body)
  if (text === undefined) throw new InvalidOption('the body is not text: give the new one with --file')
  if (!editorOf()) throw new InvalidOption('expected $VISUAL or $EDITOR to name an editor, or --set or --file')
  const pretty = jsonText(text)
  return pretty === undefined ? new Draft('body.txt', text, output) : new Draft('body.json', `${pretty}\n`, output)
}

function editorOf(): string | undefined {
  return process.env['VISUAL'] || process.env['EDITOR']
}

async function inEditor({ body }: FullLetter, draft: Draft, output: Output): Promise<Buffer> {
  const bytes = await lendingTerminal(() => draft.edit((file) => run(editorOf()!, file)))
  const text = utf8(body)!
  return edited(bytes, jsonText(text) === undefined ? undefined : text, output)
}

/** Meanwhile our heartbeats go on: a person takes his time, and the broker would give the connection up. */
async function run(editor: string, file: string): Promise<void> {
  const env = { ...process.env, SUREHOP_BODY: file }
  const child = spawn(`${editor} "$SUREHOP_BODY"`, { shell: true, stdio: 'inherit', env })
  const [code, signal] = (await once(child, 'exit')) as [number | null, string | null]
  if (code !== 0) throw new Error(`the editor ended with ${signal ?? `code ${code}`}: nothing was changed`)
}

/** What was spread over lines for the editor goes back without the spaces; unchanged, byte by byte. */
function edited(bytes: Buffer, original: string | undefined, output: Output): Buffer {
  if (original === undefined) return bytes
  const text = utf8(bytes) ?? ''
  try {
    JSON.parse(text)
  } catch {
    output.note(output.notePaint.yellow('The new body is not JSON any more.'))
    return bytes
  }
  const compact = withoutSpaces(text)
  return Buffer.from(compact === withoutSpaces(original) ? original : compact)
}

function difference(before: Buffer, after: Buffer, { notePaint }: Output): string {
  const [a, b] = [shown(before), shown(after)]
  if (a === undefined || b === undefined) return `${before.length} bytes become ${after.length} bytes (not text).`
  const patch = createTwoFilesPatch('before', 'after', a, b, undefined, undefined, { context: 3 })
  const lines = safeLines(patch).split('\n').slice(1)
  const paint = (line: string) =>
    line.startsWith('+') ? notePaint.green(line) : line.startsWith('-') ? notePaint.red(line) : line
  return lines.map(paint).join('\n')
}

function shown(bytes: Buffer): string | undefined {
  const text = utf8(bytes)
  if (text === undefined) return undefined
  const pretty = jsonText(text) ?? text
  return pretty.endsWith('\n') ? pretty : `${pretty}\n`
}
