// The story of each message, gathered from entries that come in any order of the files.

import { type CastEntry, isOfCast } from '../ledger/cast.ts'
import type { End, Fate, Noted, Path } from '../ledger.ts'

/** One run of a handler on the direct path, known by its fencing token. Times in ns; `NEVER` where there is none. */
export interface Run {
  readonly token: number
  readonly by: number
  /** As its context said; 0 where it never began. */
  attempt: number
  generation: number
  starts: number
  started: number
  /** When its handler failed, not because its signal had fired. */
  threw: number
  effect: number
  /** When the store was first asked to record its end, if it did, and when it had. */
  endSince: number
  ended: number
  end: End | undefined
  /** When it was refused to record its end, if it was. */
  refused: number
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
  /** A publish of it ended `unknown`. */
  unknown: boolean
  /** Its publishes ended, as far as they did, otherwise than `not-sent` or `returned`. */
  mayHaveArrived: boolean
  /** Nobody will offer it again. */
  withdrawn: boolean
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

/** Redis forgot what it was told from `since` until `until`; nobody noticed before `from`. */
export interface Forgetting {
  readonly since: number
  readonly from: number
  readonly until: number
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
  /** Of the retry policy. */
  attempts = Number.POSITIVE_INFINITY
  delayNs = 0
  readonly forgettings: Forgetting[] = []
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
    else if (is === 'forgot') this.forgettings.push({ since: entry.since, from: entry.from, until: entry.at })
    else if (is === 'unmoored') this.#life(entry.by).unmoored.push(entry.at)
    else if (is === 'cut-off') this.#life(entry.worker).unmoored.push(entry.at)
    else if (is === 'put-off' || is === 'lapsed') return
    else if (is === 'output') this.#output(entry)
    else if (isOfCast(entry)) return
    else tell(this.story(entry.id), entry)
  }

  story(id: string): Story {
    const known = this.byId.get(id)
    if (known !== undefined) return known
    const story = unknown(id)
    this.byId.set(id, story)
    return story
  }

  /** Had Redis lost, of what it recorded at some time in `made`, what somebody asked for at `asked`? */
  forgot(made: { readonly from: number; readonly until: number }, asked: number): boolean {
    return this.forgettings.some(({ since, from, until }) => made.from <= until && made.until >= since && asked >= from)
  }

  #life(worker: number): Life {
    const known = this.lives.get(worker)
    if (known !== undefined) return known
    const life: Life = { role: '?', died: NEVER, how: undefined, silences: [], unmoored: [] }
    this.lives.set(worker, life)
    return life
  }

  #rules({ leaseMs, concurrency, inOrder, redelivered, attempts, delayMs }: Noted & { is: 'rules' }): void {
    this.leaseNs = leaseMs * 1e6
    this.attempts = attempts
    this.delayNs = delayMs * 1e6
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
type Told = Exclude<
  Noted,
  {
    readonly is:
      | 'rules'
      | 'silent'
      | 'born'
      | 'died'
      | 'unmoored'
      | 'output'
      | 'forgot'
      | 'cut-off'
      | 'put-off'
      | 'lapsed'
      | CastEntry['is']
  }
>

function tell(story: Story, entry: Told): void {
  switch (entry.is) {
    case 'offered':
      story.path = entry.path
      story.key = entry.key
      story.n = entry.n
      story.fate = entry.fate
      break
    case 'told':
      told(story, entry)
      break
    case 'withdrawn':
      story.withdrawn = true
      break
    case 'started':
      started(runOf(story, entry), entry)
      break
    case 'threw':
      runOf(story, entry).threw = entry.at
      break
    case 'effect':
      effect(runOf(story, entry), entry.at)
      break
    case 'ended':
      ended(story, entry)
      break
    case 'denied':
      denied(story, entry)
      break
    case 'committed':
      story.committed = true
      break
    case 'done':
      story.path = 'outbox'
      // A look at the database that was cut off and begun anew finds the same row again.
      story.places = [...new Set([...story.places, entry.place])].sort((a, b) => a - b)
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

function told(story: Story, { outcome, at }: Noted & { is: 'told' }): void {
  if (outcome === 'confirmed') story.confirmed = Math.min(story.confirmed, at)
  else if (outcome === 'unknown') story.unknown = true
  if (outcome !== 'not-sent' && outcome !== 'returned') story.mayHaveArrived = true
}

function started(run: Run, { at, attempt, generation }: Noted & { is: 'started' }): void {
  run.starts++
  run.started = Math.min(run.started, at)
  run.attempt = attempt
  run.generation = generation
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
    unknown: false,
    mayHaveArrived: false,
    withdrawn: false,
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
  run.ended = Math.min(run.ended, entry.at)
}

/** Only what had begun: a letter may be recorded by the token of another process' run. */
function denied({ runs }: Story, { at, by, token }: Noted & { is: 'denied' }): void {
  const run = runs.find((one) => one.token === token && one.by === by)
  if (run) run.refused = Math.min(run.refused, at)
}

function runOf({ runs }: Story, { token, by }: { readonly token: number; readonly by: number }): Run {
  for (const run of runs) if (run.token === token && run.by === by) return run
  const run: Run = {
    token,
    by,
    attempt: 0,
    generation: 0,
    starts: 0,
    started: NEVER,
    threw: NEVER,
    effect: NEVER,
    endSince: NEVER,
    ended: NEVER,
    end: undefined,
    refused: NEVER,
  }
  runs.push(run)
  return run
}
