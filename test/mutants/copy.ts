// A copy of the working tree in a folder of its own, so that no fault ever stands in the checkout. Its packages are linked.

import { cp, readFile, symlink, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { dataFolder } from '../support/data-folder.ts'
import { type Mutant, mutated } from './mutant.ts'

/** The root of the repository. */
export const ROOT = fileURLToPath(new URL('../../', import.meta.url))

const LEFT_OUT = new Set(['node_modules', '.git', 'dist', 'coverage'])

/** A copy, gone at the latest when this process is. */
export class Copy implements AsyncDisposable {
  readonly folder: string
  readonly #remove: () => Promise<void>

  private constructor(folder: string, remove: () => Promise<void>) {
    this.folder = folder
    this.#remove = remove
  }

  static async make(): Promise<Copy> {
    const { path, remove } = await dataFolder('mutants')
    const filter = (from: string) => !LEFT_OUT.has(basename(from))
    await cp(ROOT, path, { recursive: true, filter })
    await symlink(join(ROOT, 'node_modules'), join(path, 'node_modules'), 'dir')
    return new Copy(path, remove)
  }

  /** Does something while the fault is in the copy. @throws when its text is not there exactly once */
  async with<T>(mutant: Mutant, run: () => Promise<T>): Promise<T> {
    const path = join(this.folder, mutant.file)
    const source = await readFile(path, 'utf8')
    await writeFile(path, mutated(source, mutant))
    try {
      return await run()
    } finally {
      await writeFile(path, source)
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#remove()
  }
}
