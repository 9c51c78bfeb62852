// Rows and their schedules: which troubles come in which order, and which of them at the same time.
//
// A row is a set of faults. Those that touch the same thing take turns in one lane; lanes run beside each other. A lane is dealt
// from a bag: every fault comes once before any comes again. Promises: a seed, a row and a lane give the same schedule, whatever
// the world does meanwhile. Does not promise that the world answers in the same way: who leads a queue is the broker's choice.

import { allFaults } from './faults/all.ts'
import { type Random, randomFrom } from './random.ts'
import type { Fault, Injection, Limit, Touches } from './world.ts'

/** A line of the table. */
export interface Row {
  /** What `--only` names it. */
  readonly id: string
  readonly name: string
  readonly faults: readonly Fault[]
  readonly needs?: 'sentinel' | 'redis-cluster'
  /** Those of its faults, without repeats. */
  readonly limits: readonly Limit[]
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
export const allRows: readonly Row[] = [...singles(), mix(), forgetfulMix()]

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

/** Without what makes Redis forget, so that nothing but a death explains a repeated effect. */
function mix(): Row {
  const faults = allFaults.filter(({ needs, limit }) => !needs && limit !== 'redis-forgets')
  return rowOf('mix', 'all of these at random, several at once', faults)
}

function forgetfulMix(): Row {
  const faults = allFaults.filter(({ needs }) => !needs)
  return rowOf('mix-empty', 'the same, and Redis comes back empty', faults)
}

function rowOf(id: string, name: string, faults: readonly Fault[]): Row {
  const needs = faults[0]?.needs
  const limits = [...new Set(faults.flatMap(({ limit }) => limit ?? []))]
  return { id, name, faults, limits, ...(needs && { needs }) }
}
