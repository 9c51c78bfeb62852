/** The operator's side: dead letters through the real command, `surehop dead ...`, as a process of its own. */
import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import type { Letter } from './books.ts'

const COMMAND = fileURLToPath(new URL('../../bin/cli.ts', import.meta.url))

/** What a command printed on standard output. @throws Error with what it printed, when it fails */
export async function surehop(args: readonly string[], columns?: number): Promise<string> {
  const env = { ...process.env, ...(columns === undefined ? {} : { COLUMNS: String(columns) }) }
  const child = spawn(process.execPath, ['--import', 'tsx', COMMAND, ...args], {
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let out = ''
  let err = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (err += text))
  const code = await new Promise<number | null>((resolve, reject) => child.once('error', reject).once('close', resolve))
  if (code !== 0) throw new Error(`surehop ${args.join(' ')} ended with exit code ${code}:\n${err}${out}`)
  return out
}

/** All dead letters of a queue. */
export async function lettersOf(queue: string): Promise<readonly Letter[]> {
  const lines = (await surehop(['dead', 'list', queue, '--json'])).split('\n').filter((line) => line !== '')
  return lines.map((line) => JSON.parse(line) as Letter)
}
