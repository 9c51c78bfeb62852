// Processes that are ready to be told what they are, some in advance: half a second of start would be the better part of a life.

import { type ChildProcess, fork } from 'node:child_process'
import { mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { End } from '../../support/child.ts'
import { guard } from '../../support/guard.ts'
import type { Order } from './place.ts'

const HERE = fileURLToPath(new URL('.', import.meta.url))
const MODULES = join(HERE, '../../../node_modules')
const AHEAD = 3
const OUTPUT_KEPT = 10_000

/** The part of esbuild that is used here. */
interface Bundler {
  build(options: object): Promise<unknown>
}

/** Bundles the child once. */
export async function openNursery(): Promise<Nursery> {
  const folder = mkdtempSync(join(tmpdir(), 'surehop-kills-'))
  const release = guard({ path: folder })
  const file = join(folder, 'child.mjs')
  symlinkSync(MODULES, join(folder, 'node_modules'), 'dir')
  await bundler().build({
    entryPoints: [join(HERE, 'child.ts')],
    outfile: file,
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node20',
    external: ['pg-native'],
    logLevel: 'error',
    sourcemap: 'linked',
    // Packages of the older kind load what Node brings by `require`.
    banner: { js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);" },
  })
  return new Nursery(file, () => {
    rmSync(folder, { recursive: true, force: true })
    release()
  })
}

/** esbuild comes with tsx, wherever the package manager puts it. */
function bundler(): Bundler {
  const tsx = createRequire(import.meta.url).resolve('tsx')
  return createRequire(tsx)('esbuild') as Bundler
}

/** Gives processes that have loaded everything. */
export class Nursery {
  readonly #file: string
  readonly #clean: () => void
  readonly #waiting: Life[] = []
  readonly #living = new Set<Life>()

  constructor(file: string, clean: () => void) {
    this.#file = file
    this.#clean = clean
  }

  take(): Life {
    while (this.#waiting.length <= AHEAD) this.#waiting.push(this.#start())
    return this.#waiting.shift()!
  }

  /** Ends all. */
  async close(): Promise<void> {
    await Promise.all([...this.#living].map((life) => life.kill9()))
    this.#clean()
  }

  #start(): Life {
    // A process that is killed leaves no coverage, and a bundle is nobody's source.
    const { NODE_V8_COVERAGE: _, NODE_OPTIONS: __, ...env } = process.env
    const life = new Life(
      fork(this.#file, [], { execArgv: ['--enable-source-maps'], env, stdio: ['ignore', 'pipe', 'pipe', 'ipc'] }),
    )
    this.#living.add(life)
    void life.ended.then(() => this.#living.delete(life))
    return life
  }
}

/** One process, that may die at any moment: what it is told then, it does not hear, and that is no error. */
export class Life {
  /** Resolves when it has said that it is at work. */
  readonly ready: Promise<void>
  readonly ended: Promise<End>
  readonly #child: ChildProcess
  #output = ''

  constructor(child: ChildProcess) {
    this.#child = child
    const release = child.pid === undefined ? () => {} : guard({ pid: child.pid })
    for (const stream of [child.stdout, child.stderr])
      stream?.setEncoding('utf8').on('data', (text: string) => {
        this.#output = (this.#output + text).slice(-OUTPUT_KEPT)
      })
    child.on('error', () => {})
    this.ready = new Promise((resolve) => child.once('message', () => resolve()))
    this.ended = new Promise((resolve) =>
      child.once('close', (code, signal) => {
        release()
        resolve({ code, signal })
      }),
    )
  }

  /** What it printed last. */
  get output(): string {
    return this.#output
  }

  say(order: Order): void {
    if (this.#child.connected) this.#child.send(order, () => {})
  }

  kill9(): Promise<End> {
    this.#child.kill('SIGKILL')
    return this.ended
  }
}
