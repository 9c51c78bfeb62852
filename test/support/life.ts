// One process, that may die at any moment: what it is told then, it does not hear, and that is no error.
//
// Promises: it does not outlive this process; the last of what it printed is kept.

import { type ChildProcess, fork } from 'node:child_process'
import type { End } from './child.ts'
import { guard } from './guard.ts'

const OUTPUT_KEPT = 10_000

/** Started from plain JavaScript, see `bundle.ts`. */
export class Life<Order extends object, Word = unknown> {
  /** Resolves when it has said something. */
  readonly ready: Promise<void>
  readonly ended: Promise<End>
  readonly #child: ChildProcess
  #output = ''

  /**
   * @param execArgv of Node, such as `['--import', file]`
   * @param more added to this process's environment
   */
  constructor(file: string, execArgv: readonly string[] = [], more: Readonly<Record<string, string>> = {}) {
    // A process that is killed leaves no coverage, and a bundle is nobody's source.
    const { NODE_V8_COVERAGE: _, NODE_OPTIONS: __, ...env } = process.env
    const stdio = ['ignore', 'pipe', 'pipe', 'ipc'] as const
    const child = fork(file, [], {
      execArgv: ['--enable-source-maps', ...execArgv],
      env: { ...env, ...more },
      stdio: [...stdio],
    })
    this.#child = child
    const release = child.pid === undefined ? () => {} : guard({ pid: child.pid })
    for (const stream of [child.stdout, child.stderr])
      stream?.setEncoding('utf8').on('data', (text: string) => {
        this.#output = (this.#output + text).slice(-OUTPUT_KEPT)
      })
    child.on('error', () => {})
    this.ready = new Promise((resolve) => child.once('message', () => resolve()))
    this.ended = new Promise((resolve) =>
      child.once('close', (code, signal) => {
        release()
        resolve({ code, signal })
      }),
    )
  }

  /** What it printed last. */
  get output(): string {
    return this.#output
  }

  /** Tells it something. */
  say(order: Order): void {
    if (this.#child.connected) this.#child.send(order, () => {})
  }

  /** Hears all that it says. */
  hear(listener: (word: Word) => void): void {
    this.#child.on('message', (word) => listener(word as Word))
  }

  /** Does nothing if it has ended. */
  signal(name: NodeJS.Signals): void {
    this.#child.kill(name)
  }

  kill9(): Promise<End> {
    this.#child.kill('SIGKILL')
    return this.ended
  }
}
