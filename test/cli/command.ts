// Runs the command `surehop` as a process of its own, as a person's shell or a pipe would.

import { type ChildProcess, spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { guard } from '../support/guard.ts'

const CLI = fileURLToPath(new URL('../../bin/cli.ts', import.meta.url))
const TSX = import.meta.resolve('tsx')

export interface Ran {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

export interface RunOptions {
  readonly env?: Readonly<Record<string, string | undefined>>
  /** `open`: not ended here. */
  readonly stdin?: string
  /** Called with the process as soon as it has started. */
  readonly onStart?: (child: ChildProcess) => void
}

export async function surehop(args: readonly string[], options: RunOptions = {}): Promise<Ran> {
  const { NO_COLOR: _n, FORCE_COLOR: _f, COLUMNS: _c, ...inherited } = process.env
  const env = { ...inherited, ...options.env }
  const child = spawn(process.execPath, ['--import', TSX, CLI, ...args], { env })
  const release = guard({ pid: child.pid! })
  let [stdout, stderr] = ['', '']
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text))
  options.onStart?.(child)
  if (options.stdin !== 'open') child.stdin.end(options.stdin ?? '')
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve))
  release()
  return { code, stdout, stderr }
}

/** Makes the command believe that it talks to a terminal. */
const script = (text: string) => `--import "data:text/javascript,${encodeURIComponent(text)}"`
const SCREEN = 'process.stderr.isTTY = true'
const PERSON = `${SCREEN}; process.stdin.isTTY = true; process.stdin.setRawMode = () => process.stdin`

/** Where a terminal shows what goes on; nobody can be asked. */
export const ON_SCREEN = { NODE_OPTIONS: script(SCREEN) }

/** A person who says yes when asked, but first something happens. */
export async function answeredLate(
  args: readonly string[],
  meanwhile: () => Promise<unknown>,
  env: RunOptions['env'] = {},
): Promise<Ran> {
  const onStart = (child: ChildProcess) => {
    let told = ''
    child.stderr!.on('data', (text: string) => {
      const asked = !told.includes('?')
      told += text
      if (asked && told.includes('?')) void meanwhile().finally(() => child.stdin!.end('y'))
    })
  }
  return surehop(args, { stdin: 'open', onStart, env: { NODE_OPTIONS: script(PERSON), ...env } })
}

/** The lines of NDJSON. */
export function lines(text: string): Record<string, unknown>[] {
  return text
    .trim()
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Record<string, unknown>)
}
