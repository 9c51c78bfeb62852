/** Progress on a terminal's stderr: how many, how fast, how long still. Nothing where there is no terminal. */
import cliProgress from 'cli-progress'
import type { Output } from './terminal.ts'
import { cut, duration } from './text.ts'

/** Columns of the bar: many, and where the terminal is narrow. */
const WIDE = 24
const NARROW = 8
/** A terminal of fewer has the narrow one. */
const ROOMY = 72

export class Progress {
  readonly #bar: InstanceType<typeof cliProgress.SingleBar> | undefined
  readonly #startedAt = performance.now()
  readonly #total: number
  readonly #output: Output
  #done = 0

  constructor(output: Output, total: number) {
    const { stderr } = output
    this.#output = output
    this.#total = total
    if (!stderr.isTTY || total === 0) return
    this.#bar = new cliProgress.SingleBar({
      format: (_, { value }) => this.#line(value),
      stream: stderr,
      hideCursor: true,
      clearOnComplete: true,
      fps: 10,
      gracefulExit: false,
      linewrap: false,
    })
    this.#bar.start(total, 0)
    output.drawn = { away: () => this.#bar?.stop(), again: () => this.#bar?.start(total, this.#done) }
  }

  step(): void {
    this.#bar?.update(++this.#done)
  }

  /** Takes the line away. */
  stop(): void {
    this.#output.drawn = undefined
    this.#bar?.stop()
  }

  #line(value: number): string {
    const seconds = (performance.now() - this.#startedAt) / 1_000
    const rate = seconds > 0 ? value / seconds : 0
    const columns = this.#output.stderr.columns ?? ROOMY
    const width = columns < ROOMY ? NARROW : WIDE
    const full = Math.min(width, Math.round((width * value) / this.#total))
    const left = rate > 0 ? `about ${duration((this.#total - value) / rate)} left` : ''
    const bar = '█'.repeat(full) + '░'.repeat(width - full)
    const line = `${bar} ${value.toLocaleString('en-US')} of ${this.#total.toLocaleString('en-US')}  ${rate.toFixed(rate < 10 ? 1 : 0)}/s  ${left}`
    return cut(line, columns - 1)
  }
}
