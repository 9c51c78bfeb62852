/** The table for people. The README's is what this prints. */

import type { Column } from './contest.ts'
import type { Measured } from './job.ts'
import type { Machine } from './machine.ts'

export interface ContestResult {
  readonly title: string
  readonly columns: readonly Column[]
  readonly note?: string
  /** By contestant, in the order of turns; the first contestant is what the others are compared with. */
  readonly runs: Readonly<Record<string, readonly Measured[]>>
}

export interface About {
  readonly turns: number
  readonly messages: number
  readonly warmup: number
  readonly bodyBytes: number
  readonly inFlight: number
  readonly prefetch: number
  readonly concurrency: number
  readonly machine: Machine
  readonly versions: Readonly<Record<string, string>>
}

/** Markdown, so that it reads as well in a terminal as in the README. */
export function report(results: Readonly<Record<string, ContestResult>>, about: About): string {
  return [...Object.values(results).map(section), method(about)].join('\n\n')
}

/** One run's figures, in a line. */
export function figuresOf(measured: Measured, columns: readonly Column[]): string {
  return columns.map((column) => `${figure(cellOf(measured, column))} ${column.head}`).join('; ')
}

function section({ title, columns, note, runs }: ContestResult): string {
  const [first = []] = Object.values(runs)
  const head = columns.flatMap((column) => (column.compared ? [column.head, '× first'] : [column.head]))
  const rows = Object.entries(runs).map(([name, measured]) => row(name, measured, first, columns))
  return [`**${title}**`, table([['', ...head], ...rows]), ...(note ? [note] : [])].join('\n\n')
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
  return median(measured.map((run, turn) => cellOf(run, column) / cellOf(first[turn]!, column))).toFixed(2)
}

function spread(values: readonly number[]): string {
  return `${figure(median(values))} (${figure(Math.min(...values))}–${figure(Math.max(...values))})`
}

function figure(value: number): string {
  return value < 100 ? value.toFixed(1) : Math.round(value).toLocaleString('en-US')
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

function method({ machine, versions, ...about }: About): string {
  const programs = Object.entries(versions).map(([name, version]) => `${name} ${version}`)
  return [
    `Measured on ${machine.cores} × ${machine.cpu}, ${machine.memoryGib} GiB, ${machine.system}, load ${machine.load}: client, broker and databases share it.`,
    `${programs.join(', ')}.`,
    `${about.bodyBytes} bytes a message, persistent; publishing ${about.inFlight} in flight; consuming prefetch ${about.prefetch}, Surehop with concurrency ${about.concurrency}.`,
    `${about.turns} turns, every run a fresh process: ${about.warmup} messages to warm up, then ${about.messages} measured (fewer where a run says so).`,
    'Median (lowest–highest). × first: median of the ratios to the first line within each turn.',
  ].join('\n')
}
