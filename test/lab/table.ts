// The table fault x promise: what a row must keep, and how it reads for people.
//
// A row passes if nothing was lost, doubled, written by a zombie, out of order, phantom or left. Effects repeated within a limit
// that the README states are counted and shown with that limit, never hidden; each was explained by itself (`reconcile.ts`). What could
// not be judged is a –, and not a 0.
//
// Promises: a row is said to have broken a promise only where the ledger shows it; one in which a fault could not be injected or healed,
// or that did not come to its end, fails under words of its own. Does NOT say who is to blame for that: the lab, the machine or Surehop.

import type { Machine } from '../bench/machine.ts'
import type { Limit, Provoked, Verdict } from './world.ts'

/** A played row. */
export interface Played {
  readonly id: string
  readonly name: string
  readonly limits: readonly Limit[]
  /** Of a mix: faults of the table that it does not have. */
  readonly leftOut?: readonly string[]
  /** What must have happened at least once. */
  readonly provokes?: readonly Provoked[]
  readonly injected: number
  readonly seconds: number
  readonly verdict: Verdict
  /** What those did who are there only in some rows, and how often. */
  readonly tried?: Readonly<Record<string, number>>
  /** What kept the row from its end, in words: a fault that could not be healed, work that did not drain. */
  readonly trouble?: string
}

/** What stands over and under a table. */
export interface About {
  /** Of the code, such as `1a2b3c4 with changes`; undefined where nobody knows. */
  readonly commit?: string | undefined
  /** How much work there was, in words. */
  readonly load: string
  /** Rows that were to be played and were not, for lack of time. */
  readonly notPlayed?: readonly string[]
  /** Rows that stand in the place of those of the whole run. */
  readonly again?: readonly Again[]
  readonly seed: number
  readonly at: string
  readonly seconds: number
  readonly machine: Machine
  readonly versions: Readonly<Record<string, string>>
}

/** A row that was played once more by itself, in place of what it came to before. */
export interface Again {
  readonly id: string
  readonly commit?: string | undefined
  readonly seed: number
  readonly at: string
  /** Why the row failed before, in words; empty: it passed. */
  readonly before: readonly string[]
}

/** What must be 0. */
export const PROMISES = ['lost', 'doubled', 'zombies', 'attempts', 'outOfOrder', 'phantom', 'left'] as const

/** Why a row fails, in words; empty: it passes. */
export function failings(row: Played): readonly string[] {
  return [...broken(row), ...untried(row)]
}

/** The promises that a row broke, by the ledger. */
export function broken({ verdict }: Played): readonly string[] {
  return PROMISES.filter((promise) => verdict[promise] !== 0).map((promise) => `${promise} ${verdict[promise]}`)
}

/** What kept a row from being tried to its end. One that tried nothing proves nothing. */
function untried({ verdict, injected, trouble, provokes = [] }: Played): readonly string[] {
  return [
    ...(verdict.messages === 0 ? ['no message came through'] : []),
    ...(injected === 0 ? ['no fault was injected'] : []),
    ...provokes.filter((what) => verdict[what] === 0).map((what) => NEVER_CAME[what]),
    ...(trouble === undefined ? [] : [trouble]),
  ]
}

const NEVER_CAME: Readonly<Record<Provoked, string>> = {
  putOff: 'nobody asked for what another held',
  takenOver: 'nothing was taken over from one that lived',
  refused: 'nobody whose run was taken over tried to write',
  unmoored: 'no consumer lost its channel',
}

const HEAD = [
  'fault',
  'messages',
  'faults',
  'lost',
  'doubled',
  'repeated within a limit',
  'put off / taken over / late writes refused',
  'zombie writes',
  'wrong attempts',
  'out of key order',
  'phantom',
  'left',
  'unknown, arrived',
  'longest gap, s',
]

/** How a row ended; a promise that was broken outweighs what kept the row from its end. */
export function endOf(row: Played): 'kept' | 'BROKEN' | 'NOT TRIED TO THE END' {
  if (broken(row).length > 0) return 'BROKEN'
  return untried(row).length > 0 ? 'NOT TRIED TO THE END' : 'kept'
}

/** Markdown, as good in a terminal as in the README. */
export function table(rows: readonly Played[], about: About): string {
  const parts = [heading(about), grid([HEAD, ...rows.map(cells), totals(rows)]), legend(rows), method(rows, about)]
  return parts.join('\n\n')
}

