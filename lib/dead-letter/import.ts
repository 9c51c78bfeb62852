/** Takes letters in from lines of JSON: each is checked before it is sent, and a mistake is told with its line. */
import { MessageInvalid, PublishFailed } from '../errors.ts'
import type { Encoded } from '../producer/encode.ts'
import type { Publisher } from '../producer/publisher.ts'
import { importLine, linesOf } from './ndjson.ts'

/** How letters are imported. */
export interface ImportOptions {
  /** Check the lines only. Default false. */
  readonly dryRun?: boolean
  /** Stops before the next line. */
  readonly signal?: AbortSignal
}

/** What an import did. */
export interface ImportResult {
  readonly letters: number
}

const PUBLISH = { mandatory: true, deadlineMs: 30_000 } as const
/** Letters under way, and about so many bytes of them: what waits for the broker counts against its deadline, and the sender's memory. */
const WINDOW = { count: 100, bytes: 16 * 1024 * 1024 }

interface ImportParts {
  readonly publisher: Publisher
  /** The queue they go to. */
  readonly dead: string
}

/** @throws MessageInvalid, PublishFailed with the number of the line */
export async function importLines(
  source: AsyncIterable<string | Uint8Array>,
  { publisher, dead }: ImportParts,
  { dryRun, signal }: ImportOptions,
): Promise<ImportResult> {
  let letters = 0
  let line = 1
  let bytes = 0
  const open: Promise<unknown>[] = []
  try {
    for await (const text of linesOf(source)) {
      if (signal?.aborted) break
      if (text.trim() !== '') {
        const copy = importLine(text, dead)
        open.push(dryRun ? Promise.resolve() : send(publisher, copy, line))
        bytes += copy.content.length
        if (open.length >= WINDOW.count || bytes >= WINDOW.bytes) {
          letters += await settledAll(open.splice(0))
          bytes = 0
        }
      }
      line++
    }
  } catch (error) {
    throw error instanceof MessageInvalid ? atLine(line, error) : error
  } finally {
    await Promise.allSettled(open)
  }
  return { letters: letters + (await settledAll(open)) }
}

/** Its failure is asked for later, perhaps after a wait for the source: a rejection unheard meanwhile would end the process. */
function send(publisher: Publisher, copy: Encoded, line: number): Promise<unknown> {
  const sent = publisher.publish(copy, PUBLISH).catch((error: Error) => {
    throw error instanceof PublishFailed
      ? new PublishFailed(error, atLine(line, error).message, { cause: error })
      : error
  })
  sent.catch(() => {})
  return sent
}

function atLine(line: number, cause: Error): MessageInvalid {
  return new MessageInvalid(`line ${line}`, `line ${line}: ${cause.message}`, { cause })
}

/** Waits for all, so that nothing is under way when the first failure is told. */
async function settledAll(open: readonly Promise<unknown>[]): Promise<number> {
  const outcomes = await Promise.allSettled(open)
  const failure = outcomes.find((o) => o.status === 'rejected')
  if (failure) throw failure.reason
  return outcomes.length
}
