// TypeScript files as one plain JavaScript file each, made once, for processes that are started again and again: they begin in a
// third of the time.
//
// Promises: gone with `close`, at the latest when this process is gone.

import { mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { guard } from './guard.ts'

const MODULES = fileURLToPath(new URL('../../node_modules', import.meta.url))

/** The part of esbuild that is used here. */
interface Bundler {
  build(options: object): Promise<unknown>
}

/** What was made. */
export interface Bundle {
  /** The file made of `x.ts`. */
  of(name: string): string
  close(): void
}

/** Bundles each of these files with all that it imports. */
export async function bundle(...files: readonly URL[]): Promise<Bundle> {
  const folder = mkdtempSync(join(tmpdir(), 'surehop-bundle-'))
  const release = guard({ path: folder })
  symlinkSync(MODULES, join(folder, 'node_modules'), 'dir')
  await bundler().build({
    entryPoints: files.map((file) => fileURLToPath(file)),
    outdir: folder,
    outExtension: { '.js': '.mjs' },
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
  return {
    of: (name) => join(folder, `${basename(name, '.ts')}.mjs`),
    close() {
      rmSync(folder, { recursive: true, force: true })
      release()
    },
  }
}

/** esbuild comes with tsx, wherever the package manager puts it. */
function bundler(): Bundler {
  const tsx = createRequire(import.meta.url).resolve('tsx')
  return createRequire(tsx)('esbuild') as Bundler
}
