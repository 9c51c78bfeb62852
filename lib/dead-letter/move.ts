/** Moves letters between the dead letters and the archive: publish the copy, wait for its confirm, ack the letter. */
import { textOf } from '../errors.ts'
import type { RawDelivery } from '../message.ts'
import type { Encoded } from '../producer/encode.ts'
import type { Publisher } from '../producer/publisher.ts'
import type { Chosen, Take } from './chosen.ts'
import { Window } from './pace.ts'
import type { Reader } from './reader.ts'
import { ofLetter } from './replay.ts'
import type { Letter } from './story.ts'

/** How letters are discarded or restored. */
export interface MoveOptions {
  /** Look only. Default false. */
  readonly dryRun?: boolean
  /** Stops after the letters at hand. */
  readonly signal?: AbortSignal
  /** Told of each letter that was moved (or would be). */
  readonly onMoved?: (letter: Letter) => void
}

/** Counts of a discard or restore. */
export interface MoveResult {
  readonly seen: number
  readonly selected: number
  readonly moved: number
  /** Those that cannot be sent at all (a header no client can write); they stay where they are, and the others go on. */
  readonly failed: number
  /** `done`; `interrupted`: the signal fired; `unreachable`: the broker gave no answer; the rest stays where it was. */
  readonly stopped: 'done' | 'interrupted' | 'unreachable'
  /** Why it was `unreachable`, or why the first of the `failed` cannot be sent. */
  readonly error: Error | undefined
}

/** What moving letters needs. */
export interface MoveParts {
  readonly reader: Reader
  readonly take: Take
  readonly publisher: Publisher
  readonly copyOf: (raw: RawDelivery) => Encoded
  readonly moved: (copy: Encoded) => void
}

const TAKE_MAX = 256
const WINDOW = { count: 512, bytes: 16 * 1024 * 1024 }
const PUBLISH = { mandatory: true, deadlineMs: 30_000 } as const

/** Never rejects: what went wrong is in the result. */
export async function move(parts: MoveParts, options: MoveOptions): Promise<MoveResult> {
  const { reader, take } = parts
  const { signal, dryRun, onMoved } = options
  const window = new Window(WINDOW)
  const count = { selected: 0, moved: 0, failed: 0 }
  let error: Error | undefined
  let unsendable: Error | undefined
  const one = async ({ taken, letter }: Chosen) => {
    try {
      if (!dryRun) await moveOne(parts, taken)
      count.moved++
      onMoved?.(letter)
    } catch (failure) {
      const told = failure instanceof Error ? failure : new Error(textOf(failure))
      if (ofLetter(told)) {
        count.failed++
        unsendable ??= told
      } else error ??= told
    }
  }
  const stopping = () => error !== undefined || signal?.aborted === true
  try {
    for (let some = await take(TAKE_MAX); some.length > 0 && !stopping(); some = await take(TAKE_MAX))
      for (const selected of some) {
        if (stopping()) break
        count.selected++
        await window.start(selected.letter.bodyBytes, () => one(selected))
      }
  } catch (failure) {
    error ??= failure as Error
  }
  await window.drained()
  const stopped = error ? 'unreachable' : signal?.aborted ? 'interrupted' : 'done'
  return { seen: reader.given, ...count, stopped, error: error ?? unsendable }
}

async function moveOne({ publisher, copyOf, moved }: MoveParts, taken: Chosen['taken']): Promise<void> {
  const copy = copyOf(taken.raw)
  await publisher.publish(copy, PUBLISH)
  taken.ack()
  moved(copy)
}
