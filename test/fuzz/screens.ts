// The command, over all that a run of the fuzzer left behind: what it prints is checked byte by byte, and how it ends.

import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { guard } from '../support/guard.ts'
import type { OutboxWorld } from './outbox.ts'
import { offence, PASSWORD } from './screen.ts'
import type { TransactionsWorld } from './transactions.ts'
import type { World } from './world.ts'

const COMMANDS = fileURLToPath(new URL('./commands.ts', import.meta.url))
const WIDTH = 100
const END = /\0end (\d+)\n/
const TABLES: ReadonlySet<string> = new Set(['list', 'groups', 'status'])
/** Letters of each queue, rows and transactions that are shown one by one. */
const SHOWN = 3
const ALL = ['--limit', '999999']

/** One run of the command, and the exit codes it may end with. */
interface Run {
  readonly args: readonly string[]
  readonly codes: readonly number[]
}

interface Ended extends Run {
  readonly stdout: Buffer
  readonly code: number
}

const fine = (...args: readonly string[]): Run => ({ args, codes: [0] })
/** A person is told that somebody should look, or that there is no such thing. */
const partly = (...args: readonly string[]): Run => ({ args, codes: [0, 1, 2] })
const unreachable = (...args: readonly string[]): Run => ({ args, codes: [2, 3] })

/** Runs list, groups, show and export over every queue. @returns what was wrong, and how many commands ran */
export async function screens(world: World, shown = SHOWN): Promise<{ offences: string[]; commands: number }> {
  const runs: Run[] = []
  for (const queue of world.queues) runs.push(...(await letterRuns(world, queue, shown)))
  runs.push(unreachable('dead', 'list', 'missing', '--amqp', `amqp://guest:${PASSWORD}@127.0.0.1:1`))
  runs.push(unreachable('dead', 'list', 'missing', '--amqp', `amqp://guest:${PASSWORD}/x@127.0.0.1:1`))
  return checked(runs)
}

/** Runs list, status, show and what would be done over all rows of an outbox, and list, show and what would be done over all parked transactions. */
export async function moreScreens(outbox: OutboxWorld, transactions: TransactionsWorld, shown = SHOWN) {
  const nowhere = `postgres://fuzz:${PASSWORD}@127.0.0.1:1/x`
  return checked([
    ...(await rowRuns(outbox, shown)),
    unreachable('outbox', 'list', '--database', nowhere),
    ...(await transactionRuns(transactions, shown)),
    unreachable('transactions', 'list', transactions.name, '--database', nowhere),
  ])
}

async function checked(runs: readonly Run[]): Promise<{ offences: string[]; commands: number }> {
  const ended = await run(runs)
  const offences = ended.flatMap((one) => {
    const { args, stdout, code, codes } = one
    const json = args.includes('--json') || args[1] === 'export'
    const bytes = offence({ stdout, json, ...(TABLES.has(String(args[1])) ? { width: WIDTH } : {}) })
    const why = bytes ?? (codes.includes(code) ? undefined : `exit code ${code}: ${stdout.toString().slice(0, 300)}`)
    return why ? [`surehop ${args.join(' ').slice(0, 200)}: ${why}`] : []
  })
  return { offences, commands: ended.length }
}

async function letterRuns({ surehop }: World, queue: string, shown: number): Promise<Run[]> {
  const ids: string[] = []
  for await (const { id } of surehop.deadLetters(queue).list({ limit: shown }, { archive: true })) ids.push(id)
  const archived = ['--archive', ...ALL]
  return [
    fine('dead', 'list', queue),
    fine('dead', 'groups', queue),
    fine('dead', 'list', queue, ...archived),
    fine('dead', 'list', queue, ...archived, '--json'),
    fine('dead', 'groups', queue, '--json'),
    fine('dead', 'export', queue, '--archive'),
    fine('dead', 'export', queue),
    ...ids.flatMap((id) => [
      fine('dead', 'show', queue, id, '--archive'),
      fine('dead', 'show', queue, id, '--archive', '--json'),
    ]),
  ]
}

async function rowRuns({ desk, schema }: OutboxWorld, shown: number): Promise<Run[]> {
  const runs: Run[] = []
  const of = ['--schema', schema]
  for (const state of ['ready', 'held', 'parked', 'sent'] as const) {
    runs.push(fine('outbox', 'list', '--state', state, ...of), fine('outbox', 'list', '--state', state, ...ALL, ...of))
    runs.push(fine('outbox', 'list', '--state', state, '--json', ...of))
    for (const verb of ['retry', 'park', 'drop']) runs.push(fine('outbox', verb, '--state', state, '--dry-run', ...of))
    for await (const { position, messageId } of desk.list({ state, limit: shown })) {
      runs.push(fine('outbox', 'show', '--position', position, ...of))
      runs.push(fine('outbox', 'show', '--position', position, '--json', ...of))
      runs.push(partly('outbox', 'show', ...of, '--', messageId))
      runs.push(partly('outbox', 'retry', '--dry-run', '--json', ...of, '--', messageId))
    }
  }
  return [...runs, partly('outbox', 'status', ...of), partly('outbox', 'status', '--json', ...of)]
}

async function transactionRuns({ desk, name, prefix }: TransactionsWorld, shown: number): Promise<Run[]> {
  const decisions = ['--decisions', 'redis', '--prefix', prefix]
  const runs = [
    fine('transactions', 'list', name, ...ALL),
    fine('transactions', 'list', name, ...decisions),
    fine('transactions', 'list', name, '--json'),
    ...['commit', 'rollback', 'check'].map((verb) => partly('transactions', verb, name, '--all', '--dry-run')),
    partly('transactions', 'check', name, '--all', '--dry-run', '--json'),
  ]
  const kinds = { read: 0, unreadable: 0 }
  for await (const { transactionId, unreadable } of desk.list()) {
    if (kinds[unreadable === undefined ? 'read' : 'unreadable']++ >= shown) continue
    const one = unreadable === undefined ? fine : partly
    runs.push(one('transactions', 'show', '--body', ...decisions, '--', name, transactionId))
    runs.push(one('transactions', 'show', '--body', '--json', '--', name, transactionId))
  }
  return runs
}

/** One process for all of them; stdout and stderr together, as on a terminal. */
async function run(runs: readonly Run[]): Promise<Ended[]> {
  const env = { ...process.env, FORCE_COLOR: '1', COLUMNS: String(WIDTH) }
  const child = spawn(process.execPath, ['--import', 'tsx', COMMANDS], { env, stdio: ['pipe', 'pipe', 'pipe'] })
  const release = guard({ pid: child.pid! })
  const pieces: Buffer[] = []
  const notes: Buffer[] = []
  child.stdout.on('data', (piece: Buffer) => pieces.push(piece))
  child.stderr.on('data', (piece: Buffer) => notes.push(piece))
  child.stdin.end(runs.map(({ args }) => `${JSON.stringify(args)}\n`).join(''))
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve))
  release()
  const parts = Buffer.concat(pieces).toString('latin1').split(END)
  const said = Buffer.concat(notes)
  const results = runs.flatMap((one, i) => {
    const [stdout, end] = [parts[2 * i], parts[2 * i + 1]]
    if (stdout === undefined || end === undefined) return []
    return [{ ...one, stdout: Buffer.from(stdout, 'latin1'), code: Number(end) }]
  })
  if (results.length < runs.length)
    throw new Error(
      `the command ended (${code}) at "${runs[results.length]?.args.join(' ')}": ${said.toString().slice(-2_000)}`,
    )
  return [...results, { ...fine('(stderr)'), stdout: said, code: 0 }]
}
