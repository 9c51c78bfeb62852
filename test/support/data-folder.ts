// A folder of our own under the system's temporary folder, for one private service.

import { mkdtemp, realpath, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { guard } from './guard.ts'

/** The folder, and how to be rid of it. */
export interface DataFolder {
  readonly path: string
  remove(): Promise<void>
}

/** Makes a folder that is removed at the latest when this process is gone. */
export async function dataFolder(name: string): Promise<DataFolder> {
  const path = await mkdtemp(join(await realpath(tmpdir()), `surehop-${name}-`))
  const release = guard({ path })
  return {
    path,
    async remove() {
      await rm(path, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 })
      release()
    },
  }
}
