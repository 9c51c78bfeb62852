// An entry as a line of text and back: one letter, then its fields, with spaces between.
//
// Promises: `entryOf(lineOf(entry))` is the entry; ids, keys and reasons may hold any character.

import type { End, Entry, Fate, Outcome, Path } from '../ledger.ts'
import { castEntryOf, castLineOf } from './cast.ts'

const PATHS = { d: 'direct', o: 'outbox', h: 'half' } as const satisfies Record<string, Path>
const FATES = { w: 'well', l: 'late', d: 'dead', r: 'revived' } as const satisfies Record<string, Fate>
const OUTCOMES = {
  ...({ c: 'confirmed', r: 'refused', u: 'unknown' } as const),
  ...({ n: 'nacked', b: 'returned', s: 'not-sent' } as const),
} satisfies Record<string, Outcome>
const ENDS = { c: 'completed', f: 'failed', r: 'returned', d: 'dead' } as const satisfies Record<string, End>
const SIDES = { f: 'front', b: 'back' } as const
const DEATHS = { k: 'killed', c: 'closed', x: 'crashed' } as const

/** Without its line feed. */
export function lineOf(entry: Entry): string {
  const { at } = entry
  switch (entry.is) {
    case 'offered':
      return `o ${at} ${word(entry.id)} ${entry.path[0]} ${word(entry.key)} ${entry.n} ${entry.fate[0]}`
    case 'told':
      return `t ${at} ${word(entry.id)} ${letterOf(OUTCOMES, entry.outcome)}`
    case 'withdrawn':
      return `w ${at} ${word(entry.id)}`
    case 'started':
      return `s ${at} ${word(entry.id)} ${entry.token} ${entry.attempt} ${entry.generation}`
    case 'threw':
      return `h ${at} ${word(entry.id)} ${entry.token}`
    case 'effect':
      return `e ${at} ${word(entry.id)} ${entry.token}`
    case 'ended':
      return `x ${at} ${word(entry.id)} ${entry.token} ${entry.since} ${entry.as[0]}`
    case 'denied':
      return `g ${at} ${word(entry.id)} ${entry.token} ${entry.since} ${entry.as[0]}`
    case 'put-off':
      return `v ${at} ${word(entry.id)}`
    case 'lapsed':
      return `y ${at}`
    case 'cut-off':
      return `i ${at} ${entry.worker}`
    case 'dropped':
      return `d ${at} ${word(entry.id)}`
    case 'silent':
      return `q ${at} ${entry.from}`
    case 'unmoored':
      return `m ${at}`
    case 'output':
      return `u ${at} ${word(entry.id)} ${word(entry.of)}`
    case 'rules':
      return rulesLine(entry)
    case 'forgot':
      return `f ${at} ${entry.from} ${entry.since}`
    case 'born':
      return `b ${at} ${entry.worker} ${word(entry.role)}`
    case 'died':
      return `k ${at} ${entry.worker} ${entry.how === 'crashed' ? 'x' : entry.how[0]}`
    case 'committed':
      return `c ${at} ${word(entry.id)}`
    case 'done':
      return `r ${at} ${word(entry.id)} ${entry.place}`
    case 'dead':
      return `z ${at} ${word(entry.id)} ${word(entry.why)}`
    case 'left':
      return `l ${at} ${word(entry.id)} ${word(entry.where)}`
    default:
      return castLineOf(entry, { word, text })
  }
}

/** @throws Error when it is no line of a ledger */
export function entryOf(line: string): Entry {
  const [letter, when, a = '', b = '', c = '', d = '', e = '', f = ''] = line.split(' ')
  const at = Number(when)
  switch (letter) {
    case 'o':
      return { is: 'offered', at, id: text(a), path: of(PATHS, b), key: text(c), n: Number(d), fate: of(FATES, e) }
    case 't':
      return { is: 'told', at, id: text(a), outcome: of(OUTCOMES, b) }
    case 'w':
      return { is: 'withdrawn', at, id: text(a) }
    case 's':
      return { is: 'started', at, id: text(a), token: Number(b), attempt: Number(c), generation: Number(d) }
    case 'h':
      return { is: 'threw', at, id: text(a), token: Number(b) }
    case 'e':
      return { is: 'effect', at, id: text(a), token: Number(b) }
    case 'x':
      return { is: 'ended', at, id: text(a), token: Number(b), since: Number(c), as: of(ENDS, d) }
    case 'g':
      return { is: 'denied', at, id: text(a), token: Number(b), since: Number(c), as: of(ENDS, d) }
    case 'v':
      return { is: 'put-off', at, id: text(a) }
    case 'y':
      return { is: 'lapsed', at }
    case 'i':
      return { is: 'cut-off', at, worker: Number(a) }
    case 'd':
      return { is: 'dropped', at, id: text(a) }
    case 'q':
      return { is: 'silent', at, from: Number(a) }
    case 'm':
      return { is: 'unmoored', at }
    case 'u':
      return { is: 'output', at, id: text(a), of: text(b) }
    case 'p':
      return rules(at, Number(a), Number(b), of(SIDES, c), d, Number(e), Number(f))
    case 'f':
      return { is: 'forgot', at, from: Number(a), since: Number(b) }
    case 'b':
      return { is: 'born', at, worker: Number(a), role: text(b) }
    case 'k':
      return { is: 'died', at, worker: Number(a), how: of(DEATHS, b) }
    case 'c':
      return { is: 'committed', at, id: text(a) }
    case 'r':
      return { is: 'done', at, id: text(a), place: Number(b) }
    case 'z':
      return { is: 'dead', at, id: text(a), why: text(b) }
    case 'l':
      return { is: 'left', at, id: text(a), where: text(b) }
    default:
      return castEntryOf(line, { word, text }) ?? noLine(line)
  }
}

type Rules = Entry & { readonly is: 'rules' }

function rulesLine({ at, leaseMs, concurrency, redelivered, inOrder, attempts, delayMs }: Rules): string {
  const paths = inOrder.map((path) => path[0]).join('')
  return `p ${at} ${leaseMs} ${concurrency} ${redelivered[0]} ${paths} ${attempts} ${delayMs}`
}

function rules(
  at: number,
  leaseMs: number,
  concurrency: number,
  redelivered: 'front' | 'back',
  paths: string,
  attempts: number,
  delayMs: number,
): Rules {
  const inOrder = [...paths].map((path) => of(PATHS, path))
  return { is: 'rules', at, leaseMs, concurrency, redelivered, inOrder, attempts, delayMs }
}

function noLine(line: string): never {
  throw new Error(`expected a line of a ledger, got ${JSON.stringify(line.slice(0, 80))}`)
}

const PLAIN = /^[\w.:-]+$/

/** What is not plain is put down as a URL would hold it; nothing at all as a single %. */
function word(text: string): string {
  return PLAIN.test(text) ? text : encodeURIComponent(text.toWellFormed()) || '%'
}

function text(word: string): string {
  return word.includes('%') ? (word === '%' ? '' : decodeURIComponent(word)) : word
}

function letterOf<T extends string>(names: Readonly<Record<string, T>>, name: T): string {
  return Object.keys(names).find((letter) => names[letter] === name)!
}

function of<T extends string>(names: Readonly<Record<string, T>>, letter: string): T {
  const name = names[letter]
  if (name === undefined)
    throw new Error(`expected one of ${Object.keys(names).join(', ')} in a ledger, got "${letter}"`)
  return name
}
