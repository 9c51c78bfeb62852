// A folder of our own under the system's temporary folder, for one private service.

import { mkdtemp, realpath, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { guard } from './guard.ts'

/** The folder, and how to be rid of it. */
export interface DataFolder {
  readonly path: string
  remove(): Promise<void>
}

/** Makes a folder that is removed at the latest when this process is gone; `shared`: other users can get to it. */
export async function dataFolder(name: string, { shared = false } = {}): Promise<DataFolder> {
  const usual = await realpath(tmpdir())
  const path = await mkdtemp(join(shared && !(await isOpen(usual)) ? '/tmp' : usual, `surehop-${name}-`))
  const release = guard({ path })
  return {
    path,
    async remove() {
      await rm(path, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 })
      release()
    },
  }
}

async function isOpen(folder: string): Promise<boolean> {
  const { mode } = await stat(folder)
  return (mode & 0o001) !== 0 && (folder === dirname(folder) || isOpen(dirname(folder)))
}
