/**
 * What the demo prints: a time line of events, one live line under it on a terminal (now and then a line where there is none),
 * tables. Obeys NO_COLOR and the width of the terminal; a pipe gets no control characters.
 */
import type { WriteStream } from 'node:tty'
import Table from 'cli-table3'
import colors from 'picocolors'
import type { Check } from './books.ts'

/** Colours for a terminal only: by itself picocolors takes the variable CI for one. */
const pc = colors.createColors(process.stdout.isTTY === true && !process.env['NO_COLOR'])

const USUAL_COLUMNS = 80
const MOST_COLUMNS = 110
const NARROW_COLUMNS = 64
const BAR_CELLS = 16
/** Without a terminal, progress is a line this often, ms. */
const OCCASION_MS = 3_000

export class Screen {
  readonly #out: NodeJS.WriteStream | WriteStream
  readonly #begun = performance.now()
  #live = ''
  #frozen = false
  #lastOccasion = performance.now()

  constructor(out: NodeJS.WriteStream = process.stdout) {
    this.#out = out
  }

  /** How wide texts may be: the terminal's width, at most 110. */
  get columns(): number {
    return Math.max(30, Math.min(this.#out.columns ?? USUAL_COLUMNS, MOST_COLUMNS))
  }

  title(text: string): void {
    this.#print(`\n${pc.bold(text)}\n`)
  }

  /** Plain words, wrapped. */
  text(text: string, indent = 2): void {
    this.#print(
      wrap(text, this.columns - indent)
        .map((line) => ' '.repeat(indent) + line)
        .join('\n'),
    )
  }

  /** As it is: the output of a command. */
  raw(text: string): void {
    this.#print(text)
  }

  /** Something happened. */
  event(text: string, mark: 'good' | 'bad' | 'plain' = 'plain'): void {
    const seconds = `${((performance.now() - this.#begun) / 1_000).toFixed(1)} s`.padStart(7)
    const dot = { good: pc.green('●'), bad: pc.red('●'), plain: pc.dim('●') }[mark]
    const [first, ...rest] = wrap(text, this.columns - 12)
    this.#print([`${pc.dim(seconds)}  ${dot} ${first}`, ...rest.map((line) => ' '.repeat(11) + line)].join('\n'))
  }

  /** How far it is, 0 to 1, and in words. */
  progress(done: number, words: string): void {
    if (this.#frozen) return
    if (this.#out.isTTY) {
      const cells = Math.round(Math.min(1, done) * BAR_CELLS)
      const bar = pc.cyan('━'.repeat(cells)) + pc.dim('━'.repeat(BAR_CELLS - cells))
      this.#live = `  ${bar} ${words.slice(0, this.columns - BAR_CELLS - 5)}`
      this.#out.write(`\r\x1b[2K${this.#live}`)
      return
    }
    if (performance.now() - this.#lastOccasion < OCCASION_MS) return
    this.#lastOccasion = performance.now()
    this.event(words)
  }

  /** Takes the live line away, until the next progress. */
  settle(): void {
    if (this.#live) this.#out.write('\r\x1b[2K')
    this.#live = ''
  }

  /** No progress is shown any more. */
  freeze(): void {
    this.settle()
    this.#frozen = true
  }

  /** Rows of a name, a count and what it means; the meaning only where there is room. */
  table(rows: readonly (readonly [name: string, count: string, meaning: string])[]): void {
    const roomy = this.columns >= NARROW_COLUMNS
    const widths = [24, 9, this.columns - 24 - 9 - 6]
    const table = new Table({
      chars: RULES_ONLY,
      style: { head: [], border: [], 'padding-left': 1, 'padding-right': 1 },
      colAligns: ['left', 'right', 'left'],
      colWidths: roomy ? widths : widths.slice(0, 2),
      wordWrap: true,
    })
    for (const [name, count, meaning] of rows)
      table.push(roomy ? [name, pc.bold(count), pc.dim(meaning)] : [name, pc.bold(count)])
    this.#print(indented(table.toString()))
  }

  /** The books, equation by equation. */
  books(checks: readonly Check[]): void {
    for (const { name, holds, says, differences } of checks) {
      const mark = holds ? pc.green('✔') : pc.red('✘')
      const [first, ...rest] = wrap(says, this.columns - 13)
      this.#print([`  ${mark} ${name.padEnd(8)} ${first}`, ...rest.map((line) => ' '.repeat(13) + line)].join('\n'))
      for (const line of differences.flatMap((one) => wrap(one, this.columns - 13)))
        this.#print(`${' '.repeat(13)}${pc.red(line)}`)
    }
  }

  #print(text: string): void {
    const live = this.#live
    if (live) this.#out.write('\r\x1b[2K')
    this.#out.write(`${text}\n`)
    if (live) this.#out.write(live)
  }
}

const RULES_ONLY = {
  ...{ top: '─', 'top-mid': '─', 'top-left': '', 'top-right': '' },
  ...{ bottom: '─', 'bottom-mid': '─', 'bottom-left': '', 'bottom-right': '' },
  ...{ left: '', 'left-mid': '', mid: '', 'mid-mid': '' },
  ...{ right: '', 'right-mid': '', middle: '' },
}

/** Two spaces in front, none behind. */
function indented(text: string): string {
  return text.replace(/^/gm, '  ').replace(/ +$/gm, '')
}

/** Breaks at spaces. */
export function wrap(text: string, columns: number): string[] {
  const lines: string[] = []
  let line = ''
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > columns) {
      lines.push(line)
      line = word
    } else line = line === '' ? word : `${line} ${word}`
  }
  return [...lines, line]
}
