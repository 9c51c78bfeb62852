/** The operator's side: dead letters through the real command, `surehop dead ...`, as a process of its own. */
import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import type { Letter } from './books.ts'

const EXIT = { done: 0, partly: 1 } as const
const COMMAND = fileURLToPath(new URL('../../bin/cli.ts', import.meta.url))

/** What a command printed, results and remarks, and whether it did all it was to do. @throws Error with it, when the command fails */
export async function surehop(args: readonly string[], columns: number): Promise<Pick<Printed, 'all' | 'done'>> {
  return run(args, { COLUMNS: String(columns) }, [EXIT.done, EXIT.partly])
}

/** All dead letters of a queue. */
export async function lettersOf(queue: string): Promise<readonly Letter[]> {
  const lines = (await run(['dead', 'list', queue, '--json'])).out.split('\n').filter((line) => line !== '')
  return lines.map((line) => JSON.parse(line) as Letter)
}

interface Printed {
  /** On standard output. */
  readonly out: string
  /** On standard error as well, as it came. */
  readonly all: string
  readonly done: boolean
}

async function run(
  args: readonly string[],
  settings: Readonly<Record<string, string>> = {},
  welcome: readonly number[] = [EXIT.done],
): Promise<Printed> {
  const child = spawn(process.execPath, ['--import', 'tsx', COMMAND, ...args], {
    env: { ...process.env, ...settings },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let out = ''
  let all = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    out += text
    all += text
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    all += text
  })
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject).once('close', resolve)
  })
  if (!welcome.includes(code ?? -1)) throw new Error(`surehop ${args.join(' ')} ended with exit code ${code}:\n${all}`)
  return { out, all, done: code === EXIT.done }
}
