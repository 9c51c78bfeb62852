/**
 * `npm run bench`: Surehop beside hand-written loops on the same libraries, in one run, on private services.
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
import { type Contest, contests } from './contestants.ts'
import type { Job, Measured } from './job.ts'
import { machine, versions } from './machine.ts'
import { Queues } from './queues.ts'
import { type ContestResult, report } from './report.ts'

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

const HELP = `npm run bench -- [--quick] [--json FILE] [--only ${Object.keys(contests).join('|')}]... [--turns N] [--messages N]
                 [--profile FOLDER: a .cpuprofile of each run]`

const turns = Number(flags.turns ?? (flags.quick ? 2 : 5))
const messages = Number(flags.messages ?? (flags.quick ? 10_000 : 60_000))
const setting = { warmup: messages / 2, messages, bodyBytes: 1_024, inFlight: 500, prefetch: 200, concurrency: 100 }

async function main(): Promise<void> {
  const { AMQP_URL: amqpUrl, REDIS_URL: redisUrl } = process.env
  if (!amqpUrl || !redisUrl) throw new Error('expected AMQP_URL and REDIS_URL in the environment: use `npm run bench`')
  const wanted = flags.only ?? Object.keys(contests)
  using built = build()
  await using queues = await Queues.open(amqpUrl)
  const results: Record<string, ContestResult> = {}
  for (const name of wanted) {
    const contest = contests[name]
    if (!contest) throw new Error(`unknown contest "${name}"\n${HELP}`)
    results[name] = { title: contest.title, runs: await runContest(contest, built.child, queues, amqpUrl, redisUrl) }
  }
  const about = {
    at: new Date().toISOString(),
    turns,
    ...setting,
    machine: machine(),
    versions: await versions(queues),
  }
  console.log(report(results, about))
  if (flags.json) await writeFile(flags.json, `${JSON.stringify({ about, results }, undefined, 2)}\n`)
}

async function runContest(contest: Contest, child: string, queues: Queues, amqpUrl: string, redisUrl: string) {
  const names = Object.keys(contest.contestants)
  const runs: Record<string, Measured[]> = Object.fromEntries(names.map((name) => [name, []]))
  for (let turn = 0; turn < turns; turn++) {
    for (let i = 0; i < names.length; i++) {
      const contestant = names[(turn + i) % names.length]!
      const queue = await queues.fresh(
        contest.full ? setting.warmup + messages + setting.prefetch : 0,
        setting.bodyBytes,
      )
      const measured = await inChild(child, { ...setting, contestant, amqpUrl, redisUrl, queue })
      await queues.drop(queue)
      runs[contestant]!.push(measured)
      progress(turn, contestant, measured)
    }
  }
  return runs
}

function inChild(child: string, job: Job): Promise<Measured> {
  const execArgv = flags.profile ? ['--cpu-prof', `--cpu-prof-dir=${flags.profile}/${job.contestant}`] : []
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

function progress(turn: number, contestant: string, { perSecond, cpuUs }: Measured): void {
  const figures = `${Math.round(perSecond)}/s, ${cpuUs.toFixed(1)} µs CPU`
  console.error(`turn ${turn + 1}/${turns}  ${contestant.padEnd(44)} ${figures}`)
}

if (flags.help) console.log(HELP)
else await main()
