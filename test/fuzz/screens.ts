// The command, over all that a run of the fuzzer left behind, and with addresses of services that do not do: what it prints is checked
// byte by byte, and how it ends. Of no address of RabbitMQ, Redis or Postgres may it show the password.

import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { guard } from '../support/guard.ts'
import { environmentOf, secretsOf, type Wrong, wrong } from './addresses.ts'
import type { OutboxWorld } from './outbox.ts'
import { OBEYED, offence } from './screen.ts'
import type { TransactionsWorld } from './transactions.ts'
import type { World } from './world.ts'

const COMMANDS = fileURLToPath(new URL('./commands.ts', import.meta.url))
const WIDTH = 100
const END = /\0end (\d+)\n/
const TABLES: ReadonlySet<string> = new Set(['list', 'groups', 'status'])
/** Letters of each queue, rows of each state and transactions that are shown one by one. */
const SHOWN = 12
/** Of those letters: with something in a header that a terminal would obey, which is in few. */
const NASTY_SHARE = 2 / 3
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
const misused = (...args: readonly string[]): Run => ({ args, codes: [2] })
const unreachable = (...args: readonly string[]): Run => ({ args, codes: [3] })
/** The doctor is there to tell it. */
const diagnosed = (...args: readonly string[]): Run => ({ args, codes: [1] })

/** What was wrong, and how many commands ran. */
export interface Shown {
  readonly offences: readonly string[]
  readonly commands: number
}

/** Runs list, groups and export over every queue, and shows so many of its letters. */
export async function screens(world: World, shown = SHOWN): Promise<Shown> {
  const runs: Run[] = []
  for (const queue of world.queues) runs.push(...(await letterRuns(world, queue, shown)))
  // Beside each other: that nobody listens is known of a broker after 10 s.
  const [letters, addresses] = await Promise.all([checked(runs), checked(addressRuns())])
  return { offences: [...letters.offences, ...addresses.offences], commands: letters.commands + addresses.commands }
}

/** Runs list, status, show and what would be done over all rows of an outbox, and list, show and what would be done over all parked transactions. */
export async function moreScreens(outbox: OutboxWorld, transactions: TransactionsWorld, shown = SHOWN): Promise<Shown> {
  return checked([
    ...(await rowRuns(outbox, shown)),
    ...addressed(wrong('DATABASE_URL', process.env), 'outbox', 'list', '--database'),
    ...(await transactionRuns(transactions, shown)),
    // All of them: the oldest, a page of a person, may be such that there is nothing to ask a decision store about.
    ...addressed(wrong('DATABASE_URL', process.env), 'transactions', 'list', transactions.name, ...ALL, '--database'),
    ...addressed(wrong('REDIS_URL', process.env), 'transactions', 'list', transactions.name, ...ALL, '--redis'),
  ])
}

/** Every service at addresses that do not do. */
function addressRuns(): Run[] {
  const [amqp, redis, postgres] = [
    wrong('AMQP_URL', process.env),
    wrong('REDIS_URL', process.env),
    wrong('DATABASE_URL', process.env),
  ]
  const runs = addressed(amqp, 'dead', 'list', 'missing', '--verbose', '--amqp')
  for (const args of [['--redis'], ['--json', '--redis']]) runs.push(...examined(redis, ...args))
  for (const args of [['--database'], ['--json', '--database']])
    runs.push(...examined(postgres, '--inbox', 'x', ...args))
  return runs
}

function addressed({ nowhere, unreadable, refused }: Wrong, ...args: readonly string[]): Run[] {
  return [unreachable(...args, nowhere), misused(...args, unreadable), unreachable(...args, refused)]
}

function examined({ nowhere, unreadable, refused }: Wrong, ...args: readonly string[]): Run[] {
  const doctor = ['doctor', ...args]
  return [diagnosed(...doctor, nowhere), misused(...doctor, unreadable), diagnosed(...doctor, refused)]
}

async function checked(runs: readonly Run[]): Promise<Shown> {
  const env = environmentOf(process.env)
  const secrets = secretsOf(env)
  const ended = await run(runs, env)
  const offences = ended.flatMap((one) => {
    const { args, stdout, code, codes } = one
    const json = args.includes('--json') || args[1] === 'export'
    const bytes = offence({ stdout, json, secrets, ...(TABLES.has(String(args[1])) ? { width: WIDTH } : {}) })
    const why = bytes ?? (codes.includes(code) ? undefined : `exit code ${code}: ${stdout.toString().slice(0, 300)}`)
    return why ? [`surehop ${args.join(' ').slice(0, 200)}: ${why}`] : []
  })
  return { offences, commands: ended.length }
}

async function letterRuns({ surehop }: World, queue: string, shown: number): Promise<Run[]> {
  const plain = new Set<string>()
  const nasty = new Set<string>()
  for await (const line of surehop.deadLetters(queue).exportTo({}, { archive: true })) {
    const { id, headers } = JSON.parse(line) as { readonly id: string; readonly headers: object }
    const shownOnes = Object.entries(headers).filter(([name]) => !name.startsWith('surehop-'))
    const isNasty = shownOnes.some(([, value]) => typeof value === 'string' && OBEYED.test(value))
    ;(isNasty ? nasty : plain).add(id)
  }
  const ids = [...spread([...nasty], Math.ceil(shown * NASTY_SHARE)), ...spread([...plain], shown)].slice(0, shown)
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
      fine('dead', 'show', '--archive', '--', queue, id),
      fine('dead', 'show', '--archive', '--json', '--', queue, id),
    ]),
  ]
}

/** So many of them at most, evenly from the first to the last. */
function spread<T>(all: readonly T[], most: number): readonly T[] {
  if (all.length <= most) return all
  const step = (all.length - 1) / Math.max(1, most - 1)
  return Array.from({ length: most }, (_, i) => all[Math.round(i * step)]!)
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
async function run(runs: readonly Run[], services: NodeJS.ProcessEnv): Promise<Ended[]> {
  const env = { ...services, FORCE_COLOR: '1', COLUMNS: String(WIDTH) }
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
