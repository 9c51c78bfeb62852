// Made-up histories, to test the reconciliation with: scripts of what happens to one key's messages, played together in a random
// order. Process 8 dies, and process 9 is silent for two leases, between the first act and the second.

import type { Entry, Fate, Noted, Outcome, Path } from '../ledger.ts'
import type { Random } from '../random.ts'

/** An entry without its time; some need the time of an earlier one of the script. */
type Line = Entry extends infer E ? (E extends Entry ? Omit<E, 'at'> & { readonly by: number } : never) : never

/** What happens in the first act, and what in the second. */
export interface Script {
  readonly first: readonly Line[]
  readonly second: readonly Line[]
}

export const DIES = 8
export const FALLS_SILENT = 9
export const LEASE_MS = 1
export const CONCURRENCY = 4
/** Of the retry policy; the delay is shorter than what lies between the acts. */
export const ATTEMPTS = 2
const DELAY_MS = LEASE_MS
const PRODUCER = 1
const SLICE_NS = 1_000

/** What else happens between the acts: Redis forgets all, or what it is told while it does. */
export interface World {
  readonly redelivered?: 'front' | 'back'
  readonly forgets?: 'all' | 'the last'
}

/** Plays all scripts together: lines of one script keep their order, those of different ones mix as chance will. */
export function play(
  scripts: readonly Script[],
  random: Random,
  { redelivered = 'front', forgets }: World = {},
): Noted[] {
  const noted: Noted[] = []
  let at = 5 * LEASE_MS * 1e6
  const note = (line: Line) => {
    // The store was asked a moment before it answered.
    const since = 'since' in line && line.is !== 'forgot' ? { since: at + SLICE_NS / 2 } : {}
    at += SLICE_NS
    noted.push({ ...line, ...since, at } as Noted)
  }
  const policy = { attempts: ATTEMPTS, delayMs: DELAY_MS }
  const rules = { leaseMs: LEASE_MS, concurrency: CONCURRENCY, inOrder: ['outbox' as const], redelivered, ...policy }
  note({ is: 'rules', by: 0, ...rules })
  for (const worker of [2, 3, DIES, FALLS_SILENT]) note({ is: 'born', by: 0, worker, role: 'consumer' })
  for (const worker of [4, 5]) note({ is: 'born', by: 0, worker, role: 'inbox-consumer' })
  mixed([...scripts.map(({ first }) => first)], random).forEach(note)
  const silentFrom = at
  note({ is: 'died', by: 0, worker: DIES, how: 'killed' })
  if (forgets) note({ is: 'forgot', by: 0, from: at, since: forgets === 'all' ? 0 : at })
  at += 2 * LEASE_MS * 1e6
  note({ is: 'silent', by: FALLS_SILENT, from: silentFrom })
  mixed([...scripts.map(({ second }) => second)], random).forEach(note)
  return byFiles(noted, random)
}

/** As they are read: file after file, in any order of the files. */
function byFiles(noted: readonly Noted[], random: Random): Noted[] {
  const files = new Map<number, Noted[]>()
  for (const entry of noted) files.set(entry.by, [...(files.get(entry.by) ?? []), entry])
  return shuffled([...files.values()], random).flat()
}

function mixed<T>(lists: readonly (readonly T[])[], random: Random): T[] {
  const turns = shuffled(
    lists.flatMap((list, i) => list.map(() => i)),
    random,
  )
  const next = lists.map(() => 0)
  return turns.map((i) => lists[i]![next[i]!++]!)
}

function shuffled<T>(list: T[], random: Random): T[] {
  for (let i = list.length - 1; i > 0; i--) {
    const j = random.between(0, i)
    const [a, b] = [list[i]!, list[j]!]
    list[i] = b
    list[j] = a
  }
  return list
}

/** One message, named by its key and number. */
export class Telling {
  readonly id: string
  readonly #path: Path
  readonly #key: string
  readonly #n: number

  constructor(path: Path, key: string, n = 1) {
    this.id = `${key}/${n}`
    this.#path = path
    this.#key = key
    this.#n = n
  }

  offered(fate: Fate = 'well'): Line[] {
    const { id } = this
    return [{ is: 'offered', by: PRODUCER, id, path: this.#path, key: this.#key, n: this.#n, fate }]
  }

  told(...outcomes: readonly Outcome[]): Line[] {
    return outcomes.map((outcome) => ({ is: 'told', by: PRODUCER, id: this.id, outcome }))
  }

  /** Offered and confirmed. */
  accepted(fate: Fate = 'well'): Line[] {
    return [...this.offered(fate), ...this.told('confirmed')]
  }

  withdrawn(): Line[] {
    return [{ is: 'withdrawn', by: PRODUCER, id: this.id }]
  }

  started(by: number, token: number, attempt = 1): Line[] {
    return [{ is: 'started', by, id: this.id, token, attempt, generation: 0 }]
  }

  /** A run that fails by an error of its own, and is recorded so. */
  failed(by: number, token: number, attempt = 1): Line[] {
    return [...this.threw(by, token, attempt), ...this.ended(by, token, 'failed')]
  }

  threw(by: number, token: number, attempt = 1): Line[] {
    return [...this.started(by, token, attempt), { is: 'threw', by, id: this.id, token }]
  }

  effect(by: number, token: number): Line[] {
    return [{ is: 'effect', by, id: this.id, token }]
  }

  ended(by: number, token: number, as: 'completed' | 'failed' | 'dead' = 'completed'): Line[] {
    return [{ is: 'ended', by, id: this.id, token, since: 0, as }]
  }

  /** A whole run. */
  run(by: number, token: number, attempt = 1): Line[] {
    return [...this.started(by, token, attempt), ...this.effect(by, token), ...this.ended(by, token)]
  }

  dropped(by: number): Line[] {
    return [{ is: 'dropped', by, id: this.id }]
  }

  committed(): Line[] {
    return [{ is: 'committed', by: 0, id: this.id }]
  }

  /** An effect of the outbox path, and that it was recorded. */
  done(by: number, place: number): Line[] {
    const { id } = this
    return [
      { is: 'done', by: 0, id, place },
      { is: 'ended', by, id, token: 0, since: 0, as: 'completed' },
    ]
  }

  output(by: number, name = 'said'): Line[] {
    return [{ is: 'output', by, id: `${this.id} ${name}`, of: this.id }]
  }

  dead(why = 'fails for good'): Line[] {
    return [{ is: 'dead', by: 0, id: this.id, why }]
  }

  left(): Line[] {
    return [{ is: 'left', by: 0, id: this.id, where: 'a queue' }]
  }
}
