// Reconciles what was offered with what came of it, from the ledger alone. Pure.

import type { Noted } from './ledger.ts'
import type { Limit, Verdict } from './world.ts'

/** What the run promised, beyond what always holds. */
export interface Promised {
  /** Paths on which the messages of a key are handled in order: one consumer process that nothing happened to, or single active consumers of RabbitMQ 4. */
  readonly inOrder?: readonly ('direct' | 'outbox')[]
  /** Limits of the README that the faults of this run reach. A process's death is known from the ledger, and need not be said. */
  readonly limits?: readonly Limit[]
  /** Most handlers at a time in one consumer process: a death explains no more repeated effects than that. */
  readonly concurrency?: number
}

/** Goes through all entries once, in any order of the files. */
export function reconcile(_entries: Iterable<Noted>, _promised: Promised = {}): Verdict {
  throw new Error('not written yet')
}
