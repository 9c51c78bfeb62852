/** Groups letters by what went wrong. Memory grows with the number of groups, which is bounded; never with the letters. */
import { timeOfLetter } from './selection.ts'
import type { Letter } from './story.ts'

/** Letters that failed alike. */
export interface LetterGroup {
  readonly errorType: string | undefined
  readonly fingerprint: string | undefined
  readonly reason: string
  readonly by: Letter['by']
  /** The text of the first letter's error; others may differ in ids and numbers. */
  readonly errorMessage: string | undefined
  readonly count: number
  readonly firstAt: Date | undefined
  readonly lastAt: Date | undefined
  /** Types of the letters, at most a few. */
  readonly types: readonly string[]
  /** One of them, to look at. */
  readonly sampleId: string
}

/** So many groups are told apart; forged headers must not fill the memory. What is beyond goes into one group. */
const MAX_GROUPS = 1_000
const MAX_TYPES = 5
const BEYOND = 'more different reasons than can be told apart'

/** Counts letters by what went wrong, one at a time. */
export class Grouping {
  readonly #groups = new Map<string, { -readonly [K in keyof LetterGroup]: LetterGroup[K] }>()

  add(letter: Letter): void {
    const { fingerprint, errorType } = letter
    const reason = letter.reason.replace(/\d+/g, 'N')
    const key = JSON.stringify([fingerprint, errorType, letter.by, reason])
    const group = this.#groups.get(key)
    if (group) count(group, letter)
    else if (this.#groups.size < MAX_GROUPS) this.#groups.set(key, begun(letter))
    else this.#beyond(letter)
  }

  /** The largest first. */
  result(): LetterGroup[] {
    return [...this.#groups.values()].sort((a, b) => b.count - a.count)
  }

  #beyond(letter: Letter): void {
    const group = this.#groups.get(BEYOND)
    const nothing = { errorType: undefined, fingerprint: undefined, errorMessage: undefined }
    if (group) count(group, letter)
    else this.#groups.set(BEYOND, { ...begun(letter), ...nothing, reason: BEYOND })
  }
}

function begun(letter: Letter) {
  const { errorType, fingerprint, reason, by, errorMessage, type, id } = letter
  const at = timeOfLetter(letter)
  const types = type === undefined ? [] : [type]
  return { errorType, fingerprint, reason, by, errorMessage, count: 1, firstAt: at, lastAt: at, types, sampleId: id }
}

function count(group: { -readonly [K in keyof LetterGroup]: LetterGroup[K] }, letter: Letter): void {
  const at = timeOfLetter(letter)
  const { type } = letter
  group.count++
  if (at && (!group.firstAt || at < group.firstAt)) group.firstAt = at
  if (at && (!group.lastAt || at > group.lastAt)) group.lastAt = at
  if (type !== undefined && group.types.length < MAX_TYPES && !group.types.includes(type))
    group.types = [...group.types, type]
}
