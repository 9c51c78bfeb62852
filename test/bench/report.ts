/** The tables for people, as Markdown, so that they read as well in a terminal as in the README, which has them word for word. */

import type { Column } from './contest.ts'
import type { Measured } from './job.ts'
import type { Machine } from './machine.ts'

export interface ContestResult {
  readonly title: string
  readonly columns: readonly Column[]
  readonly note?: string
  /** By contestant; the first one is what the others are compared with. */
  readonly runs: Readonly<Record<string, readonly Measured[]>>
  /** Who ran after whom, in each turn. */
  readonly order: readonly (readonly string[])[]
  readonly messages: number
  readonly warmup: number
  /** How long all of it took. */
  readonly seconds: number
  /** Of the machine, when it began. */
  readonly load: number
  /** When it began, ISO 8601. */
  readonly at: string
  /** Of the code, where git knows it. */
  readonly commit: string | undefined
}

export interface About {
  readonly bodyBytes: number
  readonly inFlight: number
  readonly prefetch: number
  readonly concurrency: number
  readonly machine: Machine
  readonly versions: Readonly<Record<string, string>>
}

/** For a figure that a contestant does not have. */
const NONE = '–'

/** One run's figures, in a line. */
export function figuresOf(measured: Measured, columns: readonly Column[]): string {
  return columns.map((column) => `${figure(cellOf(measured, column))} ${column.head}`).join('; ')
}

/** One contest: title, table, note, and how it was measured. */
export function section(result: ContestResult): string {
  const { title, columns, note, runs } = result
  const [first = []] = Object.values(runs)
  const head = columns.flatMap((column) => (column.compared ? [column.head, '× first'] : [column.head]))
  const rows = Object.entries(runs).map(([name, measured]) => row(name, measured, first, columns))
  return [`**${title}**`, table([['', ...head], ...rows]), ...(note ? [note] : []), howMeasured(result)].join('\n\n')
}

function howMeasured({ order, messages, warmup, seconds, load, at, commit }: ContestResult): string {
  const turns = order.length === 1 ? 'One turn' : `${order.length} turns`
  const before = warmup > 0 ? ` after ${count(warmup)} to warm up` : ''
  const of = commit === undefined ? '' : `, commit ${commit}`
  return `${turns}, ${count(messages)} measured${before}; ${at.slice(0, 10)}${of}; it took ${Math.round(seconds)} s, and began at a load of ${load}.`
}

function row(
  name: string,
  measured: readonly Measured[],
  first: readonly Measured[],
  columns: readonly Column[],
): string[] {
  const cells = columns.flatMap((column) => {
    const cell = spread(measured.map((run) => cellOf(run, column)))
    return column.compared ? [cell, ratio(measured, first, column)] : [cell]
  })
  return [name, ...cells]
}

function cellOf(run: Measured, { figure }: Column): number {
  return run[figure] ?? Number.NaN
}

function ratio(measured: readonly Measured[], first: readonly Measured[], column: Column): string {
  const ratios = measured.map((run, turn) => cellOf(run, column) / cellOf(first[turn]!, column))
  return spread(ratios, (value) => (Number.isNaN(value) ? NONE : value.toFixed(2)))
}

/** Median (lowest–highest); the range only where there is one. */
function spread(values: readonly number[], shown = figure): string {
  const [low, middle, high] = [Math.min(...values), median(values), Math.max(...values)].map(shown)
  return low === high ? middle! : `${middle} (${low}–${high})`
}

function figure(value: number): string {
  if (Number.isNaN(value)) return NONE
  return Math.abs(value) >= 100 || value === 0 ? count(value) : value < 10 ? value.toFixed(2) : value.toFixed(1)
}

function count(value: number): string {
  return Math.round(value).toLocaleString('en-US')
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

function table(rows: readonly string[][]): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((cells) => cells[column]!.length)))
  const [head, ...rest] = rows.map((cells) => `| ${cells.map((cell, i) => pad(cell, widths[i]!, i)).join(' | ')} |`)
  const line = `|${widths.map((width, i) => (i === 0 ? '-'.repeat(width + 2) : `${'-'.repeat(width + 1)}:`)).join('|')}|`
  return [head, line, ...rest].join('\n')
}

function pad(cell: string, width: number, column: number): string {
  return column === 0 ? cell.padEnd(width) : cell.padStart(width)
}

/** What holds for all contests. */
export function method({ machine, versions, ...about }: About): string {
  const programs = Object.entries(versions).map(([name, version]) => `${name} ${version}`)
  return [
    `Measured on ${machine.cores} × ${machine.cpu}, ${machine.memoryGib} GiB, ${machine.system}. Client, broker and databases share the machine.`,
    `${programs.join(', ')}.`,
    `${count(about.bodyBytes)} bytes a message where nothing else is said, persistent; publishing ${about.inFlight} in flight; consuming prefetch ${about.prefetch}, ${about.concurrency} handlers at a time.`,
    'Every run is a fresh process of built JavaScript with a queue of its own; within a turn the contestants run one after another, in an order drawn anew for each turn.',
    'Median of the turns (lowest–highest). × first: of the ratios to the first line within each turn. CPU is user and system time of the client process.',
  ].join('\n')
}
