// What the lab ran on.

import { readFileSync } from 'node:fs'
import { Redis } from 'ioredis'
import { Client } from 'pg'
import type { Grounds } from './grounds.ts'

/** Name -> version, of servers and packages. */
export async function versionsOf({ usual }: Grounds): Promise<Readonly<Record<string, string>>> {
  return {
    rabbitmq: `${usual.rabbitmq.version} (three nodes)`,
    redis: await redisVersion(usual.redis.url),
    postgres: await postgresVersion(usual.postgres.url),
    node: process.versions.node,
    surehop: versionIn('../../package.json'),
    amqplib: versionIn('../../node_modules/amqplib/package.json'),
    ioredis: versionIn('../../node_modules/ioredis/package.json'),
    pg: versionIn('../../node_modules/pg/package.json'),
  }
}

async function redisVersion(url: string): Promise<string> {
  const redis = new Redis(url)
  const info = await redis.info('server').finally(() => redis.disconnect())
  return /redis_version:(\S+)/.exec(info)?.[1] ?? 'unknown'
}

async function postgresVersion(url: string): Promise<string> {
  const client = new Client({ connectionString: url })
  await client.connect()
  const { rows } = await client.query<{ server_version: string }>('SHOW server_version').finally(() => client.end())
  return rows[0]?.server_version ?? 'unknown'
}

function versionIn(path: string): string {
  return JSON.parse(readFileSync(new URL(path, import.meta.url), 'utf8')).version
}
