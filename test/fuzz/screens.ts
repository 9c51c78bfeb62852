// The command, over all the letters a run of the fuzzer left behind: what it prints is checked byte by byte.

import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { guard } from '../support/guard.ts'
import { offence, PASSWORD } from './screen.ts'
import type { World } from './world.ts'

const COMMANDS = fileURLToPath(new URL('./commands.ts', import.meta.url))
const WIDTH = 100
const END = /\0end (\d+)\n/
const TABLES: ReadonlySet<string> = new Set(['list', 'groups'])
/** Letters of each queue that are shown one by one. */
const SHOWN = 3

/** Runs list, groups, show and export over every queue. @returns what was wrong, and how many commands ran */
export async function screens(world: World, shown = SHOWN): Promise<{ offences: string[]; commands: number }> {
  const commands: string[][] = []
  for (const queue of world.queues) commands.push(...(await commandsFor(world, queue, shown)))
  commands.push(['dead', 'list', 'missing', '--amqp', `amqp://guest:${PASSWORD}@127.0.0.1:1`])
  commands.push(['dead', 'list', 'missing', '--amqp', `amqp://guest:${PASSWORD}/x@127.0.0.1:1`])
  const printed = await run(commands)
  const offences = printed.flatMap(({ stdout, args }) => {
    const json = args.includes('--json') || args[1] === 'export'
    const why = offence({ stdout, json, ...(TABLES.has(String(args[1])) ? { width: WIDTH } : {}) })
    return why ? [`surehop ${args.join(' ').slice(0, 200)}: ${why}`] : []
  })
  return { offences, commands: printed.length }
}

async function commandsFor({ surehop }: World, queue: string, shown: number): Promise<string[][]> {
  const ids: string[] = []
  for await (const { id } of surehop.deadLetters(queue).list({ limit: shown }, { archive: true })) ids.push(id)
  const archived = ['--archive', '--limit', '999999']
  return [
    ['dead', 'list', queue],
    ['dead', 'groups', queue],
    ['dead', 'list', queue, ...archived],
    ['dead', 'list', queue, ...archived, '--json'],
    ['dead', 'groups', queue, '--json'],
    ['dead', 'export', queue, '--archive'],
    ['dead', 'export', queue],
    ...ids.flatMap((id) => [
      ['dead', 'show', queue, id, '--archive'],
      ['dead', 'show', queue, id, '--archive', '--json'],
    ]),
  ]
}

/** One process for all of them; stdout and stderr together, as on a terminal. */
async function run(commands: readonly string[][]): Promise<{ args: string[]; stdout: Buffer }[]> {
  const env = { ...process.env, FORCE_COLOR: '1', COLUMNS: String(WIDTH) }
  const child = spawn(process.execPath, ['--import', 'tsx', COMMANDS], { env, stdio: ['pipe', 'pipe', 'pipe'] })
  const release = guard({ pid: child.pid! })
  const pieces: Buffer[] = []
  const notes: Buffer[] = []
  child.stdout.on('data', (piece: Buffer) => pieces.push(piece))
  child.stderr.on('data', (piece: Buffer) => notes.push(piece))
  child.stdin.end(commands.map((args) => `${JSON.stringify(args)}\n`).join(''))
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve))
  release()
  const parts = Buffer.concat(pieces).toString('latin1').split(END)
  const said = Buffer.concat(notes)
  const results = commands.flatMap((args, i) => {
    const [stdout, end] = [parts[2 * i], parts[2 * i + 1]]
    return stdout === undefined || end === undefined ? [] : [{ args, stdout: Buffer.from(stdout, 'latin1') }]
  })
  if (results.length < commands.length)
    throw new Error(
      `the command ended (${code}) at "${commands[results.length]?.join(' ')}": ${said.toString().slice(-2_000)}`,
    )
  return [...results, { args: ['(stderr)'], stdout: said }]
}
