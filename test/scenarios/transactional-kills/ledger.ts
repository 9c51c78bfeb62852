// Reconciles what was committed with what arrived and what it did. Pure.
//
// Promises: every committed message that did not arrive, every arrival that was never committed, and every effect too few or too
// many is named, one by one. Copies of a message on the wire are counted; they are no fault.

/** Message id -> how often. */
export type Tally = ReadonlyMap<string, number>

/** What is known at the end. */
export interface Books {
  /** Ids of the messages of committed transactions: read from what the business wrote, the truth. */
  readonly committed: ReadonlySet<string>
  /** What came out of the first leg, as a witness saw it that remembers all copies. */
  readonly arrived: Tally
  /** Message id -> how many effects it had. */
  readonly effects: Tally
  /** Message id -> ids of the messages that its handler sent, with their copies, as the second witness saw them. */
  readonly outputs: ReadonlyMap<string, Tally>
}

/** What came of it. The lists must be empty. */
export interface Verdict {
  readonly messages: number
  /** Committed, and never arrived. */
  readonly lost: readonly string[]
  /** Arrived, and never committed. */
  readonly phantom: readonly string[]
  /** Arrived, and had no effect. */
  readonly undone: readonly string[]
  /** More than one effect. */
  readonly doubled: readonly string[]
  /** An effect of something that was never committed. */
  readonly unfounded: readonly string[]
  /** An effect whose message of its own did not come out of the second leg, and the other way round. */
  readonly unsaid: readonly string[]
  /** An effect that spoke with two ids: the copy would not be dropped. */
  readonly saidTwice: readonly string[]
  /** Copies beyond the first, of both legs: dropped by their id. */
  readonly copies: number
}

/** The lists of a verdict that must be empty. */
export const FAULTS = ['lost', 'phantom', 'undone', 'doubled', 'unfounded', 'unsaid', 'saidTwice'] as const

/** Compares everything with everything. */
export function reconcile({ committed, arrived, effects, outputs }: Books): Verdict {
  const [came, acted, spoke] = [[...arrived.keys()], [...effects.keys()], [...outputs.keys()]]
  const ids = [...committed]
  return {
    messages: committed.size,
    lost: ids.filter((id) => !arrived.has(id)),
    phantom: came.filter((id) => !committed.has(id)),
    undone: ids.filter((id) => arrived.has(id) && !effects.has(id)),
    doubled: acted.filter((id) => effects.get(id)! > 1),
    unfounded: acted.filter((id) => !committed.has(id)),
    unsaid: [...acted.filter((id) => !outputs.has(id)), ...spoke.filter((id) => !effects.has(id))],
    saidTwice: spoke.filter((id) => outputs.get(id)!.size > 1),
    copies: copiesIn(arrived) + [...outputs.values()].reduce((sum, tally) => sum + copiesIn(tally), 0),
  }
}

/** Only what concerns the ids that pass. */
export function bookOf({ committed, arrived, effects, outputs }: Books, mine: (id: string) => boolean): Books {
  const part = <V>(map: ReadonlyMap<string, V>) => new Map([...map].filter(([id]) => mine(id)))
  return {
    committed: new Set([...committed].filter(mine)),
    arrived: part(arrived),
    effects: part(effects),
    outputs: part(outputs),
  }
}

/** One more. */
export function count(tally: Map<string, number>, id: string): void {
  tally.set(id, (tally.get(id) ?? 0) + 1)
}

function copiesIn(tally: Tally): number {
  return [...tally.values()].reduce((sum, times) => sum + times - 1, 0)
}
