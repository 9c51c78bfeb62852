// Rows and their schedules: which troubles come in which order, and which of them at the same time.
//
// A row is a set of faults. Those that touch the same thing take turns in one lane; lanes run beside each other. A lane is dealt
// from a bag: every fault comes once before any comes again. Promises: a seed, a row and a lane give the same schedule, whatever
// the world does meanwhile. Does not promise that the world answers in the same way: who leads a queue is the broker's choice.

import { allFaults } from './faults/all.ts'
import { type Random, randomFrom } from './random.ts'
import type { Cast, Fault, Injection, Limit, Provoked, Touches } from './world.ts'

/** A line of the table. */
export interface Row {
  /** What `--only` names it. */
  readonly id: string
  readonly name: string
  readonly faults: readonly Fault[]
  readonly needs?: 'sentinel' | 'redis-cluster'
  /** Who is in the fleet beside the usual. */
  readonly cast?: Cast
  /** Those of its faults, without repeats. */
  readonly limits: readonly Limit[]
  /** Of a mix: faults of the table that it does not have. */
  readonly leftOut?: readonly string[]
  /** What must have happened at least once, or it proves nothing. */
  readonly provokes: readonly Provoked[]
}

/** One trouble of a schedule. */
export interface Turn extends Injection {
  readonly fault: Fault
  /** Quiet time before it, ms. */
  readonly afterMs: number
}

/** Troubles that take turns, without end. */
export interface Lane {
  readonly touches: Touches
  /** How many different ones it has. */
  readonly size: number
  readonly turns: Iterator<Turn, never>
}

const LEAST_QUIET_MS = 500
const MOST_QUIET_MS = 2_500

/** Every row of the lab, in the order of the table. */
export const allRows: readonly Row[] = [...singles(), ...mixes()]

/** The lanes of a row, each with a stream of choices of its own. */
export function lanesOf(row: Row, seed: number): readonly Lane[] {
  const touched = [...new Set(row.faults.map(({ touches }) => touches))]
  return touched.map((touches) => {
    const faults = row.faults.filter((fault) => fault.touches === touches)
    return { touches, size: faults.length, turns: dealt(faults, randomFrom(hashOf(`${seed}/${row.id}/${touches}`))) }
  })
}

function* dealt(faults: readonly Fault[], random: Random): Generator<Turn, never> {
  for (;;) {
    for (const fault of shuffled(faults, random)) {
      const afterMs = random.between(LEAST_QUIET_MS, MOST_QUIET_MS)
      yield { fault, afterMs, ...fault.deal(random) }
    }
  }
}

function shuffled<T>(from: readonly T[], random: Random): T[] {
  const bag = [...from]
  for (let last = bag.length - 1; last > 0; last--) {
    const other = random.between(0, last)
    ;[bag[last], bag[other]] = [bag[other]!, bag[last]!]
  }
  return bag
}

/** FNV-1a, so that rows and lanes of one seed do not have the same luck. */
function hashOf(text: string): number {
  let hash = 0x811c9dc5
  for (const byte of Buffer.from(text)) hash = Math.imul(hash ^ byte, 0x01000193)
  return hash >>> 0
}

function singles(): Row[] {
  return allFaults.map((fault) => rowOf(fault.id, fault.name, [fault]))
}

/**
 * One without what makes Redis forget, so that nothing but a death explains a repeated effect; and one for each kind of Redis there is.
 * What needs more than the usual processes is in none of them.
 */
function mixes(): Row[] {
  return [
    mixOf('mix', 'several of these at once, at random', ({ limit }) => limit !== 'redis-forgets'),
    mixOf('mix-empty', 'the same, and Redis comes back empty', () => true),
    mixOf('mix-sentinel', 'the same, with failovers by Sentinel', () => true, 'sentinel'),
    mixOf('mix-cluster', 'the same, with masters of a Redis Cluster that die and forget', () => true, 'redis-cluster'),
  ]
}

/** What touches Redis is for one kind of it. */
function mixOf(id: string, name: string, has: (fault: Fault) => boolean, needs?: Row['needs']): Row {
  const fits = (fault: Fault) => !fault.cast && (fault.touches === 'redis' ? fault.needs === needs : !fault.needs)
  const faults = allFaults.filter((fault) => fits(fault) && has(fault))
  const leftOut = allFaults.filter((fault) => !faults.includes(fault)).map((fault) => fault.id)
  return { ...rowOf(id, name, faults), leftOut, ...(needs && { needs }) }
}

function rowOf(id: string, name: string, faults: readonly Fault[]): Row {
  const { needs, cast } = faults[0] ?? {}
  const limits = [...new Set(faults.flatMap(({ limit }) => limit ?? []))]
  // In a mix, it is chance who meets whom.
  const provokes = (faults.length === 1 && faults[0]?.provokes) || []
  return { id, name, faults, limits, provokes, ...(needs && { needs }), ...(cast && { cast }) }
}
