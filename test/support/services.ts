// The services that the tests, the demo and the benchmarks run against.
//
// Promises, for each service: the server named by AMQP_URL, REDIS_URL or DATABASE_URL is used as it is, and never stopped;
// else a private one is started (see `provision.ts` and `postgres-programs.ts` for where it comes from), which is gone when
// this process is.

import { readFile } from 'node:fs/promises'
import { releaseWanted } from '../lab/cluster/releases.ts'
import { type PostgresOptions, startPostgres } from './postgres.ts'
import { programsHere } from './postgres-programs.ts'
import { type Program, provide } from './provision.ts'
import { ctl, type Node, type RabbitMq, type RabbitMqOptions, startRabbitMq } from './rabbitmq.ts'
import { type RedisOptions, startRedis } from './redis.ts'
import type { Server } from './server.ts'

export { type PostgresOptions, startPostgres } from './postgres.ts'
export { type RabbitMq, type RabbitMqOptions, startRabbitMq } from './rabbitmq.ts'
export { type RedisOptions, startRedis } from './redis.ts'
export type { Server } from './server.ts'

/** Which services are wanted; options go to those that are started here. */
export interface Wanted {
  readonly rabbitmq?: boolean | RabbitMqOptions
  readonly redis?: boolean | RedisOptions
  readonly postgres?: boolean | PostgresOptions
}

/** The services of one run. Ask only for what was wanted: the rest throws. */
export interface Services extends AsyncDisposable {
  readonly amqpUrl: string
  readonly redisUrl: string
  readonly databaseUrl: string
  readonly rabbitmq: RabbitMq
  readonly redis: Server
  readonly postgres: Server
  /** Stops what was started here, and nothing else. */
  stop(): Promise<void>
}

/** Brings the wanted services up, all at once; a failed start stops what had been started. */
export async function startServices(wanted: Wanted): Promise<Services> {
  await provideMissing(wanted)
  const starts = [rabbitmqFor(wanted.rabbitmq), redisFor(wanted.redis), postgresFor(wanted.postgres)] as const
  const outcomes = await Promise.allSettled(starts)
  const started = outcomes.flatMap((it) => (it.status === 'fulfilled' && it.value ? [it.value] : []))
  const stop = async () => void (await Promise.all(started.map((server) => server.close())))
  for (const outcome of outcomes) {
    if (outcome.status === 'rejected') await stop().then(() => Promise.reject(outcome.reason))
  }
  const [rabbitmq, redis, postgres] = await Promise.all(starts)
  return servicesOf(stop, { rabbitmq, redis, postgres })
}

interface Started {
  readonly rabbitmq: RabbitMq | undefined
  readonly redis: Server | undefined
  readonly postgres: Server | undefined
}

function servicesOf(stop: () => Promise<void>, started: Started): Services {
  const askedFor = <N extends keyof Started>(name: N): NonNullable<Started[N]> => {
    const server = started[name]
    if (server) return server
    throw new Error(`This run did not ask for ${name}: startServices({ ${name}: true }).`)
  }
  return {
    get amqpUrl() {
      return askedFor('rabbitmq').url
    },
    get redisUrl() {
      return askedFor('redis').url
    },
    get databaseUrl() {
      return askedFor('postgres').url
    },
    get rabbitmq() {
      return askedFor('rabbitmq')
    },
    get redis() {
      return askedFor('redis')
    },
    get postgres() {
      return askedFor('postgres')
    },
    stop,
    [Symbol.asyncDispose]: stop,
  }
}

// Together, so that one installation brings all that is missing.
async function provideMissing({ rabbitmq, redis, postgres }: Wanted): Promise<void> {
  const missing: Program[] = []
  if (rabbitmq && !process.env['AMQP_URL'] && releaseWanted() === 'installed') missing.push('rabbitmq')
  if (redis && !process.env['REDIS_URL']) missing.push('redis')
  if (postgres && !process.env['DATABASE_URL'] && !(await programsHere())) missing.push('postgres')
  await provide(...missing)
}

async function rabbitmqFor(wanted: Wanted['rabbitmq']): Promise<RabbitMq | undefined> {
  if (!wanted) return undefined
  const url = process.env['AMQP_URL']
  return url ? givenRabbitMq(url) : startRabbitMq(wanted === true ? {} : wanted)
}

async function redisFor(wanted: Wanted['redis']): Promise<Server | undefined> {
  if (!wanted) return undefined
  const url = process.env['REDIS_URL']
  return url ? given('REDIS_URL', url, 6379) : startRedis(wanted === true ? {} : wanted)
}

async function postgresFor(wanted: Wanted['postgres']): Promise<Server | undefined> {
  if (!wanted) return undefined
  const url = process.env['DATABASE_URL']
  return url ? given('DATABASE_URL', url, 5432) : startPostgres(wanted === true ? {} : wanted)
}

function givenRabbitMq(url: string): RabbitMq {
  return Object.assign(given('AMQP_URL', url, 5672), { ctl: (...args: readonly string[]) => ctlOfRun(args) })
}

function given(variable: string, url: string, usualPort: number): Server {
  const refuse = async () => {
    throw new Error(`The server of ${variable} was not started here, so it is not stopped here: start a private one.`)
  }
  const verbs = { start: refuse, stop: refuse, restart: refuse, kill9: refuse, freeze: refuse, thaw: refuse }
  const close = async () => {}
  const port = Number(new URL(url).port || usualPort)
  return { url, port, controllable: false, ...verbs, close, [Symbol.asyncDispose]: close }
}

/** Name of the variable that tells the processes of a run how rabbitmqctl reaches the run's own broker. */
export const NODE_FILE = 'SUREHOP_TEST_NODE'

async function ctlOfRun(args: readonly string[]): Promise<string> {
  const file = process.env[NODE_FILE]
  if (!file) throw new Error('rabbitmqctl reaches only a broker that this run started.')
  return ctl(JSON.parse(await readFile(file, 'utf8')) as Node, args)
}
