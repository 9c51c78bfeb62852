/** Builds what is measured: plain JavaScript, as it is shipped, in a folder of its own. */

import { spawnSync } from 'node:child_process'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const HERE = fileURLToPath(new URL('.', import.meta.url))
const MODULES = join(HERE, '../../node_modules')

/** Inside `node_modules`, so that the packages are found from there. Gone with `[Symbol.asyncDispose]`. */
export async function build(): Promise<{ readonly child: string } & AsyncDisposable> {
  await mkdir(join(MODULES, '.cache'), { recursive: true })
  const folder = await mkdtemp(join(MODULES, '.cache', 'surehop-bench-'))
  const remove = () => rm(folder, { recursive: true, force: true })
  const tsc = [join(MODULES, 'typescript/bin/tsc'), '-p', join(HERE, 'tsconfig.json'), '--outDir', folder]
  const { status, stdout } = spawnSync(process.execPath, tsc, { encoding: 'utf8' })
  if (status !== 0) {
    await remove()
    throw new Error(`tsc failed:\n${stdout}`)
  }
  await writeFile(join(folder, 'package.json'), '{"type":"module"}\n')
  return { child: join(folder, 'test/bench/child.js'), [Symbol.asyncDispose]: remove }
}
