// A server process of our own: started in its own process group, with its output in a file, guarded by the reaper.
//
// Promises: signals reach the whole group and only while it lives; it never outlives this process; it does not hold the
// event loop open except while somebody waits for its end.

import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { eventually } from './eventually.ts'
import { guard } from './guard.ts'
import { PortTakenError } from './ports.ts'

/** What to run. */
export interface Launch {
  readonly command: string
  readonly args: readonly string[]
  readonly cwd: string
  /** The whole environment: nothing is inherited. */
  readonly env: Readonly<Record<string, string>>
  /** File that the output is appended to. */
  readonly log: string
}

/** A started process. */
export interface PrivateProcess {
  readonly pid: number
  readonly alive: boolean
  /** Sends a signal to the group; nothing happens if it has ended. */
  signal(name: NodeJS.Signals): void
  /** Sends a signal and waits for the end. */
  end(name: NodeJS.Signals): Promise<void>
  /** Waits until `check` passes; fails at once, with the last output, if the process ends first. */
  ready(check: () => Promise<unknown>, withinMs: number): Promise<void>
}

/** Starts the process; throws if the program cannot be run. */
export async function launch(what: Launch): Promise<PrivateProcess> {
  const output = openSync(what.log, 'a')
  const { command, args, cwd, env } = what
  const child = spawn(command, [...args], { cwd, env, detached: true, stdio: ['ignore', output, output] })
  closeSync(output)
  await started(child)
  const group = child.pid as number
  const release = guard({ group })
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  exited.then(release)
  child.unref()
  return new Launched(child, group, exited, what)
}

function started(child: ChildProcess): Promise<void> {
  return new Promise((resolve, reject) => child.once('spawn', resolve).once('error', reject))
}

class Launched implements PrivateProcess {
  readonly pid: number
  readonly #child: ChildProcess
  readonly #exited: Promise<void>
  readonly #what: Launch

  constructor(child: ChildProcess, pid: number, exited: Promise<void>, what: Launch) {
    this.pid = pid
    this.#child = child
    this.#exited = exited
    this.#what = what
  }

  get alive(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null
  }

  signal(name: NodeJS.Signals): void {
    if (this.alive) process.kill(-this.pid, name)
  }

  async end(name: NodeJS.Signals): Promise<void> {
    this.#child.ref()
    this.signal(name)
    // A frozen process takes no signal but SIGKILL and SIGCONT.
    this.signal('SIGCONT')
    await this.#exited
  }

  async ready(check: () => Promise<unknown>, withinMs: number): Promise<void> {
    const ended = new AbortController()
    this.#exited.then(() => ended.abort(this.#failure()))
    const { signal } = ended
    await eventually(check, { withinMs, what: `the start of ${this.#what.command}`, signal }).catch(
      (error: unknown) => {
        throw signal.aborted ? signal.reason : error
      },
    )
  }

  #failure(): Error {
    const said = readFileSync(this.#what.log, 'utf8').trim().split('\n').slice(-25).join('\n')
    const message = `${this.#what.command} ended before it was ready. It said:\n${said}`
    return /eaddrinuse|address already in use|already in use by/i.test(said)
      ? new PortTakenError(message)
      : new Error(message)
  }
}

/** A program that ends by itself within 60 s, or 10 min for docker: its output, or an error that carries it. */
export function runToEnd(
  command: string,
  args: readonly string[],
  env: Readonly<Record<string, string>>,
): Promise<string> {
  const timeout = command === 'docker' ? 600_000 : 60_000
  const child = spawn(command, [...args], { env, stdio: ['ignore', 'pipe', 'pipe'], timeout })
  let said = ''
  let complaint = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (said += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (complaint += text))
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code) => {
      if (code === 0) resolve(said)
      else reject(new Error(`${command} ${args.join(' ')} failed (${code}): ${(complaint || said).trim()}`))
    })
  })
}
