// The story of each message, gathered from entries that come in any order of the files.

import type { End, Fate, Noted, Path } from '../ledger.ts'

/** One run of a handler on the direct path, known by its fencing token. Times in ns; `NEVER` where there is none. */
export interface Run {
  readonly token: number
  readonly by: number
  starts: number
  started: number
  effect: number
  /** When the store was first asked to record its end, if it did. */
  endSince: number
  end: End | undefined
}

/** All that is known of one message. */
export interface Story {
  readonly id: string
  path: Path
  /** Undefined: nobody has offered it. */
  key: string | undefined
  n: number
  fate: Fate
  /** When whoever offered it was told that it is accepted. */
  confirmed: number
  /** Its business row is there at the end. */
  committed: boolean
  readonly runs: Run[]
  /** When it was first recorded as completed, on the outbox path. */
  completed: number
  /** Where its effects stand among those in the database. */
  places: readonly number[]
  outputs: ReadonlySet<string>
  dead: string | undefined
  left: string | undefined
}

/** One process. */
export interface Life {
  role: string
  died: number
  how: 'killed' | 'closed' | 'crashed' | undefined
  /** Pairs: from, until. */
  readonly silences: (readonly [number, number])[]
  /** When a consumer of it lost its channel. */
  readonly unmoored: number[]
}

const NOTHING: ReadonlySet<string> = new Set()
const NOWHERE: readonly number[] = []

/** The time of what did not happen. */
export const NEVER = Number.POSITIVE_INFINITY

/** See the head of this file. */
export class Stories {
  readonly byId = new Map<string, Story>()
  readonly lives = new Map<number, Life>()
  leaseNs = 0
  concurrency = Number.POSITIVE_INFINITY
  inOrder: readonly Path[] = []
  redelivered: 'front' | 'back' = 'front'
  /** How many entries of each kind; what was told by its outcome, ends by their kind. */
  readonly counts: Record<string, number> = {}
  /** Time of the earliest entry. */
  began = Number.POSITIVE_INFINITY

  constructor(entries: Iterable<Noted>) {
    for (const entry of entries) this.#take(entry)
  }

  #take(entry: Noted): void {
    if (entry.at < this.began) this.began = entry.at
    const { is } = entry
    const what = is === 'told' ? entry.outcome : is === 'ended' ? entry.as : is
    this.counts[what] = (this.counts[what] ?? 0) + 1
    if (is === 'rules') this.#rules(entry)
    else if (is === 'silent') this.#silent(entry)
    else if (is === 'born') this.#life(entry.worker).role = entry.role
    else if (is === 'died') Object.assign(this.#life(entry.worker), { died: entry.at, how: entry.how })
    else if (is === 'unmoored') this.#life(entry.by).unmoored.push(entry.at)
    else if (is === 'output') this.#output(entry)
    else tell(this.story(entry.id), entry)
  }

  story(id: string): Story {
    const known = this.byId.get(id)
    if (known !== undefined) return known
    const story = unknown(id)
    this.byId.set(id, story)
    return story
  }

  #life(worker: number): Life {
    const known = this.lives.get(worker)
    if (known !== undefined) return known
    const life: Life = { role: '?', died: NEVER, how: undefined, silences: [], unmoored: [] }
    this.lives.set(worker, life)
    return life
  }

  #rules({ leaseMs, concurrency, inOrder, redelivered }: Noted & { is: 'rules' }): void {
    this.leaseNs = leaseMs * 1e6
    this.concurrency = concurrency
    this.inOrder = inOrder
    this.redelivered = redelivered
  }

  #silent({ by, from, at }: Noted & { is: 'silent' }): void {
    this.#life(by).silences.push([from, at])
  }

  #output({ id, of }: Noted & { is: 'output' }): void {
    const story = this.story(of)
    story.outputs = new Set(story.outputs).add(id)
  }
}

/** Of one message. */
type Told = Exclude<Noted, { readonly is: 'rules' | 'silent' | 'born' | 'died' | 'unmoored' | 'output' }>

function tell(story: Story, entry: Told): void {
  switch (entry.is) {
    case 'offered':
      story.path = entry.path
      story.key = entry.key
      story.n = entry.n
      story.fate = entry.fate
      break
    case 'told':
      if (entry.outcome === 'confirmed') story.confirmed = Math.min(story.confirmed, entry.at)
      break
    case 'started':
      started(runOf(story, entry), entry.at)
      break
    case 'effect':
      effect(runOf(story, entry), entry.at)
      break
    case 'ended':
      ended(story, entry)
      break
    case 'committed':
      story.committed = true
      break
    case 'done':
      story.path = 'outbox'
      story.places = [...story.places, entry.place].sort((a, b) => a - b)
      break
    case 'dead':
      story.dead = entry.why
      break
    case 'left':
      story.left = entry.where
      break
    case 'dropped':
      break
  }
}

function started(run: Run, at: number): void {
  run.starts++
  run.started = Math.min(run.started, at)
}

function effect(run: Run, at: number): void {
  run.effect = Math.min(run.effect, at)
}

function unknown(id: string): Story {
  return {
    id,
    path: 'direct',
    key: undefined,
    n: 0,
    fate: 'well',
    confirmed: NEVER,
    committed: false,
    runs: [],
    completed: NEVER,
    places: NOWHERE,
    outputs: NOTHING,
    dead: undefined,
    left: undefined,
  }
}

/** Outbox path: the end is known by the library's event, without a token. */
function ended(story: Story, entry: Noted & { is: 'ended' }): void {
  if (entry.token === 0) {
    if (entry.as === 'completed') story.completed = Math.min(story.completed, entry.at)
    return
  }
  const run = runOf(story, entry)
  run.end = entry.as
  run.endSince = Math.min(run.endSince, entry.since)
}

function runOf({ runs }: Story, { token, by }: { readonly token: number; readonly by: number }): Run {
  for (const run of runs) if (run.token === token && run.by === by) return run
  const run: Run = {
    token,
    by,
    starts: 0,
    started: NEVER,
    effect: NEVER,
    endSince: NEVER,
    end: undefined,
  }
  runs.push(run)
  return run
}
