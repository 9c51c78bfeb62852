// RabbitMQ releases newer than the installed one, each in a folder with a small Debian of its own.
//
//   absent -> being made (a scratch folder) -> there
//
// Promises: a release is made once per user, in about a minute and 350 MB, by debootstrap from Debian's signed packages; it is there
// whole or not at all; nothing is mounted for anybody else on this machine, no service is started. Where a release cannot be had,
// `ReleaseUnavailable` says why in one sentence.
// Does not promise: any other system than Debian and Ubuntu, any other user than root; 4.3, which comes from Debian's
// unstable suite, on every day; a particular patch release.
//
// Environment: SUREHOP_RABBITMQ names the release that private nodes are of; SUREHOP_RELEASES the folder that holds a folder per
// release (default: surehop/rabbitmq in the user's cache folder).

import { execFile } from 'node:child_process'
import { existsSync, lstatSync, readdirSync } from 'node:fs'
import { mkdir, rename, rm, writeFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { guard } from '../../support/guard.ts'
import { installPackages, onPath } from '../../support/provision.ts'
import type { Installation } from '../../support/rabbitmq-node.ts'
import type { Release } from '../world.ts'

/** A release that is not the installed one. */
export type NewerRelease = Exclude<Release, 'installed'>

const SUITES: Readonly<Record<NewerRelease, string>> = { '4.0': 'trixie', '4.3': 'sid' }
const RELEASES: readonly Release[] = ['installed', '4.0', '4.3']
const SCRIPTS = '/usr/lib/rabbitmq/bin'
const STEP_WITHIN_MS = 900_000
const CHROOT = 'mount --bind /proc "$0/proc" && exec chroot "$0" "$@"'

/** Thrown where a release cannot be had; the message is one sentence for people. */
export class ReleaseUnavailable extends Error {
  override readonly name = 'ReleaseUnavailable'

  constructor(release: Release, because: string, cause?: unknown) {
    super(`RabbitMQ ${release} cannot be had here: ${because}.`, { cause })
  }
}

/** The release that SUREHOP_RABBITMQ asks for. */
export function releaseWanted(): Release {
  const wanted = process.env['SUREHOP_RABBITMQ'] || 'installed'
  const release = RELEASES.find((one) => one === wanted)
  if (release) return release
  throw new Error(`expected SUREHOP_RABBITMQ to be one of ${RELEASES.join(', ')}, or unset, got ${wanted}`)
}

const found = new Map<string, Promise<Installation>>()

/** Whether the release has been made already. */
export function isMade(release: NewerRelease): boolean {
  return existsSync(systemOf(release))
}

/** The release's programs; makes them if need be. @throws ReleaseUnavailable */
export function installationOf(release: NewerRelease): Promise<Installation> {
  const system = systemOf(release)
  const finding = found.get(system) ?? findOrMake(release, system)
  found.set(system, finding)
  return finding
}

async function findOrMake(release: NewerRelease, system: string): Promise<Installation> {
  await checkMachine(release)
  if (!existsSync(system)) await make(release, system)
  const version = versionIn(system)
  if (version?.startsWith(`${release}.`)) return { scripts: SCRIPTS, system }
  const other = version ? `RabbitMQ ${version}` : 'no RabbitMQ'
  throw new ReleaseUnavailable(release, `${system} holds ${other}; remove that folder to have it made again`)
}

function systemOf(release: NewerRelease): string {
  const { SUREHOP_RELEASES, XDG_CACHE_HOME } = process.env
  const usual = join(XDG_CACHE_HOME || join(homedir(), '.cache'), 'surehop', 'rabbitmq')
  return join(SUREHOP_RELEASES || usual, release)
}

function versionIn(system: string): string | undefined {
  const folder = join(system, SCRIPTS, '../lib')
  const names = existsSync(folder) ? readdirSync(folder) : []
  return names.find((name) => name.startsWith('rabbitmq_server-'))?.slice('rabbitmq_server-'.length)
}

async function checkMachine(release: NewerRelease): Promise<void> {
  const because = (reason: string) => new ReleaseUnavailable(release, reason)
  if (!onPath('apt-get')) throw because('it takes Debian or Ubuntu, and there is no apt-get')
  if (process.getuid?.() !== 0) throw because('it takes root, to run programs of another Debian')
  if (!lstatSync('/lib').isSymbolicLink()) throw because('it takes a system whose /lib is part of /usr')
  await run('unshare', ['--mount', 'true']).catch((error: unknown) => {
    throw new ReleaseUnavailable(release, `no mount namespace is allowed here (${lastWords(error)})`, error)
  })
}

async function make(release: NewerRelease, system: string): Promise<void> {
  const scratch = `${system}.${process.pid}`
  process.stderr.write(`Making RabbitMQ ${release} in ${system}, once, about a minute...\n`)
  await mkdir(dirname(system), { recursive: true })
  const done = guard({ path: scratch })
  try {
    await fill(scratch, SUITES[release])
    const version = versionIn(scratch)
    if (!version?.startsWith(`${release}.`)) throw new Error(`Debian's ${SUITES[release]} has ${version ?? 'none'} now`)
    await putInPlace(scratch, system)
  } catch (error) {
    throw new ReleaseUnavailable(release, `it could not be made (${lastWords(error)})`, error)
  } finally {
    await rm(scratch, { recursive: true, force: true }).then(done)
  }
}

/** Somebody else may have made it meanwhile: theirs is as good. */
async function putInPlace(scratch: string, system: string): Promise<void> {
  await rename(scratch, system).catch((error: unknown) => {
    if (!existsSync(system)) throw error
  })
}

async function fill(scratch: string, suite: string): Promise<void> {
  const keyring = existsSync('/usr/share/keyrings/debian-archive-keyring.gpg') ? [] : ['debian-archive-keyring']
  const missing = [...(onPath('debootstrap') ? [] : ['debootstrap']), ...keyring]
  if (missing.length > 0) await installPackages(missing)
  // What debootstrap mounts is gone with its namespace.
  await run('unshare', ['--mount', 'debootstrap', '--variant=minbase', suite, scratch])
  await writeFile(join(scratch, 'usr/sbin/policy-rc.d'), '#!/bin/sh\nexit 101\n', { mode: 0o755 })
  // Unstable's list of packages may be a few days over its time; its signature is checked all the same.
  await apt(scratch, '-o', 'Acquire::Check-Valid-Until=false', 'update')
  await apt(scratch, 'install', '-y', '--no-install-recommends', 'rabbitmq-server')
  await apt(scratch, 'clean')
}

function apt(scratch: string, ...args: readonly string[]): Promise<void> {
  return run('unshare', ['--mount', 'sh', '-c', CHROOT, scratch, 'apt-get', ...args])
}

async function run(command: string, args: readonly string[]): Promise<void> {
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C.UTF-8' }
  const running = promisify(execFile)(command, args, { env, maxBuffer: 2 ** 26, timeout: STEP_WITHIN_MS })
  const { pid } = running.child
  const release = pid === undefined ? () => {} : guard({ pid })
  await running.finally(release)
}

function lastWords(error: unknown): string {
  const { stdout = '', stderr = '', message } = error as Error & { stdout?: string; stderr?: string }
  const said = `${stdout}\n${stderr}`.trim() || message
  return (said.split('\n').at(-1) ?? '').trim().replace(/\.$/, '')
}
