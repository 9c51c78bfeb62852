// The table fault x promise: what a row must keep, and how it reads for people.
//
// A row passes if nothing was lost, doubled, written by a zombie, out of order, phantom or left. Effects repeated within a limit
// that the README states are counted and shown with that limit, never hidden; each was explained by itself (`reconcile.ts`).

import type { Machine } from '../bench/machine.ts'
import type { Limit, Verdict } from './world.ts'

/** A played row. */
export interface Played {
  readonly id: string
  readonly name: string
  readonly limits: readonly Limit[]
  readonly injected: number
  readonly seconds: number
  readonly verdict: Verdict
  /** What kept the row from its end, in words: a fault that could not be healed, work that did not drain. */
  readonly trouble?: string
}

/** What stands under a table. */
export interface About {
  readonly seed: number
  readonly at: string
  readonly seconds: number
  readonly machine: Machine
  readonly versions: Readonly<Record<string, string>>
}

/** What must be 0. */
export const PROMISES = ['lost', 'doubled', 'zombies', 'outOfOrder', 'phantom', 'left'] as const

/** What a row broke, in words; empty: it passes. */
export function broken({ verdict, injected, trouble }: Played): readonly string[] {
  const counts = PROMISES.filter((promise) => verdict[promise] !== 0).map((promise) => `${promise} ${verdict[promise]}`)
  return [
    ...counts,
    // A row that tried nothing proves nothing.
    ...(verdict.messages === 0 ? ['no message came through'] : []),
    ...(injected === 0 ? ['no fault was injected'] : []),
    ...(trouble === undefined ? [] : [trouble]),
  ]
}

const HEAD = [
  'fault',
  'messages',
  'faults',
  'lost',
  'doubled',
  'repeated within a limit',
  'zombie writes',
  'out of key order',
  'phantom',
  'left',
  'longest gap, s',
]

/** Markdown, as good in a terminal as in the README. */
export function table(rows: readonly Played[], about: About): string {
  return [grid([HEAD, ...rows.map(cells), totals(rows)]), legend(rows), method(rows, about)].join('\n\n')
}

function cells(row: Played): string[] {
  const { verdict, id, name, injected } = row
  const { messages, lost, doubled, zombies, outOfOrder, phantom, left, longestGapMs } = verdict
  const marked = `\`${id}\` ${broken(row).length > 0 ? `**${name}: BROKEN**` : name}`
  const counts = [lost, doubled].map(count)
  const rest = [zombies, outOfOrder, phantom, left].map(count)
  return [marked, count(messages), count(injected), ...counts, repeats(row), ...rest, gap(longestGapMs)]
}

function repeats(row: Played): string {
  return [count(row.verdict.repeated), ...limitsOf(row).map((limit) => MARK[limit])].join(' ')
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
    sum(({ verdict }) => verdict.zombies),
    sum(({ verdict }) => verdict.outOfOrder),
    sum(({ verdict }) => verdict.phantom),
    sum(({ verdict }) => verdict.left),
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
    `${count(meantToFail)} messages were meant to fail for good, and lie in the dead letters as they should; they are not counted as left.`,
    ...notes.map((limit) => `${MARK[limit]} ${EXPLAINED[limit]}`),
  ].join('\n')
}

function method(rows: readonly Played[], { seed, at, seconds, machine, versions }: About): string {
  const programs = Object.entries(versions).map(([name, version]) => `${name} ${version}`)
  const failed = rows.filter((row) => broken(row).length > 0).length
  return [
    `${failed === 0 ? 'All rows kept their promises' : `${failed} of ${rows.length} rows broke a promise`}. Seed ${seed}, ${at}, ${Math.round(seconds / 60)} min ${Math.round(seconds % 60)} s.`,
    `${machine.cores} × ${machine.cpu}, ${machine.memoryGib} GiB, ${machine.system}: brokers, databases and all processes share it.`,
    `${programs.join(', ')}.`,
  ].join('\n')
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
