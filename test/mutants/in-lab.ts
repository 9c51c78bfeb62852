// One row of the fault lab on a copy of the repository: is a fault in the code seen from outside, by the ledger alone?
//
// Promises: the lab ends within its time, and what it started with it. A row that broke another promise than the fault does, or that
// was not tried to its end, is trouble and not a catch.

import { type ChildProcess, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { guard } from '../support/guard.ts'
import type { Mutant } from './mutant.ts'
import type { Failure, Verdict } from './trial.ts'

/** Which row of the lab sees a fault, and by which column of its table. */
export interface Sight {
  readonly row: string
  readonly column: 'lost' | 'doubled' | 'zombies' | 'attempts' | 'outOfOrder' | 'phantom' | 'left'
}

/** A mutant that the lab must notice, too. */
export interface Seen {
  readonly mutant: Mutant
  readonly sight: Sight
}

/** By the name of the mutant: those that a short row is sure to show. */
export const SIGHTS: Readonly<Record<string, Sight>> = {
  'nack-taken-for-ack': { row: 'full-queue', column: 'lost' },
  'confirm-lost-means-stored': { row: 'cut-rst', column: 'lost' },
  'redis-completed-not-final': { row: 'acks-lost', column: 'doubled' },
  'retry-not-counted': { row: 'kill-consumer', column: 'left' },
  'replay-without-generation': { row: 'kill-operator', column: 'lost' },
  'redis-two-live-owners': { row: 'zombie-consumer', column: 'doubled' },
}

const CLOSING_MS = 30_000
const LAST_LINES = 12
const KEPT = 0
const NOT_KEPT = 1

/** Those of these mutants that the lab must notice. */
export function seenOf(mutants: readonly Mutant[]): readonly Seen[] {
  return mutants.flatMap((mutant) => {
    const sight = SIGHTS[mutant.name]
    return sight ? [{ mutant, sight }] : []
  })
}

/** Plays the row of a mutant that stands in the copy. */
export async function triedInLab(
  folder: string,
  { row, column }: Sight,
  seed: number,
  withinMs: number,
): Promise<Verdict> {
  const { code, lines, seconds } = await played(folder, [row], seed, withinMs)
  const [, broken] = matched(lines, row, 'BROKEN') ?? []
  const failed = broken?.includes(`${column} `) ? [{ title: `lab, row ${row}`, why: broken }] : []
  if (code === NOT_KEPT && failed.length > 0) return { passed: [], failed, trouble: undefined, seconds }
  const passed = code === KEPT ? [`lab, row ${row}`] : []
  const trouble = code === KEPT ? undefined : `expected ${column} in row ${row}, got exit ${code}: ${lastOf(lines)}`
  return { passed, failed: [], trouble, seconds }
}

/** Plays the rows of these mutants without any of them. */
export async function keptInLab(
  folder: string,
  seen: readonly Seen[],
  seed: number,
  withinMs: number,
): Promise<Verdict> {
  const rows = [...new Set(seen.map(({ sight }) => sight.row))]
  const { code, lines, seconds } = await played(folder, rows, seed, withinMs)
  const failed = rows.flatMap((row): Failure[] => {
    const [, why] = matched(lines, row, '(?:BROKEN|NOT TRIED TO THE END)') ?? []
    return why === undefined ? [] : [{ title: `lab, row ${row}`, why }]
  })
  const trouble = code === KEPT || failed.length > 0 ? undefined : `the lab ended with ${code}:\n${lastOf(lines)}`
  return { passed: rows.filter((row) => matched(lines, row, 'kept')), failed, trouble, seconds }
}

function lastOf(lines: readonly string[]): string {
  return lines.slice(-LAST_LINES).join('\n')
}

function matched(lines: readonly string[], row: string, end: string): RegExpExecArray | undefined {
  const pattern = new RegExp(`^\\[\\d+/\\d+\\] ${row}: ${end}: (.*)$`)
  return lines.map((line) => pattern.exec(line)).find((found) => found !== null) ?? undefined
}

interface Run {
  readonly code: number | NodeJS.Signals
  readonly lines: readonly string[]
  readonly seconds: number
}

async function played(folder: string, rows: readonly string[], seed: number, withinMs: number): Promise<Run> {
  const began = performance.now()
  const args = ['--import', 'tsx', 'test/lab/run.ts', '--short', '--only', rows.join(','), '--seed', `${seed}`]
  const child = spawn(process.execPath, args, { cwd: folder, stdio: ['ignore', 'ignore', 'pipe'] })
  const release = child.pid === undefined ? () => {} : guard({ pid: child.pid })
  const lines: string[] = []
  createInterface({ input: child.stderr }).on('line', (line) => lines.push(line))
  const late = setTimeout(() => child.kill('SIGTERM'), withinMs)
  const tooLate = setTimeout(() => child.kill('SIGKILL'), withinMs + CLOSING_MS)
  const code = await ended(child)
  clearTimeout(late)
  clearTimeout(tooLate)
  release()
  return { code, lines, seconds: (performance.now() - began) / 1_000 }
}

function ended(child: ChildProcess): Promise<number | NodeJS.Signals> {
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code, signal) => resolve(signal ?? code ?? 1))
  })
}
