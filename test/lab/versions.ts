// What the lab ran on, and of which code.

import { execFileSync } from 'node:child_process'
import { readFileSync, realpathSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
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

const ROOT = new URL('../../', import.meta.url)

/**
 * The commit of the code, shortly, and whether there are changes to it; undefined where there is no git, or no repository of ours. What
 * an earlier run wrote, and the README that shows it, is no change to the code.
 */
export function commitOf(root: URL = ROOT): string | undefined {
  const cwd = realpathSync(fileURLToPath(root))
  const git = (...args: readonly string[]) =>
    execFileSync('git', args, { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim()
  try {
    if (realpathSync(git('rev-parse', '--show-toplevel')) !== cwd) return undefined
    const changed = git('status', '--porcelain', '--', '.', ':!test/lab/results', ':!README.md', ':!CHANGELOG.md')
    return `${git('rev-parse', '--short', 'HEAD')}${changed === '' ? '' : ' with changes'}`
  } catch {
    return undefined
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
