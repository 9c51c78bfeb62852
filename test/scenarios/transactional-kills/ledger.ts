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
  /** Those with a key, by key, in the order of their commits. */
  readonly keys: ReadonlyMap<string, readonly string[]>
  /** What came out of the first leg, as a witness saw it that remembers all copies; in the order of first arrivals. */
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
  /** Arrived after another one of its key that was committed later. */
  readonly overtaken: readonly string[]
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
export const FAULTS = ['lost', 'phantom', 'overtaken', 'undone', 'doubled', 'unfounded', 'unsaid', 'saidTwice'] as const

/** Compares everything with everything. */
export function reconcile({ committed, keys, arrived, effects, outputs }: Books): Verdict {
  const [came, acted, spoke] = [[...arrived.keys()], [...effects.keys()], [...outputs.keys()]]
  const ids = [...committed]
  const places = new Map(came.map((id, place) => [id, place]))
  return {
    messages: committed.size,
    lost: ids.filter((id) => !arrived.has(id)),
    phantom: came.filter((id) => !committed.has(id)),
    overtaken: [...keys.values()].flatMap((inOrder) => overtakenIn(inOrder, places)),
    undone: ids.filter((id) => arrived.has(id) && !effects.has(id)),
    doubled: acted.filter((id) => effects.get(id)! > 1),
    unfounded: acted.filter((id) => !committed.has(id)),
    unsaid: [...acted.filter((id) => !outputs.has(id)), ...spoke.filter((id) => !effects.has(id))],
    saidTwice: spoke.filter((id) => outputs.get(id)!.size > 1),
    copies: copiesIn(arrived) + [...outputs.values()].reduce((sum, tally) => sum + copiesIn(tally), 0),
  }
}

/** Only what concerns the ids that pass. */
export function bookOf({ committed, keys, arrived, effects, outputs }: Books, mine: (id: string) => boolean): Books {
  const part = <V>(map: ReadonlyMap<string, V>) => new Map([...map].filter(([id]) => mine(id)))
  return {
    committed: new Set([...committed].filter(mine)),
    keys: new Map([...keys].map(([key, ids]) => [key, ids.filter(mine)])),
    arrived: part(arrived),
    effects: part(effects),
    outputs: part(outputs),
  }
}

/** One more. */
export function count(tally: Map<string, number>, id: string): void {
  tally.set(id, (tally.get(id) ?? 0) + 1)
}

/** From the last to the first: whoever came later than the earliest of those behind. */
function overtakenIn(inOrder: readonly string[], places: ReadonlyMap<string, number>): string[] {
  let earliest = Number.POSITIVE_INFINITY
  return inOrder.toReversed().filter((id) => {
    const place = places.get(id)
    if (place === undefined || place > earliest) return place !== undefined
    earliest = place
    return false
  })
}

function copiesIn(tally: Tally): number {
  return [...tally.values()].reduce((sum, times) => sum + times - 1, 0)
}