function cells(row: Played): string[] {
  const { verdict, id, name, injected } = row
  const { messages, lost, doubled, zombies, attempts, phantom, left, longestGapMs } = verdict
  const end = endOf(row)
  const marked = `\`${id}\` ${end === 'kept' ? name : `**${name}: ${end}**`}`
  const counts = [lost, doubled].map(count)
  const before = [marked, count(messages), count(injected), ...counts, repeats(row), contests([row])]
  const rest = [...[zombies, attempts].map(count), order([row]), ...[phantom, left].map(count)]
  return [...before, ...rest, unknown([row]), gap(longestGapMs)]
}

/** What stands in the way of order for a reason the README states is counted beside, never hidden. */
function order(rows: readonly Played[]): string {
  const sum = (what: 'outOfOrder' | 'reordered') => rows.reduce((total, { verdict }) => total + verdict[what], 0)
  const reordered = sum('reordered')
  return reordered === 0 ? count(sum('outOfOrder')) : `${count(sum('outOfOrder'))} + ${count(reordered)} ³`
}

/** Of those whose publish ended unknown and was not repeated. */
function unknown(rows: readonly Played[]): string {
  const sum = (what: 'arrived' | 'withdrawn') => rows.reduce((total, { verdict }) => total + verdict.unknown[what], 0)
  return sum('withdrawn') === 0 ? '–' : `${count(sum('arrived'))} of ${count(sum('withdrawn'))}`
}

function repeats(row: Played): string {
  return [count(row.verdict.repeated), ...limitsOf(row).map((limit) => MARK[limit])].join(' ')
}

/** How often one met another's message, and how that ended. */
function contests(rows: readonly Played[]): string {
  const sum = (what: Provoked) => count(rows.reduce((total, { verdict }) => total + verdict[what], 0))
  return `${sum('putOff')} / ${sum('takenOver')} / ${sum('refused')}`
}

/** Those its faults reach; and on a machine that is slow enough, any process may lose its lease. */
function limitsOf({ limits, verdict }: Played): readonly Limit[] {
  return limits.length === 0 && verdict.repeated > 0 ? ['process-dies'] : limits
}

function totals(rows: readonly Played[]): string[] {
  const sum = (of: (row: Played) => number) => count(rows.reduce((total, row) => total + of(row), 0))
  const longest = rows.reduce((most, { verdict }) => Math.max(most, verdict.longestGapMs), 0)
  return [
    `all ${rows.length}`,
    sum(({ verdict }) => verdict.messages),
    sum(({ injected }) => injected),
    sum(({ verdict }) => verdict.lost),
    sum(({ verdict }) => verdict.doubled),
    sum(({ verdict }) => verdict.repeated),
    contests(rows),
    sum(({ verdict }) => verdict.zombies),
    sum(({ verdict }) => verdict.attempts),
    order(rows),
    sum(({ verdict }) => verdict.phantom),
    sum(({ verdict }) => verdict.left),
    unknown(rows),
    gap(longest),
  ]
}

const MARK: Readonly<Record<Limit, string>> = { 'process-dies': '¹', 'redis-forgets': '²' }

const EXPLAINED: Readonly<Record<Limit, string>> = {
  'process-dies':
    'The process died, or lost its lease, between its effect and its record in Redis: the next one repeats the effect. The Postgres inbox has no such gap.',
  'redis-forgets':
    'Redis forgot what it had answered for: a message that it no longer remembers runs again when it is delivered again.',
}

function legend(rows: readonly Played[]): string {
  const reached = new Set(rows.flatMap(limitsOf))
  const notes = (Object.keys(MARK) as Limit[]).filter((limit) => reached.has(limit))
  const meantToFail = rows.reduce((sum, { verdict }) => sum + verdict.deadLetters, 0)
  return [
    'A row keeps its promises if all columns but the counts, the limit and the gap are 0.',
    'Put off: claims of a message that another process held. Taken over: runs whose message another process began anew while the first was alive and not done (frozen, cut off). Late writes refused: those of them that woke, tried their effect or their record, and could not.',
    `${count(meantToFail)} messages were meant to fail for good, and lie in the dead letters as they should; they are not counted as left.`,
    ...publishes(rows),
    ...attempts(rows),
    ...mixed(rows),
    ...notes.map((limit) => `${MARK[limit]} ${EXPLAINED[limit]}`),
    ...(rows.some(({ verdict }) => verdict.reordered > 0) ? [REORDERED] : []),
  ].join('\n')
}

