// The README's blocks that are files of their own: what the lab, the fuzzer and the benchmarks wrote when they last ran.
//
//   <!-- file: test/lab/results/rabbitmq-3.10.md -->  ...  <!-- end -->
//
// `npm run readme` puts the files into their blocks; a test compares. Nothing else writes into the README.

import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const ROOT = new URL('../../', import.meta.url)
const README = new URL('README.md', ROOT)
const BLOCK = /<!-- file: (\S+) -->\n.*?<!-- end -->/gs

/** The README as it stands. */
export function readme(): string {
  return readFileSync(README, 'utf8')
}

/** The text with every block as its file says. @throws Error when a file is missing */
export function filled(text: string): string {
  return text.replace(BLOCK, (_, path: string) => {
    const said = readFileSync(new URL(path, ROOT), 'utf8').trim()
    return `<!-- file: ${path} -->\n\n${said}\n\n<!-- end -->`
  })
}

if (process.argv[1] === fileURLToPath(import.meta.url)) writeFileSync(README, filled(readme()))
