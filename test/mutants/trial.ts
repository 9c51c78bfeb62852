// One run of some tests in a copy of the repository, each tried once; tells what passed and what failed first.
//
// Promises: the run ends within its time; random tests make the choices of the given seed, and stop at their first failure.

import { type ChildProcess, spawn } from 'node:child_process'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { guard } from '../support/guard.ts'
import { type Environment, silentOf } from './services.ts'

/** What to run. */
export interface Trial {
  readonly files: readonly string[]
  /** Parts of full titles. */
  readonly titled: readonly string[]
  readonly seed: number
  /** Ends with the first failure. */
  readonly bail: boolean
  readonly withinMs: number
  /** Runs nothing: all count as passed. */
  readonly dry?: true
}

/** What came of it. */
export interface Verdict {
  /** Full titles. */
  readonly passed: readonly string[]
  /** In the order they failed. */
  readonly failed: readonly Failure[]
  /** Why the tests did not run to their end, if so. */
  readonly trouble: string | undefined
  readonly seconds: number
}

/** A test that failed. */
export interface Failure {
  readonly title: string
  readonly why: string
}

const TEST_MS = 30_000
/** It may be the machine, or a service that is gone, and no fault. */
const DOUBTFUL = /^Timeout of \d+ms exceeded|ECONNREFUSED|ECONNRESET|EPIPE|connection.*(?:closed|refused|terminated)/i

/**
 * What a mutant was seen by, looked at once more: where a service is silent, or the same tests fail without the fault, it is trouble.
 * @param without the same tests, without the fault; asked for only where the failure may have come of time or a connection
 */
export async function confirmed(seen: Verdict, without: () => Promise<Verdict>, env: Environment): Promise<Verdict> {
  if (seen.trouble !== undefined || seen.failed.length === 0) return seen
  const silent = await silentOf(env)
  if (silent) return { ...seen, trouble: `a service does not answer, so nothing was shown: ${silent}` }
  if (!seen.failed.some(({ why }) => DOUBTFUL.test(why))) return seen
  const { trouble, failed, seconds } = await without()
  const spent = { ...seen, seconds: seen.seconds + seconds }
  if (trouble !== undefined) return { ...spent, trouble: `without the fault: ${trouble}` }
  const [first] = failed
  return first ? { ...spent, trouble: `without the fault, too: ${first.title}: ${first.why}` } : spent
}

/** Trouble is no verdict, and may have come of a busy machine: then once more. */
export async function settled(run: () => Promise<Verdict>): Promise<Verdict> {
  const first = await run()
  if (first.trouble === undefined) return first
  const again = await run()
  return { ...again, seconds: first.seconds + again.seconds }
}

/** Runs it; never rejects for what the tests do. */
export async function tried(folder: string, trial: Trial): Promise<Verdict> {
  const began = performance.now()
  const child = start(folder, trial)
  const release = child.pid === undefined ? () => {} : guard({ pid: child.pid })
  const heard = new Heard(child)
  const late = setTimeout(() => child.kill('SIGKILL'), trial.withinMs)
  const code = await ended(child)
  clearTimeout(late)
  release()
  const { passed, failed } = heard
  return { passed, failed, trouble: heard.trouble(code), seconds: (performance.now() - began) / 1_000 }
}

function start(folder: string, { files, titled, seed, bail, dry }: Trial): ChildProcess {
  const settings = ['--import', 'tsx', '--import', './test/mutants/settings.ts']
  const how = ['--no-config', '--exit', '--timeout', `${TEST_MS}`, '--retries', '0', '--reporter', 'json-stream']
  const which = ['--grep', titled.map(escaped).join('|'), ...files]
  const args = [
    ...settings,
    join('node_modules', 'mocha', 'bin', 'mocha.js'),
    ...how,
    ...(bail ? ['--bail'] : []),
    ...(dry ? ['--dry-run'] : []),
    ...which,
  ]
  const env = { ...process.env, MUTANTS_SEED: `${seed}` }
  return spawn(process.execPath, args, { cwd: folder, env, stdio: ['ignore', 'pipe', 'pipe'] })
}

/** Listens to mocha's `json-stream` reporter: lines like `["pass", {...}]`, among whatever tests print. */
class Heard {
  readonly passed: string[] = []
  readonly failed: Failure[] = []
  #ended = false
  #said = ''

  constructor(child: ChildProcess) {
    createInterface({ input: child.stdout! }).on('line', (line) => this.#line(line))
    child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.#said = (this.#said + text).slice(-2_000)
    })
  }

  trouble(code: number | NodeJS.Signals): string | undefined {
    const hook = this.failed.find(({ title }) => / hook( |:|$)/.test(title))
    if (hook) return `what its tests need could not be set up: ${hook.title}: ${hook.why}`
    if (this.#ended || this.failed.length > 0) return undefined
    if (code === 'SIGKILL') return 'its tests did not end in time'
    return `its tests did not run (exit ${code}): ${this.#said.trim()}`
  }

  #line(line: string): void {
    if (!line.startsWith('["')) return
    const [what, about] = read(line)
    if (what === 'pass') this.passed.push(about.fullTitle)
    if (what === 'fail') this.failed.push({ title: about.fullTitle, why: whyOf(about) })
    if (what === 'end') this.#ended = true
  }
}

function read(line: string): readonly [string, { readonly fullTitle: string; readonly err: string }] {
  try {
    return JSON.parse(line)
  } catch {
    return ['', { fullTitle: '', err: '' }]
  }
}

/** In one line. A random test says first only that it failed. */
function whyOf({ err }: { readonly err: string }): string {
  const [, got = err] = /\nGot (?:error: )?([\s\S]*)/.exec(err) ?? []
  return got.replace(/\s+/g, ' ').slice(0, 200)
}

function ended(child: ChildProcess): Promise<number | NodeJS.Signals> {
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code, signal) => resolve(signal ?? code ?? 1))
  })
}

function escaped(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')
}
