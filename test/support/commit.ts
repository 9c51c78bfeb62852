// Of which code a figure is.

import { execFileSync } from 'node:child_process'
import { realpathSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const ROOT = new URL('../../', import.meta.url)
/** By the lab, the benchmarks, and `npm run readme`. */
const WRITTEN = [':!test/lab/results', ':!test/bench/results', ':!README.md', ':!CHANGELOG.md']

/**
 * The commit of the code, shortly, and whether there are changes to it; undefined where there is no git, or no repository of ours. What
 * an earlier run wrote, and the README that shows it, is no change to the code.
 */
export function commitOf(root: URL = ROOT): string | undefined {
  const cwd = realpathSync(fileURLToPath(root))
  const git = (...args: readonly string[]) =>
    execFileSync('git', args, { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim()
  try {
    if (realpathSync(git('rev-parse', '--show-toplevel')) !== cwd) return undefined
    const changed = git('status', '--porcelain', '--', '.', ...WRITTEN)
    return `${git('rev-parse', '--short', 'HEAD')}${changed === '' ? '' : ' with changes'}`
  } catch {
    return undefined
  }
}
