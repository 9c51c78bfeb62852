/**
 * `npm run bench`: Surehop beside hand-written loops on the same libraries, and peers, in one run, on private services.
 * Prints a table per contest with how long it took; `--json` keeps every single run, `--write` the tables for the README.
 */
import { writeFile } from 'node:fs/promises'
import { parseArgs } from 'node:util'
import { runContest, type Scale, type Services } from './arena.ts'
import { build } from './build.ts'
import type { Contest } from './contest.ts'
import { contests, contestsOf } from './contestants.ts'
import { machine, versions } from './machine.ts'
import { Tables } from './outbox-tables.ts'
import { Queues } from './queues.ts'
import { RedisKeys } from './redis-keys.ts'
import { type About, type ContestResult, method, section } from './report.ts'
import { writeResults } from './results.ts'

const { values: flags } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    json: { type: 'string' },
    write: { type: 'boolean', default: false },
    only: { type: 'string', multiple: true },
    turns: { type: 'string' },
    messages: { type: 'string' },
    profile: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
})

const HELP = `npm run bench -- [--quick] [--only ${groups().join('|')}]... [--turns N] [--messages N]
                 [--json FILE] [--write] [--profile FOLDER]

--quick     a short look: two turns, fewer messages
--only      a contest, or a group of them: ${Object.keys(contests).join(', ')}
--turns     repeats, at most; default 5, less where one takes long
--messages  measured in each run, at most
--json      every single run's figures
--write     the tables, for the README, to test/bench/results
--profile   a .cpuprofile of each run`

const scale: Scale = {
  quick: flags.quick,
  turns: positive('turns', flags.turns) ?? (flags.quick ? 2 : 5),
  messages: positive('messages', flags.messages),
  size: { full: 60_000, quick: 10_000 },
  setting: { bodyBytes: 1_024, inFlight: 500, prefetch: 200, concurrency: 200, keys: 0, connections: 1 },
  profile: flags.profile,
}

function positive(name: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined
  const value = Number(text)
  if (Number.isSafeInteger(value) && value > 0) return value
  throw new Error(`expected --${name} to be a whole number > 0, got ${text}`)
}

async function main(): Promise<void> {
  const { AMQP_URL: amqpUrl, REDIS_URL: redisUrl, DATABASE_URL: databaseUrl } = process.env
  if (!amqpUrl || !redisUrl || !databaseUrl)
    throw new Error('expected AMQP_URL, REDIS_URL and DATABASE_URL in the environment: use `npm run bench`')
  const wanted = Object.assign({}, ...(flags.only ?? Object.keys(contests)).map(contestsOf)) as typeof contests
  using built = build()
  await using queues = await Queues.open(amqpUrl)
  await using tables = new Tables(databaseUrl)
  using redis = new RedisKeys(redisUrl)
  const results = await runAll(wanted, { amqpUrl, redisUrl, databaseUrl, queues, tables, redis, child: built.child })
  const about: About = {
    ...scale.setting,
    machine: machine(),
    versions: await versions(queues, tables, redis),
  }
  console.log(method(about))
  if (flags.json) await writeFile(flags.json, `${JSON.stringify({ about, results }, undefined, 2)}\n`)
  if (flags.write) await writeResults(results, about)
}

/** Each table is printed when it is there. */
async function runAll(wanted: Readonly<Record<string, Contest>>, services: Services) {
  const results: Record<string, ContestResult> = {}
  for (const [name, contest] of Object.entries(wanted)) {
    results[name] = await runContest(name, contest, scale, services)
    console.log(`${section(results[name])}\n`)
  }
  return results
}

/** A contest of a group is named after it. */
function groups(): string[] {
  return [...new Set(Object.keys(contests).map((name) => name.replace(/-.*/, '')))]
}

if (flags.help) console.log(HELP)
else await main()
