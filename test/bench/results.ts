/** The files of `--write`: `<contest>.md` and `method.md`, which the README has word for word. */

import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type About, type ContestResult, method, section } from './report.ts'

const FOLDER = fileURLToPath(new URL('results/', import.meta.url))

/** Those of contests that did not run stay as they are. */
export async function writeResults(results: Readonly<Record<string, ContestResult>>, about: About): Promise<void> {
  await mkdir(FOLDER, { recursive: true })
  const texts = Object.entries(results).map(([name, result]) => [name, section(result)] as const)
  for (const [name, text] of [...texts, ['method', method(about)] as const])
    await writeFile(join(FOLDER, `${name}.md`), `${text}\n`)
}
