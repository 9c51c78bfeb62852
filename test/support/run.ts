// Runs one command with the services it asked for; the second half of `first-run.mjs`.
//
//   starting -> running -> stopping -> gone
//
// Promises: the command finds AMQP_URL, REDIS_URL and DATABASE_URL in its environment, as asked for; it gets the signals this
// process gets; its exit code is ours; whatever was started here is gone afterwards, also after a signal, a failed start, or kill -9 of this process.

import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { constants } from 'node:os'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { guard } from './guard.ts'
import { PROGRAMS as POSTGRES_PROGRAMS, programsHere } from './postgres-programs.ts'
import { NODE_FILE, type Services, startServices } from './services.ts'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))
const PROGRAMS = join(ROOT, 'node_modules', '.bin')
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
const FAILED = 1
/** A command that is only asked what it can do needs no services. */
const QUESTIONS = ['--help', '-h', '--list']

// How long a command may take to end after a signal before it is killed.
const GRACE_MS = 15_000

interface Task {
  readonly rabbitmq: boolean
  readonly redis: boolean
  readonly postgres: boolean
  readonly command: readonly string[]
}

function parse(args: readonly string[]): Task {
  const first = args.findIndex((arg) => !arg.startsWith('--'))
  const flags = args.slice(0, first)
  const asksOnly = args.slice(first).some((arg) => QUESTIONS.includes(arg))
  const wants = (flag: string) => !asksOnly && (flags.includes('--services') || flags.includes(flag))
  const unknown = flags.find((flag) => !['--services', '--rabbitmq', '--redis', '--postgres'].includes(flag))
  if (first < 0 || unknown) {
    throw new Error('usage: first-run.mjs [--services | --rabbitmq | --redis | --postgres] command [argument...]')
  }
  const [rabbitmq, redis, postgres] = [wants('--rabbitmq'), wants('--redis'), wants('--postgres')]
  return { rabbitmq, redis, postgres, command: args.slice(first) }
}

async function main(): Promise<number> {
  const task = parse(process.argv.slice(2))
  const interrupted = nextSignal()
  if (task.rabbitmq || task.redis || task.postgres) console.error('Starting private services, a few seconds...')
  const starting = startServices(task)
  const services = await Promise.race([starting, interrupted])
  if (typeof services === 'string') return endedBy(services)
  try {
    return await runCommand(task, await environment(task, services))
  } finally {
    await services.stop()
  }
}

/** The first signal, if one comes; from the first call on, signals no longer end this process by themselves. */
function nextSignal(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    for (const signal of SIGNALS) process.on(signal, () => resolve(signal))
  })
}

async function environment({ rabbitmq, redis, postgres }: Task, services: Services): Promise<NodeJS.ProcessEnv> {
  const env: NodeJS.ProcessEnv = { ...process.env, PATH: `${PROGRAMS}${delimiter}${process.env['PATH']}` }
  if (redis) env['REDIS_URL'] = services.redisUrl
  if (rabbitmq) env['AMQP_URL'] = services.amqpUrl
  if (rabbitmq && services.rabbitmq.nodeFile) env[NODE_FILE] = services.rabbitmq.nodeFile
  if (!postgres) return env
  env['DATABASE_URL'] = services.databaseUrl
  if (services.postgres.controllable) env[POSTGRES_PROGRAMS] = (await programsHere())?.bin
  return env
}

async function runCommand({ command }: Task, env: NodeJS.ProcessEnv): Promise<number> {
  const [program, ...args] = resolve(command)
  const child = spawn(program as string, args, { env, stdio: 'inherit' })
  const ended = new Promise<number>((resolve, reject) => {
    child.once('error', reject)
    child.once('exit', (code, signal) => resolve(signal ? endedBy(signal) : (code ?? FAILED)))
  })
  if (child.pid === undefined) return ended
  const release = guard({ pid: child.pid })
  passSignalsTo(child)
  return ended.finally(release)
}

function resolve([name = '', ...args]: readonly string[]): readonly string[] {
  if (/\.(ts|mts|mjs|js)$/.test(name)) return [process.execPath, '--import', 'tsx', name, ...args]
  const own = join(PROGRAMS, name)
  return [existsSync(own) ? own : name, ...args]
}

function passSignalsTo(child: ChildProcess): void {
  for (const signal of SIGNALS) {
    process.on(signal, () => {
      // A terminal sends Ctrl-C to the whole foreground group: the command has it already, and twice means "at once".
      if (signal !== 'SIGINT' || !process.stdin.isTTY) child.kill(signal)
      setTimeout(() => child.kill('SIGKILL'), GRACE_MS).unref()
    })
  }
}

function endedBy(signal: NodeJS.Signals): number {
  return 128 + constants.signals[signal]
}

main().then(
  // Not `exitCode`: a start that was interrupted may still be on its way, and ends with this process.
  (code) => process.exit(code),
  (error: unknown) => {
    console.error(error instanceof Error ? error.message : error)
    process.exit(FAILED)
  },
)
