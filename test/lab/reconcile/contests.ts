// What processes made of each other's runs of one message: how often a run was taken over while it lived, and what it tried then. Pure.
//
// Counts, and judges nothing: a row in which nobody was taken over proves nothing about the fence.

import { effective } from './runs.ts'
import { type Life, NEVER, type Run, type Story } from './stories.ts'

/** Of one message. */
export interface Contest {
  /** Runs whose message another process began anew, while theirs was alive and had not ended. */
  readonly takenOver: number
  /** Of those, how many tried their effect or their end afterwards, and were refused. */
  readonly refused: number
}

const UNCONTESTED: Contest = { takenOver: 0, refused: 0 }

/** See the head of this file. */
export function contestOf({ runs }: Story, lives: ReadonlyMap<number, Life>): Contest {
  if (runs.length < 2) return UNCONTESTED
  const effects = effective(runs)
  const taken = runs.flatMap((run) => {
    const by = runs.find((other) => takesOver(other, run, lives.get(run.by)?.died ?? NEVER))
    return by ? [{ run, from: by.started }] : []
  })
  const tried = taken.filter(({ run, from }) => {
    const lateEffect = run.effect !== NEVER && run.effect > from && !effects.includes(run)
    return lateEffect || (run.refused !== NEVER && run.refused > from)
  })
  return { takenOver: taken.length, refused: tried.length }
}

function takesOver(other: Run, run: Run, died: number): boolean {
  if (other.by === run.by || other.token <= run.token || run.started === NEVER || other.started === NEVER) return false
  return other.started > run.started && other.started < died && other.started < run.endSince
}
