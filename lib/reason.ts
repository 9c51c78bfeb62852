/** The story of a failure in a few bounded headers: what to show, group and filter by. Pure. */
import { createHash } from 'node:crypto'
import { textOf, typeOfThrown } from './errors.ts'
import { HEADER } from './message.ts'

/** Longest error text kept, characters. */
const MAX_TEXT = 1_000
/** Longest stack kept, characters. */
const MAX_STACK = 3_000
/** Stack frames that make two errors the same. */
const FINGERPRINT_FRAMES = 5
/** Longest line of a stack that is read, characters. A text begins the stack, perhaps with lines like frames, and may come from a message. */
const MAX_FRAME = 1_000

/** A revoked proxy, say, throws at whoever asks what it is; and those who judge, log and write letters all do. */
export function tellable(thrown: unknown): unknown {
  try {
    void (thrown instanceof Error)
    return thrown
  } catch {
    return new Error('what was thrown cannot be read')
  }
}

/** Headers that describe what was thrown; also when it was thrown to trip whoever looks at it. */
export function errorHeaders(error: unknown): Record<string, string> {
  try {
    return storyOf(error)
  } catch {
    return storyOf('an error that cannot be read was thrown')
  }
}

function storyOf(error: unknown): Record<string, string> {
  return {
    [HEADER.errorType]: String(typeOfThrown(error)).slice(0, 200),
    [HEADER.errorMessage]: String(textOf(error, MAX_TEXT)).slice(0, MAX_TEXT),
    [HEADER.errorFingerprint]: fingerprint(error),
    ...(error instanceof Error && error.stack
      ? { [HEADER.errorStack]: framesOf(error).join('\n').slice(0, MAX_STACK) }
      : {}),
  }
}

/**
 * Equal for errors of one type thrown at one place: the type and the innermost frames by function and file, without line
 * numbers, folders, frames of Node itself and the text (which often holds ids).
 */
export function fingerprint(error: unknown): string {
  const place =
    error instanceof Error
      ? framesOf(error).slice(0, FINGERPRINT_FRAMES).map(frameName)
      : [textOf(error).replace(/\d+/g, '0')]
  return createHash('sha256')
    .update([typeOfThrown(error), ...place].join('\n'))
    .digest('hex')
    .slice(0, 12)
}

function framesOf(error: Error): string[] {
  return (typeof error.stack === 'string' ? error.stack : '')
    .split('\n')
    .map((line) => line.slice(0, MAX_FRAME))
    .filter((line) => /^\s+at (?!.*\bnode:)/.test(line))
    .map((line) => line.trim())
}

/** `at reserve (file:///app/lib/stock.ts:10:5)` -> `reserve stock.ts` */
function frameName(frame: string): string {
  const [, name = '', file = ''] = /^at (?:(.*?) \()?([^()]*?)(?::\d+)*\)?$/.exec(frame) ?? []
  return `${name} ${file.split(/[\\/]/).at(-1)}`
}
