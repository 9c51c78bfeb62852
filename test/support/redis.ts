// A private Redis: own port, own folder, append-only file, nothing evicted.
//
//   running -> stopped | killed -> running ...; running <-> frozen; any -> closed
//
// Promises: what was written survives `stop` and, up to the last second (`appendfsync everysec`), `kill9`; so does what it was
// told to write into its file of settings (`CONFIG REWRITE`); the port stays the same over restarts; `close` leaves nothing behind.

import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { compose } from './compose.ts'
import { dataFolder } from './data-folder.ts'
import { converse, firstThatStarts, freePort } from './ports.ts'
import { launch, type PrivateProcess } from './private-process.ts'
import { provide, SEARCH_PATH } from './provision.ts'
import { control, readyOrEnded, type Server } from './server.ts'

/** Options of {@link startRedis}. */
export interface RedisOptions {
  /** More arguments of redis-server, such as `['--appendfsync', 'always']`. */
  readonly args?: readonly string[]
}

const START_WITHIN_MS = 20_000
const KEEPS = ['appendonly yes', 'save ""', 'maxmemory-policy noeviction']

/** Starts a private Redis beside all others. */
export async function startRedis(options: RedisOptions = {}): Promise<Server> {
  const { redis } = await provide('redis')
  if (redis.kind === 'compose') return compose('redis')
  return firstThatStarts(() => open(redis.path, KEEPS, options.args ?? []))
}

/** Starts a Sentinel beside all others; `settings`: lines of its file, which it goes on to write itself. */
export async function startSentinel(settings: readonly string[]): Promise<Server> {
  const { redis } = await provide('redis')
  if (redis.kind === 'compose') throw new Error('A Sentinel needs Redis installed; a container is not enough.')
  return firstThatStarts(() => open(redis.path, settings, ['--sentinel']))
}

async function open(program: string, settings: readonly string[], args: readonly string[]): Promise<Server> {
  const port = await freePort()
  const folder = await dataFolder('redis')
  const file = join(folder.path, 'redis.conf')
  const where = [`port ${port}`, 'bind 127.0.0.1', `dir ${JSON.stringify(folder.path)}`, 'daemonize no']
  await writeFile(file, [...where, ...settings, ''].join('\n'))
  const begin = () => begun(program, port, folder.path, [file, ...args])
  const first = await begin().catch(async (error: unknown) => {
    await folder.remove()
    throw error
  })
  return control({ url: `redis://127.0.0.1:${port}`, port, first, begin, remove: () => folder.remove() })
}

async function begun(program: string, port: number, dir: string, args: readonly string[]): Promise<PrivateProcess> {
  const env = { PATH: SEARCH_PATH }
  const redis = await launch({ command: program, args, cwd: dir, env, log: `${dir}/output.log` })
  return readyOrEnded(redis, () => answersItself(port, redis.pid), START_WITHIN_MS)
}

// Not PING: on a lost race for the port, another Redis would answer that. While it loads its data it refuses nearly all else.
async function answersItself(port: number, pid: number): Promise<void> {
  const answer = (await converse(port, 'INFO server persistence\r\n')).toString()
  if (!answer.includes(`process_id:${pid}\r`)) throw new Error(`it answered ${answer.slice(0, 80).trim()}`)
  if (answer.includes('\nloading:1\r')) throw new Error('it is still loading its data')
}
