/** What the figures were measured on. */

import { readFileSync } from 'node:fs'
import { availableParallelism, cpus, loadavg, release, totalmem, type } from 'node:os'
import type { Tables } from './outbox-tables.ts'
import type { Queues } from './queues.ts'
import type { RedisKeys } from './redis-keys.ts'

export interface Machine {
  readonly cpu: string
  readonly cores: number
  readonly memoryGib: number
  readonly system: string
}

const PACKAGES = [
  'amqplib',
  'ioredis',
  'pg',
  'amqp-connection-manager',
  'rabbitmq-client',
  '@cloudamqp/amqp-client',
  'rascal',
  '@aws-lambda-powertools/idempotency',
  '@redis/client',
  'pg-boss',
  'pg-transactional-outbox',
]

export function machine(): Machine {
  return {
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: availableParallelism(),
    memoryGib: Math.round(totalmem() / 2 ** 30),
    system: `${type()} ${release()}`,
  }
}

/** The mean number of processes that ran or wanted to in the last minute. */
export function load(): number {
  return Number(loadavg()[0]?.toFixed(2))
}

export async function versions(queues: Queues, tables: Tables, redis: RedisKeys): Promise<Record<string, string>> {
  return {
    node: process.versions.node,
    rabbitmq: queues.brokerVersion,
    redis: await redis.version(),
    postgres: await tables.version(),
    surehop: versionIn('../../package.json'),
    ...Object.fromEntries(PACKAGES.map((name) => [name, versionIn(`../../node_modules/${name}/package.json`)])),
  }
}

function versionIn(path: string): string {
  return JSON.parse(readFileSync(new URL(path, import.meta.url), 'utf8')).version
}
