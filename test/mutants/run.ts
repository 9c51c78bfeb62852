// `npm run test:mutants`: faults made by hand, one after another, in a copy of the code; for each, the tests that must notice it.
//
//   check the texts, and that every title has a test ─▶ copy ─▶ each mutant: put in, test, take out ─▶ the tests without a fault ─▶ table
//
// Promises: the checkout is not touched; a mutant that nobody notices, one whose text is not in the code exactly once, and tests
// that fail without a fault make the command fail. These run last: on the same services, which so did all the time what tests ask of them,
// and over whatever the mutants left in them. What the machine held up is tried once more. Does NOT promise that faults other than these are noticed.

import { Command, InvalidArgumentError } from 'commander'
import { mutants as all } from './all.ts'
import { Copy, ROOT } from './copy.ts'
import { keptInLab, type Seen, seenOf, triedInLab } from './in-lab.ts'
import { faulty, type Mutant } from './mutant.ts'
import { type Fate, failuresOf, isCaught, lineOf, listOf, tableOf } from './report.ts'
import { silentOf } from './services.ts'
import { confirmed, settled, tried } from './trial.ts'

const MUTANT_MS = 120_000
const BASELINE_MS = 600_000
/** Three brokers are started for it. */
const LAB_ROW_MS = 300_000
const SEED = 1

interface Flags {
  readonly only?: readonly Mutant[]
  readonly list?: true
  readonly lab?: true
  readonly seed: number
}

async function main(): Promise<number> {
  const { only: mutants = all, list, lab, seed } = flags()
  await Promise.all(all.map((mutant) => faulty(ROOT, mutant)))
  if (list) {
    console.log(listOf(mutants))
    return 0
  }
  if (!lab) refuseWithoutServices()
  await using copy = await Copy.make()
  if (lab) return await showInLab(copy, seenOf(mutants), seed)
  if (!(await haveTests(copy, mutants, seed))) return 1
  const fates = await tryAll(copy, mutants, seed)
  const late = await passWithout(copy, mutants, seed)
  const sure = await sureOf(fates, late ?? [], (doubtful) => tryAll(copy, doubtful, seed))
  console.log(`\n${tableOf(sure)}`)
  return Math.max(summary(sure), late ? 0 : 1)
}

function flags(): Flags {
  const program = new Command('npm run test:mutants --')
    .description('Puts faults into a copy of the code, one by one, and sees that the tests notice each.')
    .option('--only <name>', 'this mutant only; may be given more than once', named)
    .option('--lab', 'have the fault lab notice them, by the ledger alone: those that can be seen from outside')
    .option('--list', 'show the mutants, and try none')
    .option('--seed <number>', 'for tests that make random choices', whole, SEED)
    .showHelpAfterError()
  return program.parse().opts<Flags>()
}

function whole(text: string): number {
  if (/^-?\d{1,9}$/.test(text)) return Number(text)
  throw new InvalidArgumentError('Expected a whole number.')
}

function named(name: string, before: readonly Mutant[] = []): readonly Mutant[] {
  const mutant = all.find((one) => one.name === name)
  if (!mutant) throw new InvalidArgumentError(`There is no such mutant; --list shows all.`)
  return [...before, mutant]
}

function refuseWithoutServices(): void {
  for (const name of ['AMQP_URL', 'REDIS_URL', 'DATABASE_URL'])
    if (!process.env[name]) throw new Error(`expected ${name} in the environment: use npm run test:mutants`)
}

async function showInLab(copy: Copy, seen: readonly Seen[], seed: number): Promise<number> {
  console.error(`Without a fault: the rows of ${seen.length} mutants...`)
  const { passed, failed, trouble, seconds } = await keptInLab(copy.folder, seen, seed, seen.length * LAB_ROW_MS)
  if (trouble) console.error(`TROUBLE: ${trouble}`)
  if (failed.length > 0)
    console.error(`These rows fail without a fault, so they cannot show one:\n${failuresOf(failed)}`)
  if (trouble || failed.length > 0) return 1
  console.error(`Without a fault: ${passed.length} rows kept all promises (${seconds.toFixed(0)} s).\n`)
  const fates: Fate[] = []
  for (const { mutant, sight } of seen) {
    const verdict = await copy.with(mutant, () => triedInLab(copy.folder, sight, seed, LAB_ROW_MS))
    fates.push({ mutant, verdict })
    console.error(lineOf(fates.at(-1)!, { n: fates.length, of: seen.length }))
  }
  console.log(`\n${tableOf(fates)}`)
  return summary(fates)
}

