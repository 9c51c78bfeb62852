/** Builds what is measured: plain JavaScript, as it is shipped, in a folder of its own. */

import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { constants, tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const HERE = fileURLToPath(new URL('.', import.meta.url))
const MODULES = join(HERE, '../../node_modules')
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

/** In the system's temporary folder. Gone with `[Symbol.dispose]`, at the latest with the process, also when a signal ends it. */
export function build(): { readonly child: string } & Disposable {
  const folder = mkdtempSync(join(tmpdir(), 'surehop-bench-'))
  const remove = removal(folder)
  try {
    symlinkSync(MODULES, join(folder, 'node_modules'), 'dir')
    writeFileSync(join(folder, 'package.json'), '{"type":"module"}\n')
    const tsc = [join(MODULES, 'typescript/bin/tsc'), '-p', join(HERE, 'tsconfig.json'), '--outDir', folder]
    const { status, stdout } = spawnSync(process.execPath, tsc, { encoding: 'utf8' })
    if (status !== 0) throw new Error(`tsc failed:\n${stdout}`)
  } catch (error) {
    remove()
    throw error
  }
  return { child: join(folder, 'test/bench/child.js'), [Symbol.dispose]: remove }
}

/** Armed at once. */
function removal(folder: string): () => void {
  const remove = () => rmSync(folder, { recursive: true, force: true })
  const end = (signal: NodeJS.Signals) => process.exit(128 + constants.signals[signal])
  process.once('exit', remove)
  for (const signal of SIGNALS) process.once(signal, end)
  return () => {
    process.off('exit', remove)
    for (const signal of SIGNALS) process.off(signal, end)
    remove()
  }
}
