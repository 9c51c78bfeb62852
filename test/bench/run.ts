/**
 * `npm run bench`: Surehop beside hand-written loops on the same libraries, and peers, in one run, on private services.
 *
 * Every run is a fresh process of built JavaScript with a queue of its own. The contestants of a contest take turns
 * (A B C, B C A, ...), so that whatever else the machine does hits all of them; the table gives medians with the range, and the
 * ratios are medians of what contestants of one turn made of each other. CPU is the client's: user and system time of the
 * process, per message.
 */
import { fork } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { parseArgs } from 'node:util'
import { build } from './build.ts'
import type { Contest } from './contest.ts'
import { contests, contestsOf, preparationOf } from './contestants.ts'
import type { Job, Measured } from './job.ts'
import { machine, versions } from './machine.ts'
import { Tables } from './outbox-tables.ts'
import { Queues } from './queues.ts'
import { type ContestResult, figuresOf, report } from './report.ts'

const { values: flags } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    json: { type: 'string' },
    only: { type: 'string', multiple: true },
    turns: { type: 'string' },
    messages: { type: 'string' },
    profile: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
})

const HELP = `npm run bench -- [--quick] [--json FILE] [--only ${groups().join('|')}]... [--turns N] [--messages N]
                 [--profile FOLDER: a .cpuprofile of each run]`

const turns = Number(flags.turns ?? (flags.quick ? 2 : 5))
const messages = Number(flags.messages ?? (flags.quick ? 10_000 : 60_000))
const setting = {
  warmup: messages / 2,
  messages,
  bodyBytes: 1_024,
  inFlight: 500,
  prefetch: 200,
  concurrency: 100,
  keys: 0,
  connections: 1,
}

interface Services {
  readonly amqpUrl: string
  readonly redisUrl: string
  readonly databaseUrl: string
  readonly queues: Queues
  readonly tables: Tables
  readonly child: string
}

async function main(): Promise<void> {
  const { AMQP_URL: amqpUrl, REDIS_URL: redisUrl, DATABASE_URL: databaseUrl } = process.env
  if (!amqpUrl || !redisUrl || !databaseUrl)
    throw new Error('expected AMQP_URL, REDIS_URL and DATABASE_URL in the environment: use `npm run bench`')
  const wanted = Object.assign({}, ...(flags.only ?? Object.keys(contests)).map(contestsOf)) as typeof contests
  using built = build()
  await using queues = await Queues.open(amqpUrl)
  await using tables = new Tables(databaseUrl)
  const services = { amqpUrl, redisUrl, databaseUrl, queues, tables, child: built.child }
  const results: Record<string, ContestResult> = {}
  for (const [name, contest] of Object.entries(wanted)) {
    const { title, columns, note } = contest
    results[name] = { title, columns, ...(note ? { note } : {}), runs: await runContest(name, contest, services) }
  }
  const about = {
    at: new Date().toISOString(),
    turns,
    ...setting,
    machine: machine(),
    versions: await versions(queues, tables),
  }
  console.log(report(results, about))
  if (flags.json) await writeFile(flags.json, `${JSON.stringify({ about, results }, undefined, 2)}\n`)
}

async function runContest(contest: string, of: Contest, services: Services) {
  const names = Object.keys(of.contestants)
  const runs: Record<string, Measured[]> = Object.fromEntries(names.map((name) => [name, []]))
  for (let turn = 0; turn < turns; turn++) {
    for (let i = 0; i < names.length; i++) {
      const contestant = names[(turn + i) % names.length]!
      const measured = await runOnce(contest, contestant, of, services)
      runs[contestant]!.push(measured)
      console.error(`turn ${turn + 1}/${turns}  ${contestant.padEnd(46)} ${figuresOf(measured, of.columns)}`)
    }
  }
  return runs
}

async function runOnce(contest: string, contestant: string, of: Contest, services: Services): Promise<Measured> {
  const { queues, tables, child, ...urls } = services
  const measured = Math.ceil(of.messages?.(messages) ?? messages)
  const sizes = { ...setting, messages: measured, warmup: Math.ceil(measured / 2), ...of.setting }
  const queue = await queues.fresh(of.full ? sizes.warmup + sizes.messages + sizes.prefetch : 0, sizes.bodyBytes)
  const job = { ...urls, ...sizes, contest, contestant, queue, schema: tables.fresh() }
  try {
    await preparationOf(of.contestants[contestant]!)(job)
    await tables.settle()
    return await inChild(child, job)
  } finally {
    await queues.drop(queue)
    await tables.drop(job.schema)
  }
}

function inChild(child: string, job: Job): Promise<Measured> {
  const execArgv = flags.profile
    ? ['--cpu-prof', `--cpu-prof-dir=${flags.profile}/${job.contest}/${job.contestant}`]
    : []
  const running = fork(child, [JSON.stringify(job)], { execArgv, stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
  return new Promise((resolve, reject) => {
    let measured: Measured | undefined
    running.once('message', (message) => {
      measured = message as Measured
    })
    running.once('error', reject)
    running.once('exit', (code) => {
      if (measured && code === 0) resolve(measured)
      else reject(new Error(`the run of "${job.contestant}" ended with exit code ${code}`))
    })
  })
}

/** A contest of a group is named after it. */
function groups(): string[] {
  return [...new Set(Object.keys(contests).map((name) => name.replace(/-.*/, '')))]
}

if (flags.help) console.log(HELP)
else await main()
