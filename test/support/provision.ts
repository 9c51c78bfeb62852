// Finds the programs behind the development services, and installs them where that can be done without asking.
//
// Promises: an installed program is preferred; else apt-get (Debian and Ubuntu, as root), else Homebrew, else the answer
// 'compose' where a container engine answers, else one error that says what to do. Installing starts no service.
// Does not promise: any particular version.

import { execFile } from 'node:child_process'
import { accessSync, constants, existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { delimiter, dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { guard } from './guard.ts'

const run = promisify(execFile)

/** `path`: for Redis the server program, for RabbitMQ the folder of its scripts, for Postgres the folder of its programs. */
export type Provision = { readonly kind: 'installed'; readonly path: string } | { readonly kind: 'compose' }
export type Program = 'rabbitmq' | 'redis' | 'postgres'

const FOLDERS = [
  ...(process.env['PATH'] ?? '').split(delimiter),
  '/opt/homebrew/bin',
  '/opt/homebrew/sbin',
  '/usr/local/bin',
  '/usr/bin',
  '/bin',
  '/usr/sbin',
  '/sbin',
]

/** The PATH for private services: the user's, and the usual places a bare environment forgets. */
export const SEARCH_PATH = [...new Set(FOLDERS.filter((folder) => folder !== ''))].join(delimiter)

// Not those on the PATH: Debian's /usr/sbin wrappers insist on the system user "rabbitmq".
const RABBITMQ_SCRIPTS = ['/usr/lib/rabbitmq/bin', '/opt/homebrew/opt/rabbitmq/sbin', '/usr/local/opt/rabbitmq/sbin']

// Debian's and Homebrew's Postgres stand in folders by version, the first of them on nobody's PATH.
const POSTGRES_FAMILIES = [
  { folder: '/usr/lib/postgresql', name: /^\d+$/ },
  { folder: '/opt/homebrew/opt', name: /^postgresql@\d+$/ },
  { folder: '/usr/local/opt', name: /^postgresql@\d+$/ },
]

const PACKAGES = {
  apt: { rabbitmq: 'rabbitmq-server', redis: 'redis-server', postgres: 'postgresql' },
  brew: { rabbitmq: 'rabbitmq', redis: 'redis', postgres: 'postgresql@18' },
}
const NAMES = {
  rabbitmq: ['RabbitMQ', 'AMQP_URL'],
  redis: ['Redis', 'REDIS_URL'],
  postgres: ['Postgres', 'DATABASE_URL'],
}

// What Debian's packages look at while they are installed: start no service, and make no database cluster.
const INSTALLING = [
  { file: '/usr/sbin/policy-rc.d', text: '#!/bin/sh\nexit 101\n', mode: 0o755, of: undefined },
  {
    file: '/etc/postgresql-common/createcluster.conf',
    text: 'create_main_cluster = false\n',
    mode: 0o644,
    of: PACKAGES.apt.postgres,
  },
]

/** Says how to get each of the wanted programs, after installing those that are missing. */
export async function provide<P extends Program>(...wanted: P[]): Promise<Record<P, Provision>> {
  const missing = wanted.filter((program) => find(program) === undefined)
  if (missing.length > 0) await install(missing)
  const found: Partial<Record<P, Provision>> = {}
  for (const program of wanted) found[program] = await settle(program)
  return found as Record<P, Provision>
}

/** Where the program stands on this machine, if it does. */
export function find(program: Program): string | undefined {
  if (program === 'redis') return onPath('redis-server') ?? onPath('valkey-server')
  if (program === 'postgres') return postgresFolder()
  return RABBITMQ_SCRIPTS.find((folder) => isExecutable(join(folder, 'rabbitmq-server')))
}

function postgresFolder(): string | undefined {
  const versioned = POSTGRES_FAMILIES.flatMap(({ folder, name }) =>
    namesIn(folder)
      .filter((entry) => name.test(entry))
      .sort((a, b) => b.localeCompare(a, 'en', { numeric: true }))
      .map((entry) => join(folder, entry, 'bin')),
  )
  const places = [...versioned, ...SEARCH_PATH.split(delimiter)]
  return places.find((folder) => ['initdb', 'postgres'].every((program) => isExecutable(join(folder, program))))
}

function namesIn(folder: string): readonly string[] {
  return existsSync(folder) ? readdirSync(folder) : []
}

async function settle(program: Program): Promise<Provision> {
  const path = find(program)
  if (path !== undefined) return { kind: 'installed', path }
  if (await engineAnswers()) return { kind: 'compose' }
  const [name, variable] = NAMES[program]
  const packages = `${PACKAGES.apt[program]} (apt) or ${PACKAGES.brew[program]} (Homebrew)`
  throw new Error(`${name} is not here: install ${packages}, or start Docker, or set ${variable} to a server to use.`)
}

async function install(missing: readonly Program[]): Promise<void> {
  if (process.getuid?.() === 0 && onPath('apt-get')) await installPackages(missing.map((it) => PACKAGES.apt[it]))
  else if (onPath('brew')) await installWith('brew', ['install', ...missing.map((it) => PACKAGES.brew[it])])
}

/** Installs packages with apt-get, as root, and starts none of their services. */
export async function installPackages(packages: readonly string[]): Promise<void> {
  const undo = keepServicesFromStarting(packages)
  try {
    // Where the lists cannot be fetched just now, those on the disk may do.
    await run('apt-get', ['update'], aptSettings).catch(() => undefined)
    await installWith('apt-get', [
      '-o',
      'DPkg::Lock::Timeout=300',
      'install',
      '-y',
      '--no-install-recommends',
      ...packages,
    ])
  } finally {
    await undo()
  }
}

const aptSettings = { env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }, maxBuffer: 2 ** 26 }

async function installWith(tool: string, args: readonly string[]): Promise<void> {
  process.stderr.write(`Installing what the development services need, once: ${tool} ${args.join(' ')}\n`)
  await run(tool, [...args], aptSettings).catch((error: Error & { stderr?: string }) => {
    throw new Error(`${tool} could not install the development services: ${error.stderr?.trim() || error.message}`)
  })
}

/** A file that stands already is obeyed. */
function keepServicesFromStarting(packages: readonly string[]): () => Promise<void> {
  const concerned = INSTALLING.filter(({ file, of }) => !existsSync(file) && (!of || packages.includes(of)))
  const written = concerned.map(({ file, text, mode }) => {
    const release = guard({ path: file })
    mkdirSync(dirname(file), { recursive: true })
    writeFileSync(file, text, { mode, flag: 'wx' })
    return { file, release }
  })
  return async () => {
    for (const { file, release } of written) await rm(file, { force: true }).then(release)
  }
}

async function engineAnswers(): Promise<boolean> {
  const ask = async (...args: string[]) => run('docker', args, { timeout: 10_000 })
  return Promise.all([ask('info'), ask('compose', 'version')]).then(
    () => true,
    () => false,
  )
}

/** Where the program is, if it is on the PATH or in one of the usual places. */
export function onPath(program: string): string | undefined {
  const places = SEARCH_PATH.split(delimiter).map((folder) => join(folder, program))
  return places.find(isExecutable)
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}
