/**
 * Lets the contestants of one contest run: each run a process of its own, on a queue, a schema and keys of its own that are gone
 * afterwards; turn by turn, in an order that is drawn anew for each, so that nobody always comes after the same one.
 */
import { fork } from 'node:child_process'
import { commitOf } from '../support/commit.ts'
import type { Contest, Size } from './contest.ts'
import { preparationOf } from './contestants.ts'
import type { Job, Measured } from './job.ts'
import { load } from './machine.ts'
import type { Tables } from './outbox-tables.ts'
import type { Queues } from './queues.ts'
import type { RedisKeys } from './redis-keys.ts'
import { type ContestResult, figuresOf } from './report.ts'

/** What all runs share. */
export interface Services {
  readonly amqpUrl: string
  readonly redisUrl: string
  readonly databaseUrl: string
  readonly queues: Queues
  readonly tables: Tables
  readonly redis: RedisKeys
  /** The built program of a run. */
  readonly child: string
}

/** How large everything is. */
export interface Scale {
  readonly quick: boolean
  readonly turns: number
  /** Messages measured, at most; undefined: as each contest has it. */
  readonly messages: number | undefined
  /** Of contests that say nothing of their own. */
  readonly size: Size
  readonly setting: Pick<Job, 'bodyBytes' | 'inFlight' | 'prefetch' | 'concurrency' | 'keys' | 'connections'>
  /** Folder for a CPU profile of each run. */
  readonly profile: string | undefined
}

/** No run takes longer on a machine that can do it at all; a contestant that hangs must not hang the benchmark. */
const RUN_LIMIT_MS = 20 * 60_000

type Sizes = Pick<Job, 'messages' | 'warmup'>

export async function runContest(
  name: string,
  contest: Contest,
  scale: Scale,
  services: Services,
): Promise<ContestResult> {
  const began = performance.now()
  const before = { load: load(), at: new Date().toISOString(), commit: commitOf() }
  const names = Object.keys(contest.contestants)
  const turns = Math.min(scale.turns, contest.turns ?? scale.turns)
  const order = Array.from({ length: turns }, () => shuffled(names))
  const runs: Record<string, Measured[]> = Object.fromEntries(names.map((contestant) => [contestant, []]))
  const sizes = sizesOf(contest, scale)
  for (const [turn, contestants] of order.entries())
    for (const contestant of contestants) {
      const measured = await runOnce(name, contestant, contest, sizes, scale, services)
      runs[contestant]!.push(measured)
      console.error(`${name} ${turn + 1}/${turns}  ${contestant.padEnd(42)} ${figuresOf(measured, contest.columns)}`)
    }
  const seconds = (performance.now() - began) / 1_000
  const { title, columns, note } = contest
  return { title, columns, ...(note ? { note } : {}), runs, order, ...sizes, seconds, ...before }
}

function sizesOf({ size, warmup }: Contest, { quick, messages: most, size: usual }: Scale): Sizes {
  const chosen = (of: Size) => (quick ? of.quick : of.full)
  const messages = size ? Math.min(chosen(size), most ?? Number.POSITIVE_INFINITY) : (most ?? chosen(usual))
  const half = Math.ceil(messages / 2)
  return { messages, warmup: warmup ? Math.min(chosen(warmup), half) : half }
}

/** Fisher and Yates. */
function shuffled(names: readonly string[]): string[] {
  const order = [...names]
  for (let last = order.length - 1; last > 0; last--) {
    const other = Math.floor(Math.random() * (last + 1))
    const [a, b] = [order[last]!, order[other]!]
    order[last] = b
    order[other] = a
  }
  return order
}

async function runOnce(
  contest: string,
  contestant: string,
  of: Contest,
  sizes: Sizes,
  { setting, profile }: Scale,
  { queues, tables, redis, child, ...urls }: Services,
): Promise<Measured> {
  const all = { ...setting, ...sizes, ...of.setting }
  const queue = await queues.fresh(of.full ? all.warmup + all.messages + all.prefetch : 0, all.bodyBytes)
  const job = { ...urls, ...all, contest, contestant, queue, schema: tables.fresh() }
  try {
    await preparationOf(of.contestants[contestant]!)(job)
    await tables.settle()
    return await inChild(child, job, profile)
  } finally {
    await queues.drop(queue)
    await tables.drop(job.schema)
    await redis.drop(queue)
  }
}

function inChild(child: string, job: Job, profile: string | undefined): Promise<Measured> {
  const execArgv = profile ? ['--cpu-prof', `--cpu-prof-dir=${profile}/${job.contest}/${job.contestant}`] : []
  const running = fork(child, [JSON.stringify(job)], { execArgv, stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
  const limit = setTimeout(() => running.kill('SIGKILL'), RUN_LIMIT_MS)
  return new Promise((resolve, reject) => {
    let measured: Measured | undefined
    running.once('message', (message) => {
      measured = message as Measured
    })
    running.once('error', reject)
    running.once('exit', (code, signal) => {
      clearTimeout(limit)
      if (measured && code === 0) resolve(measured)
      else reject(new Error(`the run of "${job.contestant}" ended with ${signal ?? `exit code ${code}`}`))
    })
  })
}
