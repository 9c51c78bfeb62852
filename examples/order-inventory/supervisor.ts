/**
 * Runs the three services as processes of their own, and restarts one that died. Promises: what it started ends with it; a service that
 * cannot start, tried more than once, or dies again and again, is an error with what the service printed.
 */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { ServiceName } from './tally.ts'

/** A service that dies more often than this is broken, not unlucky. */
const MOST_CRASHES = 20
/** And one that cannot start so often: a machine that stands still for seconds makes a relay give up on its database. */
const MOST_STARTS = 3
const CLOSE_WITHIN_MS = 8_000
const KEPT_OUTPUT_CHARS = 4_000

export interface ServiceParts {
  readonly name: ServiceName
  readonly run: string
  readonly folder: string
  readonly settings?: readonly string[]
  /** Called when the service died and is being started again, and when it is back. */
  readonly onCrash?: (signal: string) => void
  readonly onBack?: () => void
  /** Called when it cannot be kept alive. */
  readonly onBroken: (error: Error) => void
}

export class Service {
  crashes = 0
  readonly #parts: ServiceParts
  #settings: readonly string[]
  #process: ChildProcess | undefined
  #ready: Promise<void> = Promise.resolve()
  #isReady = false
  #closing = false
  #asks = 0
  #output = ''

  constructor(parts: ServiceParts) {
    this.#parts = parts
    this.#settings = parts.settings ?? []
  }

  /** Resolves when the service consumes. */
  start(): Promise<void> {
    this.#ready = this.#start()
    return this.#ready
  }

  /** Resolves when the service consumes, again if need be. */
  get ready(): Promise<void> {
    return this.#ready
  }

  /** kill -9. */
  kill9(): void {
    this.#process?.kill('SIGKILL')
  }

  /** Asks for a task and waits for its answer. */
  async ask(task: string, argument?: unknown): Promise<unknown> {
    await this.#ready
    const child = this.#process!
    const ask = ++this.#asks
    const answered = answerOf(child, ask)
    // A process that has just died is noticed by its exit.
    child.send({ ask, task, argument }, () => {})
    const answer = await answered
    if (!answer) throw new Error(`the ${this.#parts.name} service ended before it answered "${task}"${this.#printed()}`)
    return answer.value
  }

  /** The same, and asks again whenever the service died before it answered. For tasks that can be begun again. */
  async insist(task: string, argument?: unknown): Promise<unknown> {
    for (;;) {
      const before = this.crashes
      try {
        return await this.ask(task, argument)
      } catch (error) {
        if (this.crashes === before || this.#closing || this.crashes > MOST_CRASHES) throw error
      }
    }
  }

  /** Ends the running version in good order and starts another one. */
  async deploy(settings: readonly string[]): Promise<void> {
    await this.#ready
    await this.close()
    this.#closing = false
    this.#settings = settings
    await this.start()
  }

  /** Lets it finish what it does; kills it if that takes too long. */
  async close(): Promise<void> {
    this.#closing = true
    const child = this.#process
    if (!child || child.exitCode !== null || child.signalCode !== null) return
    const gone = once(child, 'exit')
    const late = setTimeout(() => child.kill('SIGKILL'), CLOSE_WITHIN_MS)
    // One that still starts does not listen yet.
    if (child.connected && this.#isReady) child.send({ ask: 0, task: 'close' }, () => {})
    else child.kill('SIGKILL')
    await gone
    clearTimeout(late)
  }

  async #start(): Promise<void> {
    for (let starts = 1; !(await this.#launched()); starts++)
      if (this.#closing || starts === MOST_STARTS)
        throw new Error(`the ${this.#parts.name} service could not start${this.#printed()}`)
  }

  /** @returns false when it ended before it was ready */
  async #launched(): Promise<boolean> {
    const { name, run, folder } = this.#parts
    const file = fileURLToPath(new URL(`./${name}.ts`, import.meta.url))
    const child = fork(file, [run, folder, ...this.#settings], {
      execArgv: ['--import', 'tsx'],
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    })
    this.#process = child
    this.#isReady = false
    for (const stream of [child.stdout, child.stderr])
      stream?.setEncoding('utf8').on('data', (text: string) => {
        this.#output = (this.#output + text).slice(-KEPT_OUTPUT_CHARS)
      })
    const gone = once(child, 'exit')
    const [first] = await Promise.race([once(child, 'message'), gone])
    if ((first as { ready?: true } | null)?.ready !== true) return false
    this.#isReady = true
    void gone.then(([code, signal]) => this.#died(signal ?? `exit code ${code}`))
    return true
  }

  #died(how: string): void {
    if (this.#closing) return
    const { name, onCrash, onBack, onBroken } = this.#parts
    this.crashes++
    if (this.crashes > MOST_CRASHES) {
      onBroken(new Error(`the ${name} service died ${this.crashes} times, last by ${how}${this.#printed()}`))
      return
    }
    onCrash?.(how)
    this.start().then(onBack, (error: Error) => this.#closing || onBroken(error))
  }

  #printed(): string {
    return this.#output === '' ? '' : `. It printed:\n${this.#output}`
  }
}

function answerOf(child: ChildProcess, ask: number): Promise<{ value: unknown } | undefined> {
  return new Promise((resolve) => {
    const listen = (message: unknown) => {
      const { answer, value } = message as { answer?: number; value?: unknown }
      if (answer === ask) done({ value })
    }
    const ended = () => done(undefined)
    const done = (answer: { value: unknown } | undefined) => {
      child.off('message', listen)
      child.off('exit', ended)
      resolve(answer)
    }
    child.on('message', listen)
    child.on('exit', ended)
  })
}
