// A server process of our own: started in its own process group, with its output in a file, guarded by the reaper.
//
// Promises: signals reach the whole group and only while it lives; it never outlives this process; it does not hold the
// event loop open except while somebody waits for its end. A `scattered` one keeps these promises with children that leave
// its group.

import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { eventually } from './eventually.ts'
import { guard } from './guard.ts'
import { PortTakenError } from './ports.ts'
import { descendantsOf, isRunning } from './process-tree.mjs'

/** What to run. */
export interface Launch {
  readonly command: string
  readonly args: readonly string[]
  readonly cwd: string
  /** The whole environment: nothing is inherited. */
  readonly env: Readonly<Record<string, string>>
  /** File that the output is appended to. */
  readonly log: string
  /** Whom it runs as. Default: whoever this process runs as. */
  readonly as?: Account
  /** For a program whose children make groups of their own, and which passes on what signals it can catch. Default false. */
  readonly scattered?: boolean
}

/** A user of this machine, and its group. */
export interface Account {
  readonly uid: number
  readonly gid: number
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
  const { command, args, cwd, env, as = {} } = what
  const child = spawn(command, [...args], { cwd, env, ...as, detached: true, stdio: ['ignore', output, output] })
  closeSync(output)
  await started(child)
  const pid = child.pid as number
  const release = guard(what.scattered ? { pid } : { group: pid })
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  exited.then(release)
  child.unref()
  return new Launched(child, pid, exited, what)
}

function started(child: ChildProcess): Promise<void> {
  return new Promise((resolve, reject) => child.once('spawn', resolve).once('error', reject))
}

const UNCAUGHT: readonly NodeJS.Signals[] = ['SIGKILL', 'SIGSTOP', 'SIGCONT']

/** The parent last: when it ends or goes on, its children have what they were sent. */
function signalTree(pid: number, name: NodeJS.Signals): void {
  for (const one of [...holdTree(pid), pid]) regardless(() => process.kill(one, name))
}

/** Stops the parent, and gives its children. The signal has long arrived when the second table is read: no more are born. */
function holdTree(pid: number): readonly number[] {
  regardless(() => process.kill(pid, 'SIGSTOP'))
  descendantsOf(pid)
  return descendantsOf(pid)
}

function regardless(work: () => void): void {
  try {
    work()
  } catch {
    // It has ended meanwhile.
  }
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
    if (!this.alive) return
    if (!this.#what.scattered) process.kill(-this.pid, name)
    else if (UNCAUGHT.includes(name)) signalTree(this.pid, name)
    else process.kill(this.pid, name)
  }

  async end(name: NodeJS.Signals): Promise<void> {
    this.#child.ref()
    const children = this.#what.scattered && this.alive ? holdTree(this.pid) : []
    this.signal(name)
    // A frozen process takes no signal but SIGKILL and SIGCONT.
    this.signal('SIGCONT')
    await this.#exited
    await eventually(() => !children.some(isRunning), { what: `the end of the children of ${this.#what.command}` })
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
  as?: Account,
): Promise<string> {
  const timeout = command === 'docker' ? 600_000 : 60_000
  // Another user may have no business in the folder we are in.
  const there = as && { ...as, cwd: '/' }
  const child = spawn(command, [...args], { env, ...there, stdio: ['ignore', 'pipe', 'pipe'], timeout })
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
