// `npm run lab`: injects every fault the lab knows while messages flow, and shows what was kept of each promise.
//
// Promises: says the seed first; the same seed, rows and turns give the same schedule; exits 1 when a promise was broken or a row did
// not come to its end, or the short run had time for too few rows, 2 on wrong usage, 130 or 143 when interrupted; whatever it started is gone afterwards, however it
// ends (`support/guard.ts`). A release that cannot be had is skipped, in words; if none can be had, that is a failure.

import { constants } from 'node:os'
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander'
import { load, machine } from '../bench/machine.ts'
import { commitOf } from '../support/commit.ts'
import { ReleaseUnavailable } from './cluster/releases.ts'
import { type Grounds, openGrounds } from './grounds.ts'
import { allRows, type Row } from './mix.ts'
import { inPlace, type Results, writeResults } from './results.ts'
import { play, type Size, type Tell } from './rounds.ts'
import {
  FULL,
  SHORT,
  SHORT_CLOSING_MS,
  SHORT_LEAST_ROWS,
  SHORT_LEAST_WITHIN_MS,
  SHORT_ROWS,
  SHORT_WITHIN_MS,
} from './sizes.ts'
import { type About, endOf, failings, type Played, table } from './table.ts'
import { TimeLimit } from './time-limit.ts'
import { versionsOf } from './versions.ts'
import type { Release } from './world.ts'

interface Flags {
  readonly short?: true
  readonly only?: readonly Row[]
  readonly seed: number
  readonly release: readonly Release[]
  readonly messages?: number
  readonly turns?: number
  readonly write?: true
  readonly list?: true
}

const RELEASES: readonly Release[] = ['installed', '4.0', '4.3']
const USAGE = 2

const program = new Command('npm run lab --')
  .description('Injects faults while messages flow, and shows what was kept of each promise.')
  .option(
    '--short',
    'a few rows, small, in 5 minutes; on a busy machine in up to 10 for the least that prove something',
  )
  .option('--only <rows>', 'these rows, with commas between; see --list', rowsNamed)
  .addOption(
    new Option('--seed <n>', 'the schedule of an earlier run').argParser(wholeNumber).default(chance(), 'by chance'),
  )
  .addOption(new Option('--release <names...>', 'RabbitMQ releases').choices(RELEASES).default(['installed']))
  .option('--messages <n>', 'messages of a row, at least', wholeNumber)
  .option('--turns <n>', 'faults of a row, of each lane of a mix', wholeNumber)
  .option(
    '--write',
    'write the table into test/lab/results; with --only, these rows in place of those of the last whole run',
  )
  .option('--list', 'name the rows and end')
  .exitOverride()

async function main(): Promise<number> {
  const flags = program.parse().opts<Flags>()
  if (flags.list) return list()
  if (flags.write && flags.short) program.error('error: --write wants rows in full: it makes the table of the README')
  leaveOnSignals(flags.seed)
  say(`seed ${flags.seed}`)
  const results = []
  for (const [i, release] of flags.release.entries())
    results.push(await tryRelease(release, flags, i === 0 ? 0 : performance.now()))
  const had = results.filter((result) => result !== undefined)
  return had.length > 0 && had.every(Boolean) ? 0 : 1
}

function list(): number {
  for (const { id, name } of allRows) console.log(`${id.padEnd(22)} ${name}`)
  return 0
}

/** @returns whether all rows passed; nothing where the release cannot be had */
async function tryRelease(release: Release, flags: Flags, began: number): Promise<boolean | undefined> {
  try {
    return await runOn(release, flags, began)
  } catch (error) {
    if (!(error instanceof ReleaseUnavailable)) throw error
    say(`skipped: ${error.message}`)
    return undefined
  }
}

/** @param began when that was, ms of this process: its start, for the first release */
async function runOn(release: Release, flags: Flags, began: number): Promise<boolean> {
  const at = new Date().toISOString()
  say(`RabbitMQ ${release}: starting three nodes, Redis and Postgres...`)
  await using grounds = await openGrounds(release)
  const versions = await versionsOf(grounds)
  const rows = rowsOf(flags)
  const { played, isCut } = await playAll(rows, grounds, release, flags, timeFor(flags, began))
  const notPlayed = rows.slice(played.length).map(({ id }) => id)
  const code = { commit: commitOf(), load: loadOf(sizeOf(flags)), ...(notPlayed.length > 0 && { notPlayed }) }
  const about: About = { ...code, seed: flags.seed, at, ...sinceThen(began), machine: machine(), versions }
  console.log(`${table(played, about)}\n`)
  if (flags.write) say(`written: ${await write({ rows: played, about }, flags)}`)
  const kept = wasEnough(played, flags) && played.every((row) => endOf(row) === 'kept')
  // A row is still in work: nobody waits for it, and no other release can be played beside it.
  if (isCut) process.exit(kept && release === flags.release.at(-1) ? 0 : 1)
  return kept
}

