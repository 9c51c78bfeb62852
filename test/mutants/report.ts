// What a run of the mutants prints: a line for each as it goes, and a table at the end.

import Table from 'cli-table3'
import pc from 'picocolors'
import type { Mutant } from './mutant.ts'
import type { Failure, Verdict } from './trial.ts'

/** How one mutant fared. */
export interface Fate {
  readonly mutant: Mutant
  readonly verdict: Verdict
}

const WIDEST = 160
const NARROWEST = 100
const NAME = 34
/** No lines: fifty rows in boxes are hard to read. */
const BARE = Object.fromEntries(
  ['top', 'bottom', 'left', 'right', 'mid'].flatMap((side) =>
    ['', '-mid', '-left', '-right'].map((part) => [`${side}${part}`, '']),
  ),
)

/** It was noticed by a test that ran. */
export function isCaught({ verdict }: Fate): boolean {
  return verdict.trouble === undefined && verdict.failed.length > 0
}

/** One line while the run goes on. */
export function lineOf(fate: Fate, at: { readonly n: number; readonly of: number }): string {
  const { mutant, verdict } = fate
  const place = `${String(at.n).padStart(String(at.of).length)}/${at.of}`
  const seconds = `${verdict.seconds.toFixed(1)} s`.padStart(7)
  const what = isCaught(fate) ? pc.green('caught  ') : pc.red(verdict.trouble ? 'trouble ' : 'SURVIVED')
  return `${pc.dim(place)} ${what} ${pc.dim(seconds)}  ${mutant.name.padEnd(NAME)} ${pc.dim(whyOf(verdict))}`
}

/** What the first failing test said: a mutant should be noticed for what it breaks. */
function whyOf({ trouble, failed }: Verdict): string {
  return (trouble ?? failed[0]?.why ?? '').slice(0, WIDEST - NAME)
}

/** The mutants as they are, for `--list`. */
export function listOf(mutants: readonly Mutant[]): string {
  const rows = mutants.map(({ name, breaks, file, tests }) => [name, breaks, file, tests.files.join('\n')])
  return table(['mutant', 'breaks', 'in', 'must be caught by'], rows, [0.21, 0.29, 0.24, 0.26])
}

/** The end of a run. */
export function tableOf(fates: readonly Fate[]): string {
  const rows = fates.map((fate) => [
    fate.mutant.name,
    fate.mutant.breaks,
    caughtBy(fate),
    fate.verdict.seconds.toFixed(1),
  ])
  return table(['mutant', 'breaks', 'caught by', 's'], rows, [0.21, 0.36, 0.37, 0.06])
}

/** Failures of tests that must pass. */
export function failuresOf(failed: readonly Failure[]): string {
  return failed.map(({ title, why }) => `  ${title}\n    ${why}`).join('\n')
}

function caughtBy({ verdict }: Fate): string {
  if (verdict.trouble !== undefined) return `TROUBLE: ${verdict.trouble}`
  const [first] = verdict.failed
  if (!first) return `NOBODY: ${verdict.passed.length} test${verdict.passed.length === 1 ? '' : 's'} passed`
  return first.title
}

function table(head: readonly string[], rows: readonly string[][], shares: readonly number[]): string {
  const width = Math.max(NARROWEST, Math.min(WIDEST, process.stdout.columns ?? WIDEST))
  const colWidths = shares.map((share) => Math.floor(share * width))
  const made = new Table({
    colWidths,
    wordWrap: true,
    chars: { ...BARE, middle: ' ' },
    style: { head: [], border: [], 'padding-left': 0 },
  })
  made.push(
    head.map((word) => pc.bold(word)),
    ...rows,
  )
  return made.toString()
}
