/** Progress on a terminal's stderr: how many, how fast, how long still. Nothing where there is no terminal. */
import cliProgress from 'cli-progress'
import type { Output } from './terminal.ts'
import { duration } from './text.ts'

const WIDTH = 24

export class Progress {
  readonly #bar: InstanceType<typeof cliProgress.SingleBar> | undefined
  readonly #startedAt = performance.now()
  readonly #total: number
  #done = 0

  constructor({ stderr }: Output, total: number) {
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
  }

  step(): void {
    this.#bar?.update(++this.#done)
  }

  /** Takes the line away. */
  stop(): void {
    this.#bar?.stop()
  }

  #line(value: number): string {
    const seconds = (performance.now() - this.#startedAt) / 1_000
    const rate = seconds > 0 ? value / seconds : 0
    const full = Math.round((WIDTH * value) / this.#total)
    const left = rate > 0 ? `about ${duration((this.#total - value) / rate)} left` : ''
    const bar = '█'.repeat(full) + '░'.repeat(WIDTH - full)
    return `${bar} ${value.toLocaleString('en-US')} of ${this.#total.toLocaleString('en-US')}  ${rate.toFixed(rate < 10 ? 1 : 0)}/s  ${left}`
  }
}
