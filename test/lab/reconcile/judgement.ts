// What a judge of one part of a run finds, beside `reconcile.ts`, and how that is added to its verdict.

import type { Verdict } from '../world.ts'

/** One broken promise. */
export interface Finding {
  readonly kind: 'lost' | 'doubled' | 'zombies' | 'outOfOrder' | 'phantom' | 'left'
  readonly id: string
  readonly why: string
}

/** What one judge says. */
export interface Judgement {
  readonly findings: readonly Finding[]
  /** What was tried, and how often. */
  readonly counts: Readonly<Record<string, number>>
  /** What the row is there to try, and never came to, in words: it proves nothing then. */
  readonly untried: readonly string[]
}

const TOLD = 10

/** Faults are added to their counts, and the first few are told. */
export function withJudgement<V extends Verdict>(verdict: V, { findings }: Judgement): V {
  const more: Record<string, number> = {}
  for (const { kind } of findings) more[kind] = (more[kind] ?? verdict[kind]) + 1
  const told = findings.slice(0, TOLD).map(({ kind, id, why }) => `${kind}: ${id}: ${why}`)
  return { ...verdict, ...more, evidence: [...verdict.evidence, ...told] }
}

export function addAll<T>(to: T[], more: readonly T[]): void {
  for (const one of more) to.push(one)
}
