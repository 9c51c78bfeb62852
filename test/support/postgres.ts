// A private Postgres: own port, own folder, fsync on, 200 connections, UTC and UTF-8; loopback only.
//
//   running -> stopped | killed -> running ...; running <-> frozen; any -> closed
//
// Promises: what was committed survives `stop` and `kill9`; the port stays the same over restarts; works as root (it runs as
// `nobody` then) and as an ordinary user; `kill9` and `freeze` reach the processes of all connections; `close` leaves nothing
// behind. Who wants in needs the password of `url`. Starting takes about 1 s.

import { randomBytes } from 'node:crypto'
import { chown, mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { compose } from './compose.ts'
import { type DataFolder, dataFolder } from './data-folder.ts'
import { guard } from './guard.ts'
import { firstThatStarts, freePort } from './ports.ts'
import { inFolder, type Programs, programs } from './postgres-programs.ts'
import { launch, type PrivateProcess, runToEnd } from './private-process.ts'
import { SEARCH_PATH } from './provision.ts'
import { control, readyOrEnded, type Server } from './server.ts'

/** Options of {@link startPostgres}. */
export interface PostgresOptions {
  /** More settings, such as `{ wal_level: 'logical' }`. */
  readonly settings?: Readonly<Record<string, string | number>>
  /** Folder of the programs (`initdb`, `postgres`) of another PostgreSQL. */
  readonly bin?: string
}

interface Layout extends Programs {
  readonly folder: DataFolder
  readonly data: string
  readonly port: number
  readonly settings: readonly string[]
  readonly memory: SharedMemory
}

const START_WITHIN_MS = 30_000
const ENV = { PATH: SEARCH_PATH, LC_ALL: 'C', TZ: 'UTC' }

// Without sockets and shared memory in places that all of the machine shares.
const SETTINGS = {
  listen_addresses: '127.0.0.1',
  unix_socket_directories: '',
  dynamic_shared_memory_type: 'mmap',
  max_connections: 200,
  shared_buffers: '32MB',
  huge_pages: 'off',
  jit: 'off',
  timezone: 'UTC',
  log_timezone: 'UTC',
}

/** Starts a private Postgres beside all others. */
export async function startPostgres(options: PostgresOptions = {}): Promise<Server> {
  const found = options.bin === undefined ? await programs() : await inFolder(options.bin)
  if (found) return firstThatStarts(() => open(found, options.settings ?? {}))
  if (options.settings) {
    throw new Error('A private Postgres with settings of its own needs Postgres installed; a container is not enough.')
  }
  return compose('postgres')
}

async function open(found: Programs, settings: Readonly<Record<string, string | number>>): Promise<Server> {
  const [port, folder] = [await freePort(), await dataFolder('postgres', { shared: found.as !== undefined })]
  const data = join(folder.path, 'data')
  const password = randomBytes(12).toString('hex')
  const all = Object.entries({ ...SETTINGS, port, ...settings }).flatMap(([name, value]) => ['-c', `${name}=${value}`])
  const layout = { ...found, folder, data, port, settings: all, memory: new SharedMemory() }
  const begin = () => begun(layout)
  const remove = () => layout.memory.free().then(() => folder.remove())
  const first = await makeCluster(layout, password)
    .then(begin)
    .catch(async (error: unknown) => {
      await remove()
      throw error
    })
  const url = `postgres://postgres:${password}@127.0.0.1:${port}/postgres`
  // SIGTERM would wait for the clients to leave. SIGQUIT is as quick as SIGKILL, and gives the shared memory back.
  return control({ url, port, first, begin, remove, stopSignal: 'SIGINT', closeSignal: 'SIGQUIT' })
}

async function makeCluster({ bin, as, folder: { path }, data }: Layout, password: string): Promise<void> {
  const passwordFile = join(path, 'password')
  await mkdir(data, { mode: 0o700 })
  await writeFile(passwordFile, password, { mode: 0o600 })
  if (as) for (const place of [path, data, passwordFile]) await chown(place, as.uid, as.gid)
  const who = ['--username', 'postgres', '--auth', 'scram-sha-256', '--pwfile', passwordFile]
  const args = ['--pgdata', data, '--encoding', 'UTF8', '--locale', 'C', '--no-sync', ...who]
  await runToEnd(join(bin, 'initdb'), args, ENV, as)
  await rm(passwordFile)
}

async function begun({ bin, as, folder: { path }, data, settings, memory }: Layout): Promise<PrivateProcess> {
  const pidFile = join(data, 'postmaster.pid')
  // One that was killed leaves it, and its number may be another process's by now.
  await rm(pidFile, { force: true })
  const postgres = await launch({
    command: join(bin, 'postgres'),
    args: ['-D', data, ...settings],
    cwd: path,
    env: ENV,
    log: join(path, 'output.log'),
    scattered: true,
    ...(as && { as }),
  })
  return readyOrEnded(postgres, async () => memory.note(await memoryOfReady(pidFile, postgres.pid)), START_WITHIN_MS)
}

// Not a connection: on a lost race for the port, another Postgres would take that. The lines of the file: process, folder,
// time of start, port, socket folder, address, key and number of the shared memory, state.
async function memoryOfReady(pidFile: string, pid: number): Promise<string | undefined> {
  const lines = (await readFile(pidFile, 'utf8')).split('\n').map((line) => line.trim())
  if (lines[0] !== `${pid}` || lines[7] !== 'ready') throw new Error(`its state is ${lines[7] ?? 'not known yet'}`)
  return lines[6]?.split(/\s+/)[1]
}

/** The piece of System V shared memory that a Postgres keeps; one that is killed cannot give it back. */
class SharedMemory {
  #free: string[] = []
  #release = () => {}

  note(id: string | undefined): void {
    this.#release()
    this.#free = id === undefined ? [] : ['-m', id]
    if (id !== undefined) this.#release = guard({ command: ['ipcrm', ...this.#free] })
  }

  async free(): Promise<void> {
    if (this.#free.length > 0) await runToEnd('ipcrm', this.#free, ENV).catch(() => 'gone already')
    this.note(undefined)
  }
}