async function write(results: Results, { only }: Flags): Promise<string> {
  return writeResults(only ? await inPlace(results) : results)
}

function sinceThen(began: number): { readonly seconds: number } {
  return { seconds: (performance.now() - began) / 1_000 }
}

/** Until when rows may be in work. */
function timeFor(flags: Flags, began: number): TimeLimit {
  if (!inShort(flags)) return new TimeLimit(Number.POSITIVE_INFINITY)
  const until = (withinMs: number) => began + withinMs - SHORT_CLOSING_MS
  return new TimeLimit(until(SHORT_WITHIN_MS), { rows: SHORT_LEAST_ROWS, until: until(SHORT_LEAST_WITHIN_MS) })
}

/** The rows of the short run, unless they were named. */
function inShort({ short, only }: Flags): boolean {
  return short === true && only === undefined
}

function wasEnough({ length }: readonly Played[], flags: Flags): boolean {
  if (!inShort(flags) || length >= SHORT_LEAST_ROWS) return true
  say(`FAILED: there was time for ${length} rows, and ${SHORT_LEAST_ROWS} are the least that prove something`)
  return false
}

async function playAll(
  rows: readonly Row[],
  grounds: Grounds,
  release: Release,
  flags: Flags,
  limit: TimeLimit,
): Promise<{ readonly played: readonly Played[]; readonly isCut: boolean }> {
  const played: Played[] = []
  for (const row of rows) {
    const tell = (line: string) => say(`[${played.length + 1}/${rows.length}] ${row.id}: ${line}`)
    if (!limit.hasTime()) return { played, isCut: false }
    const result = await limit.atMost(play(row, grounds, flags.seed, sizeOf(flags), tell))
    if (!result) return { played, isCut: true }
    conclude(result, again(row, release, flags), tell)
    played.push(result)
  }
  return { played, isCut: false }
}

/** In words: how much, and how busy the machine was with it and with all else. */
function loadOf({ messages, turns, mixTurns, fleet }: Size): string {
  const { direct = 0, outbox = 0 } = fleet.perSecond ?? {}
  const rate = `${direct} + ${outbox} offered a second (publisher confirms + outbox)`
  const faults = `${turns} ${turns === 1 ? 'fault' : 'faults'} a row, up to ${mixTurns} in each lane of a mix`
  return `at least ${messages.toLocaleString('en-US')} messages a row, ${rate}, ${faults}; load average at the end ${load()}`
}

/** The row's end, and where it is bad what is needed to look into it. */
function conclude(result: Played, command: string, tell: Tell): void {
  const { verdict, seconds, injected } = result
  const wrong = failings(result)
  const sum = `${verdict.messages} messages, ${injected} faults, ${seconds.toFixed(0)} s`
  tell(wrong.length === 0 ? `kept: ${sum}` : `${endOf(result)}: ${wrong.join('; ')} (${sum})`)
  if (wrong.length === 0) return
  for (const line of verdict.evidence) tell(`  ${line}`)
  tell(`again with: ${command}`)
}

/** The command that plays a row as this run did. */
function again({ id }: Row, release: Release, { seed, short, messages, turns }: Flags): string {
  const sizes = [short && '--short', messages && `--messages ${messages}`, turns && `--turns ${turns}`]
  return ['npm run lab --', ...sizes, `--only ${id} --seed ${seed} --release ${release}`].filter(Boolean).join(' ')
}

function rowsOf({ only, short }: Flags): readonly Row[] {
  return only ?? (short ? SHORT_ROWS.map(rowNamed) : allRows)
}

function sizeOf({ short, messages, turns }: Flags): Size {
  const size = short ? SHORT : FULL
  return { ...size, ...(messages && { messages }), ...(turns && { turns, mixTurns: turns }) }
}

function rowsNamed(text: string): readonly Row[] {
  return text.split(',').map(rowNamed)
}

function rowNamed(name: string): Row {
  const row = allRows.find(({ id }) => id === name.trim())
  if (row) return row
  throw new InvalidArgumentError(`there is no row "${name}"; --list names them all`)
}

function wholeNumber(text: string): number {
  const value = Number(text)
  if (Number.isSafeInteger(value) && value > 0) return value
  throw new InvalidArgumentError('expected a whole number above 0')
}

function chance(): number {
  return 1 + Math.floor(Math.random() * 1_000_000)
}

/** All that was started is guarded: it ends with this process, which therefore need not wait for anything. */
function leaveOnSignals(seed: number): void {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.once(signal, () => {
      say(`interrupted; the seed was ${seed}`)
      process.exit(128 + constants.signals[signal])
    })
  }
}

function say(line: string): void {
  console.error(line)
}

main().then(
  (code) => process.exit(code),
  (error: unknown) => {
    if (error instanceof CommanderError) process.exit(error.exitCode === 0 ? 0 : USAGE)
    say(error instanceof Error ? (error.stack ?? error.message) : String(error))
    process.exit(1)
  },
)