function testsOf(mutants: readonly Mutant[]): Mutant['tests'] {
  const files = [...new Set(mutants.flatMap(({ tests }) => tests.files))]
  const titled = [...new Set(mutants.flatMap(({ tests }) => tests.titled))]
  return { files, titled }
}

/** A title that no test has notices nothing; nor does a test where a service is missing. */
async function haveTests(copy: Copy, mutants: readonly Mutant[], seed: number): Promise<boolean> {
  const { files, titled } = testsOf(mutants)
  const { passed, trouble } = await tried(copy.folder, {
    files,
    titled,
    seed,
    bail: false,
    withinMs: BASELINE_MS,
    dry: true,
  })
  const silent = await silentOf(process.env)
  const missing = titled.filter((part) => !passed.some((it) => it.includes(part)))
  if (trouble) console.error(`TROUBLE: ${trouble}`)
  if (silent) console.error(`TROUBLE: ${silent}`)
  if (missing.length > 0) console.error(`No test has these words in its title:\n  ${missing.join('\n  ')}`)
  return !trouble && !silent && missing.length === 0
}

/**
 * Tests that fail anyway notice nothing. Those that fail are tried once more, as in every run of the tests.
 * @returns the titles of those that passed only then; undefined where some do not pass
 */
async function passWithout(
  copy: Copy,
  mutants: readonly Mutant[],
  seed: number,
): Promise<readonly string[] | undefined> {
  const { files, titled } = testsOf(mutants)
  console.error(`\nWithout a fault: the tests of ${mutants.length} mutants in ${files.length} files...`)
  const run = (of: readonly string[]) =>
    settled(() => tried(copy.folder, { files, titled: of, seed, bail: false, withinMs: BASELINE_MS }))
  const first = await run(titled)
  const late = first.failed.map(({ title }) => title)
  if (late.length > 0) console.error(`These fail without a fault; once more:\n${failuresOf(first.failed)}`)
  const { passed, failed, trouble, seconds } = late.length > 0 && !first.trouble ? await run(late) : first
  if (trouble) console.error(`TROUBLE: ${trouble}`)
  if (failed.length > 0)
    console.error(`These fail without a fault, so they have shown none above:\n${failuresOf(failed)}`)
  if (trouble || failed.length > 0) return undefined
  console.error(`Without a fault: ${passed.length} tests pass (${seconds.toFixed(0)} s).`)
  return late
}

/** What was noticed by a test that has also failed without a fault must be noticed once more. */
async function sureOf(
  fates: readonly Fate[],
  late: readonly string[],
  again: (doubtful: readonly Mutant[]) => Promise<readonly Fate[]>,
): Promise<readonly Fate[]> {
  const isDoubtful = ({ verdict }: Fate) => verdict.failed.some(({ title }) => late.includes(title))
  const doubtful = fates.filter(isDoubtful)
  return doubtful.length === 0
    ? fates
    : [...fates.filter((fate) => !isDoubtful(fate)), ...(await again(doubtful.map(({ mutant }) => mutant)))]
}

async function tryAll(copy: Copy, mutants: readonly Mutant[], seed: number): Promise<readonly Fate[]> {
  const fates: Fate[] = []
  for (const mutant of mutants) {
    const trial = { ...mutant.tests, seed, bail: true, withinMs: MUTANT_MS }
    const run = () => tried(copy.folder, trial)
    const verdict = await settled(async () => confirmed(await copy.with(mutant, run), run, process.env))
    const fate = { mutant, verdict }
    fates.push(fate)
    console.error(lineOf(fate, { n: fates.length, of: mutants.length }))
  }
  return fates
}

function summary(fates: readonly Fate[]): number {
  const left = fates.filter((fate) => !isCaught(fate))
  const seconds = fates.reduce((sum, { verdict }) => sum + verdict.seconds, 0)
  console.log(`\n${fates.length - left.length} of ${fates.length} caught, in ${seconds.toFixed(0)} s.`)
  if (left.length > 0)
    console.log(`Not caught, so a test is missing: ${left.map(({ mutant }) => mutant.name).join(', ')}`)
  return left.length > 0 ? 1 : 0
}

main().then(
  (code) => {
    process.exitCode = code
  },
  (error: unknown) => {
    console.error(error instanceof Error ? error.message : error)
    process.exitCode = 1
  },
)