const REORDERED =
  '³ Handled after a later one of its key, and on its way when a consumer was lost: RabbitMQ 3.10 puts what that held at the back of the queue.'

function publishes(rows: readonly Played[]): string[] {
  const sum = (of: (verdict: Verdict) => number) => rows.reduce((total, { verdict }) => total + of(verdict), 0)
  const [told, withdrawn] = [sum(({ unknown }) => unknown.told), sum(({ unknown }) => unknown.withdrawn)]
  return [
    `The publishes of ${count(told)} messages ended \`unknown\`; ${count(withdrawn)} of those were never repeated, the others under the same id until confirmed. Unknown, arrived: how many of the former were handled all the same, as the word says; – where there were none.`,
    `${count(sum(({ neverSent }) => neverSent))} publishes ended \`not-sent\` or \`returned\` and were not repeated; one of those that arrived would be phantom.`,
  ]
}

function attempts(rows: readonly Played[]): string[] {
  const retried = rows.reduce((total, { verdict }) => total + verdict.retried, 0)
  const soonest = Math.min(...rows.map(({ verdict }) => verdict.soonestRetryMs ?? Number.POSITIVE_INFINITY))
  if (retried === 0) return []
  return [
    `Wrong attempts: more than the policy's, before their delay, counted twice, without a failure before, or given up early. ${count(retried)} attempts beyond a first were judged; the soonest began ${soonest.toFixed(0)} ms after the failure before it.`,
  ]
}

function mixed(rows: readonly Played[]): string[] {
  const quoted = (ids: readonly string[]) => ids.map((id) => `\`${id}\``).join(', ')
  return rows.flatMap(({ id, leftOut = [] }) =>
    leftOut.length === 0 ? [] : [`\`${id}\` has every fault of the lab but ${quoted(leftOut)}.`],
  )
}

function heading({ commit, load, at, versions }: About): string {
  const code = commit === undefined ? '' : `, commit ${commit}`
  return `Surehop ${versions['surehop'] ?? ''}${code}, on RabbitMQ ${versions['rabbitmq'] ?? ''}, ${at}. Load: ${load}.`
}

function outcome(rows: readonly Played[]): string {
  if (rows.length === 0) return 'No row was played'
  const ended = (end: ReturnType<typeof endOf>) => rows.filter((row) => endOf(row) === end).length
  const failed = [
    [ended('BROKEN'), 'broke a promise'],
    [ended('NOT TRIED TO THE END'), 'could not be tried to the end'],
  ] as const
  const told = failed.filter(([count]) => count > 0).map(([count, how]) => `${count} of ${rows.length} rows ${how}`)
  return told.length === 0 ? 'All rows kept their promises' : told.join(', ')
}

function method(rows: readonly Played[], about: About): string {
  const { seed, at, seconds, machine, versions, notPlayed = [], again = [] } = about
  const programs = Object.entries(versions).map(([name, version]) => `${name} ${version}`)
  return [
    ...(notPlayed.length === 0 ? [] : [`Not played, for lack of time: ${notPlayed.join(', ')}.`]),
    ...again.map(playedAgain),
    `${outcome(rows)}. Seed ${seed}, ${at}, ${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s.`,
    `${machine.cores} × ${machine.cpu}, ${machine.memoryGib} GiB, ${machine.system}: brokers, databases and all processes share it.`,
    `${programs.join(', ')}.`,
  ].join('\n')
}

function playedAgain({ id, commit, seed, at, before }: Again): string {
  const code = commit === undefined ? '' : `, commit ${commit}`
  const was = before.length === 0 ? 'It had kept its promises before' : `Before: ${before.join('; ')}`
  return `\`${id}\` was played again by itself (seed ${seed}, ${at}${code}). ${was}.`
}

function count(value: number): string {
  return value.toLocaleString('en-US')
}

function gap(ms: number): string {
  return (ms / 1_000).toFixed(1)
}

function grid(rows: readonly string[][]): string {
  const widths = HEAD.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)))
  const pad = (cell: string, column: number) =>
    column === 0 ? cell.padEnd(widths[0]!) : cell.padStart(widths[column]!)
  const [head, ...rest] = rows.map((row) => `| ${row.map(pad).join(' | ')} |`)
  const line = `|${widths.map((width, i) => (i === 0 ? '-'.repeat(width + 2) : `${'-'.repeat(width + 1)}:`)).join('|')}|`
  return [head, line, ...rest].join('\n')
}
