// What those note who are there only in some rows: an operator who looks at dead letters and sends them again, and senders of half
// messages. Entries as lines, each with a capital letter, and back; see `../ledger.ts` and `lines.ts`.

/** What a sender of half messages was about to say of a transaction: nothing, where it leaves it to be asked. */
export type Said = 'commit' | 'rollback' | 'nothing'

/** What a check answered. */
export type Checked = 'commit' | 'rollback' | 'unknown'

/** One line. `at`: ns of the monotonic clock. */
export type CastEntry = OperatorEntry | HalfEntry

/** What an operator saw and did. */
export type OperatorEntry =
  | Look
  /** It began to send letters again; or came to the end of that. */
  | { readonly is: 'replaying'; readonly at: number; readonly stage: 'begun' | 'ended' }
  /** A letter was sent again, as this generation. */
  | { readonly is: 'replayed'; readonly at: number; readonly id: string; readonly generation: number }
  /** A letter that is there at the end. */
  | { readonly is: 'letter'; readonly at: number; readonly id: string; readonly generation: number }

/** An operator has counted, listed, counted, listed and counted. `quiet`: letters that nobody adds to or takes from. */
export interface Look {
  readonly is: 'looked'
  readonly at: number
  readonly queue: 'quiet' | 'busy'
  /** Counts up with each look that failed: what came between is not known then. */
  readonly spell: number
  readonly counts: readonly [number, number, number]
  readonly first: readonly string[]
  readonly second: readonly string[]
  /** Letters of a consumer that lack a part of their story. */
  readonly storyless: readonly string[]
}

/** What became of half messages. Their work is a row, noted as `committed` where it was done; the id is also the transaction's. */
export type HalfEntry =
  /** The broker has stored it. */
  | { readonly is: 'prepared'; readonly at: number; readonly id: string }
  /** Its sender is about to say so. */
  | { readonly is: 'said'; readonly at: number; readonly id: string; readonly what: Said }
  /** A check has begun. */
  | { readonly is: 'checking'; readonly at: number; readonly id: string }
  /** It is about to answer so. */
  | { readonly is: 'checked'; readonly at: number; readonly id: string; readonly answer: Checked }
  /** A commit was refused although its work is done, or a rollback although it is not. */
  | { readonly is: 'contradicted'; readonly at: number; readonly id: string }

/** What a text needs to be one word of a line, and the text again. */
export interface Words {
  word(text: string): string
  text(word: string): string
}

const SAID = { c: 'commit', r: 'rollback', n: 'nothing' } as const satisfies Record<string, Said>
const CHECKED = { c: 'commit', r: 'rollback', u: 'unknown' } as const satisfies Record<string, Checked>
const STAGES = { b: 'begun', e: 'ended' } as const
const QUEUES = { q: 'quiet', b: 'busy' } as const

/** Without its line feed. */
export function castLineOf(entry: CastEntry, words: Words): string {
  const { at } = entry
  switch (entry.is) {
    case 'looked':
      return lookLine(entry, words)
    case 'replaying':
      return `F ${at} ${entry.stage[0]}`
    case 'replayed':
      return `R ${at} ${words.word(entry.id)} ${entry.generation}`
    case 'letter':
      return `Z ${at} ${words.word(entry.id)} ${entry.generation}`
    case 'prepared':
      return `P ${at} ${words.word(entry.id)}`
    case 'said':
      return `S ${at} ${words.word(entry.id)} ${entry.what[0]}`
    case 'checked':
      return `A ${at} ${words.word(entry.id)} ${entry.answer[0]}`
    case 'checking':
      return `C ${at} ${words.word(entry.id)}`
    case 'contradicted':
      return `N ${at} ${words.word(entry.id)}`
  }
}

/** Undefined: the line is none of these. */
export function castEntryOf(line: string, words: Words): CastEntry | undefined {
  const [letter, when, a = '', b = ''] = line.split(' ')
  const [at, id] = [Number(when), words.text(a)]
  switch (letter) {
    case 'L':
      return lookOf(at, line, words)
    case 'F':
      return { is: 'replaying', at, stage: of(STAGES, a) }
    case 'R':
      return { is: 'replayed', at, id, generation: Number(b) }
    case 'Z':
      return { is: 'letter', at, id, generation: Number(b) }
    case 'P':
      return { is: 'prepared', at, id }
    case 'S':
      return { is: 'said', at, id, what: of(SAID, b) }
    case 'A':
      return { is: 'checked', at, id, answer: of(CHECKED, b) }
    case 'C':
      return { is: 'checking', at, id }
    case 'N':
      return { is: 'contradicted', at, id }
    default:
      return undefined
  }
}

/** Ids of letters are words themselves, so that a space divides them. */
function lookLine({ at, queue, spell, counts, first, second, storyless }: Look, { word }: Words): string {
  const lists = [first, second, storyless].map((ids) => word(ids.map(word).join(' ')))
  return `L ${at} ${queue[0]} ${spell} ${counts.join(' ')} ${lists.join(' ')}`
}

function lookOf(at: number, line: string, { text }: Words): Look {
  const [, , queue = '', spell, before, between, after, ...lists] = line.split(' ')
  const [first, second, storyless] = lists.map((list) => text(list).split(' ').filter(Boolean).map(text))
  const counts = [Number(before), Number(between), Number(after)] as const
  const seen = { first: first!, second: second!, storyless: storyless! }
  return { is: 'looked', at, queue: of(QUEUES, queue), spell: Number(spell), counts, ...seen }
}

function of<T extends string>(names: Readonly<Record<string, T>>, letter: string): T {
  const name = names[letter]
  if (name === undefined)
    throw new Error(`expected one of ${Object.keys(names).join(', ')} in a ledger, got "${letter}"`)
  return name
}

const KINDS = new Set([
  'looked',
  'replaying',
  'replayed',
  'letter',
  'prepared',
  'said',
  'checking',
  'checked',
  'contradicted',
])

/** Judged in `../reconcile/letters.ts` and `../reconcile/halves.ts`, and by nobody else. */
export function isOfCast<E extends { readonly is: string }>(entry: E): entry is Extract<E, CastEntry> {
  return KINDS.has(entry.is)
}
