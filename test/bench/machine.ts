/** What the figures were measured on. */

import { readFileSync } from 'node:fs'
import { availableParallelism, cpus, loadavg, release, totalmem, type } from 'node:os'
import { Redis } from 'ioredis'
import type { Tables } from './outbox-tables.ts'
import type { Queues } from './queues.ts'

export interface Machine {
  readonly cpu: string
  readonly cores: number
  readonly memoryGib: number
  readonly system: string
  readonly load: number
}

export function machine(): Machine {
  return {
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: availableParallelism(),
    memoryGib: Math.round(totalmem() / 2 ** 30),
    system: `${type()} ${release()}`,
    load: Number(loadavg()[0]?.toFixed(2)),
  }
}

export async function versions(queues: Queues, tables: Tables): Promise<Record<string, string>> {
  return {
    node: process.versions.node,
    rabbitmq: queues.brokerVersion,
    redis: await redisVersion(),
    postgres: await tables.version(),
    surehop: packageVersion('../../package.json'),
    amqplib: packageVersion('../../node_modules/amqplib/package.json'),
    ioredis: packageVersion('../../node_modules/ioredis/package.json'),
    pg: packageVersion('../../node_modules/pg/package.json'),
    'pg-boss': packageVersion('../../node_modules/pg-boss/package.json'),
    'pg-transactional-outbox': packageVersion('../../node_modules/pg-transactional-outbox/package.json'),
  }
}

async function redisVersion(): Promise<string> {
  const redis = new Redis(process.env['REDIS_URL'] ?? '')
  const info = await redis.info('server')
  redis.disconnect()
  return /redis_version:(\S+)/.exec(info)?.[1] ?? 'unknown'
}

function packageVersion(path: string): string {
  return JSON.parse(readFileSync(new URL(path, import.meta.url), 'utf8')).version
}
