/** `surehop dead export` and `import`: letters as lines of JSON. */

import { once } from 'node:events'
import { createReadStream, createWriteStream } from 'node:fs'
import { finished } from 'node:stream/promises'
import type { Command } from 'commander'
import { InvalidOption } from '../../lib/index.ts'
import { sessionCommand } from '../command.ts'
import { untilAborted } from '../interruption.ts'
import { FILTER_HELP, type SelectionFlags, selectionFlags, selectionOf } from '../selection.ts'
import { type ConnectionFlags, EXIT, type Session } from '../session.ts'
import { plural } from '../text.ts'

type ExportFlags = ConnectionFlags & SelectionFlags & { readonly archive?: boolean; readonly out?: string }
type ImportFlags = ConnectionFlags & { readonly dryRun?: boolean }

export function exportCommand(): Command {
  return sessionCommand<ExportFlags, [string]>('export <queue>', {
    description: 'write letters as lines of JSON; they stay where they are',
    flags: (command) =>
      selectionFlags(command)
        .option('--out <file>', 'a new file, instead of stdout')
        .option('--archive', 'those that were discarded'),
    examples: [
      'surehop dead export orders > letters.ndjson',
      'surehop dead export orders --since 7d --out letters.ndjson',
    ],
    help: FILTER_HELP,
    run: exportLetters,
  })
}

export function importCommand(): Command {
  return sessionCommand<ImportFlags, [string, string]>('import <queue> <file>', {
    description: 'take letters written by export into the dead letters; - reads stdin',
    flags: (command) => command.option('--dry-run', 'only check the lines'),
    examples: [
      'surehop dead import orders letters.ndjson',
      'surehop dead export orders | surehop dead import --amqp URL orders -',
    ],
    run: importLetters,
  })
}

async function exportLetters(session: Session, flags: ExportFlags, queue: string): Promise<number> {
  const { output, interrupted } = session
  const options = { archive: flags.archive === true, signal: interrupted }
  const lines = session.letters(queue).exportTo(selectionOf(flags), options)
  const file = flags.out === undefined ? undefined : createWriteStream(flags.out, { flags: 'wx', mode: 0o600 })
  if (file) await opened(file)
  let count = 0
  for await (const line of untilAborted(lines, interrupted)) {
    if (file?.errored) break
    if (!file) await output.write(line)
    else if (!file.write(line)) await once(file, 'drain')
    count++
  }
  if (file) await finished(file.end())
  if (file || output.stderr.isTTY) output.note(`Exported ${plural(count, 'letter')}.`)
  interrupted.throwIfAborted()
  return EXIT.done
}

async function opened(file: NodeJS.WritableStream): Promise<void> {
  await once(file, 'open').catch((error: Error) => {
    throw new InvalidOption(`expected --out to be a new file: ${error.message}`)
  })
  // Told when it is written to, or at its end.
  file.on('error', () => {})
}

async function importLetters(session: Session, flags: ImportFlags, queue: string, path: string): Promise<number> {
  const { output, interrupted } = session
  const letters = session.letters(queue)
  const { signal, dryRun } = { signal: interrupted, dryRun: flags.dryRun === true }
  if (path !== '-' && !dryRun) await letters.importFrom(source(path), { dryRun: true, signal })
  const { letters: count } = await letters.importFrom(path === '-' ? process.stdin : source(path), { dryRun, signal })
  if (flags.json) await output.json({ letters: count, dryRun })
  output.note(`${dryRun ? 'Checked' : 'Imported'} ${plural(count, 'letter')}.`)
  return interrupted.aborted ? EXIT.interrupted : EXIT.done
}

async function* source(path: string): AsyncGenerator<Uint8Array> {
  try {
    for await (const piece of createReadStream(path)) yield piece as Buffer
  } catch (error) {
    if ((error as NodeJS.ErrnoException).syscall === undefined) throw error
    throw new InvalidOption(`expected a file with letters: ${(error as Error).message}`)
  }
}
