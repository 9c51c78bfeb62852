/**
 * What goes out: results on stdout, everything else on stderr. A reader that goes away (`| head`) ends the command quietly;
 * colours only where a terminal shows them.
 */
import colors from 'picocolors'
import { cut, padded, safe, widthOf } from './text.ts'

const FALLBACK_WIDTH = 100
const MIN_WIDTH = 40
/** Between two columns. */
const GAP = '  '
const PADDING = GAP.length

/** The reader of a pipe went away, or the terminal was closed. */
export class NobodyReads extends Error {}

/** Something drawn on the last line of the screen, which makes room for what is written. */
export interface Drawn {
  away(): void
  again(): void
}

/** Results go to stdout; its end (EPIPE) is told by the signal. */
export class Output {
  readonly #gone = new AbortController()
  readonly stdout: NodeJS.WriteStream
  readonly stderr: NodeJS.WriteStream
  drawn: Drawn | undefined

  constructor(stdout: NodeJS.WriteStream, stderr: NodeJS.WriteStream) {
    this.stdout = stdout
    this.stderr = stderr
    stdout.on('error', (error: NodeJS.ErrnoException) => {
      const closed = error.code === 'EIO' && stdout.isTTY
      if (error.code !== 'EPIPE' && !closed) throw error
      this.#gone.abort(new NobodyReads(error.message))
    })
    stderr.on('error', () => {})
  }

  /** Fires when nobody reads any more. */
  get gone(): AbortSignal {
    return this.#gone.signal
  }

  get width(): number {
    const width = this.stdout.columns ?? Number(process.env['COLUMNS'] ?? Number.NaN)
    return Math.max(MIN_WIDTH, Number.isFinite(width) && width > 0 ? width : FALLBACK_WIDTH)
  }

  get interactive(): boolean {
    return process.stdin.isTTY === true && this.stderr.isTTY === true
  }

  /** Colours for stdout. */
  get paint() {
    return colors.createColors(colorsFor(this.stdout))
  }

  /** Colours for stderr. */
  get notePaint() {
    return colors.createColors(colorsFor(this.stderr))
  }

  /** Writes one piece of the result, and waits where the reader is slow. */
  async write(text: string): Promise<void> {
    if (this.gone.aborted) return
    if (this.stdout.isTTY) this.drawn?.away()
    const taken = this.stdout.write(text)
    if (this.stdout.isTTY) this.drawn?.again()
    if (taken) return
    await new Promise<void>((resolve) => {
      const done = () => {
        this.stdout.off('drain', done)
        this.gone.removeEventListener('abort', done)
        resolve()
      }
      this.stdout.once('drain', done)
      this.gone.addEventListener('abort', done, { once: true })
    })
  }

  line(text = ''): Promise<void> {
    return this.write(`${text}\n`)
  }

  json(value: unknown): Promise<void> {
    return this.write(`${JSON.stringify(value).replace(UNSEEN, escaped)}\n`)
  }

  /** A word to the person: stderr. */
  note(text: string): void {
    this.drawn?.away()
    this.stderr.write(`${text}\n`)
    this.drawn?.again()
  }
}

/** JSON escapes what is below a space; a terminal also obeys these. */
const UNSEEN = /[\u007f-\u009f\p{Cf}\p{Zl}\p{Zp}]/gu

function escaped(character: string): string {
  return [...character.split('')].map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`).join('')
}

function colorsFor(stream: NodeJS.WriteStream): boolean {
  const { NO_COLOR, FORCE_COLOR, TERM } = process.env
  if (NO_COLOR) return false
  if (FORCE_COLOR && FORCE_COLOR !== '0') return true
  return stream.isTTY === true && TERM !== 'dumb'
}

/** One column of a table. The text must be safe; colours come after cutting. */
export interface Column<Row> {
  readonly head: string
  readonly of: (row: Row) => string
  readonly paint?: (text: string) => string
  readonly right?: boolean
  /** Columns that may shrink when the terminal is narrow, down to this width; others keep theirs. */
  readonly min?: number
  /** Left out first when the terminal is narrow; the highest number first. */
  readonly spare?: number
  /** Stays however narrow the terminal is; of the others, the last goes first. */
  readonly keep?: boolean
}

/** A table of one page, no wider than `width`. */
export function table<Row>(
  rows: readonly Row[],
  columns: readonly Column<Row>[],
  width: number,
  bold: (t: string) => string,
): string {
  const cells = rows.map((row) => columns.map((column) => safe(column.of(row))))
  const natural = columns.map((column, i) => Math.max(widthOf(column.head), ...cells.map((cell) => widthOf(cell[i]!))))
  const widths = fitted(natural, columns, width)
  const line = (texts: readonly string[], paint: (text: string, i: number) => string) =>
    texts
      .flatMap((text, i) => (widths[i]! > 0 ? [paint(columnText(text, i), i)] : []))
      .join(GAP)
      .trimEnd()
  const columnText = (text: string, i: number) => padded(cut(text, widths[i]!), widths[i]!, columns[i]!.right)
  const heads = columns.map(({ head }) => head)
  return [line(heads, bold), ...cells.map((row) => line(row, (text, i) => columns[i]!.paint?.(text) ?? text))].join(
    '\n',
  )
}

/** Widths that fit; 0 for a column left out, so that the others keep twice their least width. */
function fitted<Row>(natural: readonly number[], columns: readonly Column<Row>[], width: number): number[] {
  const widths = [...natural]
  const order = columns
    .map((c, i) => [c.spare ?? 0, i] as const)
    .filter(([s]) => s > 0)
    .sort((a, b) => b[0] - a[0])
  const least = (i: number) =>
    widths[i] === 0 ? 0 : Math.min(widths[i]!, 2 * (columns[i]!.min ?? widths[i]!)) + PADDING
  const need = () => widths.reduce((sum, _, i) => sum + least(i), -PADDING)
  for (const [, i] of order) if (need() > width) widths[i] = 0
  const shrunk = (i: number) => (widths[i] === 0 ? 0 : Math.min(widths[i]!, columns[i]!.min ?? widths[i]!) + PADDING)
  const tight = () => widths.reduce((sum, _, i) => sum + shrunk(i), -PADDING)
  for (let i = widths.length - 1; i >= 0 && tight() > width; i--) if (!columns[i]!.keep) widths[i] = 0
  let over = widths.reduce((sum, w) => sum + (w === 0 ? 0 : w + PADDING), -PADDING) - width
  while (over > 0) {
    const widest = widths.reduce(
      (best, w, i) => (w > (columns[i]!.min ?? w) && (best < 0 || w > widths[best]!) ? i : best),
      -1,
    )
    if (widest < 0) break
    widths[widest]!--
    over--
  }
  return widths
}
