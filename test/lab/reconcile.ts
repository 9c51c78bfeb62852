// Reconciles what was offered with what came of it, from the ledger alone: `reconcile(new LedgerReader(folder).entries())`.
//
// What must be true of every message that was accepted (confirmed to a producer, or its business row committed): it had its effect, or
// lies in the dead letters because it was meant to, or is named as left; exactly one effect, but for the repeats that a stated limit
// explains (`reconcile/runs.ts`); after those of its key, where the run promises order. And of every effect: somebody had offered
// the message, and its transaction had committed; on the outbox path it spoke, with one id. A message whose publishes ended
// `not-sent` or `returned`, and that is not offered again, never arrives; one that ended `unknown` may. Attempts are counted and wait
// as the policy says (`reconcile/attempts.ts`).
//
// What an operator and the senders of half messages do is judged beside this, in `reconcile/letters.ts` and `reconcile/halves.ts`.
//
// Promises: pure; each fault is counted under one name, and the first few are told with what is known of them.
// Does NOT judge copies on the wire, or publishes that were refused and then repeated: those are counted.

import type { Noted, Path } from './ledger.ts'
import { judgeAttempts } from './reconcile/attempts.ts'
import { contestOf } from './reconcile/contests.ts'
import { longestGapNs, overtaken, type Placed, within } from './reconcile/order.ts'
import { effective, hasTwoEnds, Runs } from './reconcile/runs.ts'
import { NEVER, Stories, type Story } from './reconcile/stories.ts'
import type { Verdict } from './world.ts'

/** A verdict, with what was counted on the way. */
export interface Reconciled extends Verdict {
  /** Entries of each kind: offered, confirmed, refused, unknown, started, effect, completed, failed, dropped, died ... */
  readonly counts: Readonly<Record<string, number>>
}

/** Of each kind of fault so many are told. */
const TOLD = 5
const KINDS = ['lost', 'doubled', 'zombies', 'attempts', 'outOfOrder', 'phantom', 'left'] as const

type Kind = (typeof KINDS)[number]

/** Goes through all entries once, in any order of the files. */
export function reconcile(entries: Iterable<Noted>): Reconciled {
  return new Reconciliation(new Stories(entries)).verdict()
}

class Reconciliation {
  readonly #stories: Stories
  readonly #runs: Runs
  readonly #found = new Map<Kind, { count: number; readonly told: string[] }>(
    KINDS.map((kind) => [kind, { count: 0, told: [] }]),
  )
  readonly #keys = new Map<Path, Map<string, Placed[]>>()
  readonly #waits: Record<Path, [number, number][]> = { direct: [], outbox: [], half: [] }
  #messages = 0
  #repeated = 0
  #reordered = 0
  #deadLetters = 0
  #retried = 0
  #soonestRetryNs = NEVER
  readonly #unknown = { told: 0, withdrawn: 0, arrived: 0 }
  #neverSent = 0
  #takenOver = 0
  #refused = 0

  constructor(stories: Stories) {
    this.#stories = stories
    this.#runs = new Runs(stories)
  }

  verdict(): Reconciled {
    for (const story of this.#stories.byId.values()) this.#look(story)
    for (const [path, keys] of this.#keys) this.#order(path, keys)
    const count = (kind: Kind) => this.#found.get(kind)!.count
    return {
      messages: this.#messages,
      lost: count('lost'),
      doubled: count('doubled'),
      repeated: this.#repeated,
      zombies: count('zombies'),
      attempts: count('attempts'),
      outOfOrder: count('outOfOrder'),
      reordered: this.#reordered,
      phantom: count('phantom'),
      left: count('left'),
      deadLetters: this.#deadLetters,
      retried: this.#retried,
      ...(this.#retried > 0 && { soonestRetryMs: this.#soonestRetryNs / 1e6 }),
      unknown: this.#unknown,
      neverSent: this.#neverSent,
      putOff: this.#stories.counts['put-off'] ?? 0,
      takenOver: this.#takenOver,
      refused: this.#refused,
      unmoored: this.#stories.counts['unmoored'] ?? 0,
      longestGapMs: Math.round(Math.max(...Object.values(this.#waits).map(longestGapNs)) / 1e6),
      evidence: KINDS.flatMap((kind) => this.#found.get(kind)!.told),
      counts: this.#stories.counts,
    }
  }

  #contest(story: Story): void {
    const { takenOver, refused } = contestOf(story, this.#stories.lives)
    this.#takenOver += takenOver
    this.#refused += refused
  }

  #look(story: Story): void {
    this.#contest(story)
    const effects = story.path === 'outbox' ? [] : effective(story.runs)
    const handled = effects.length + story.places.length > 0
    const accepted = story.committed || story.confirmed !== NEVER
    if (accepted) this.#messages++
    if (story.left !== undefined) this.#find('left', story.id, `in ${story.left}`)
    if (story.dead !== undefined) this.#dead(story)
    if (accepted && !handled && story.left === undefined && story.dead === undefined)
      this.#find('lost', story.id, 'accepted, and without an effect')
    if (handled || story.runs.length > 0) this.#wellFounded(story, handled)
    this.#attempts(story)
    this.#told(story, handled)
    if (story.path === 'outbox') this.#outbox(story, handled)
    else this.#direct(story)
    if (handled) this.#place(story, effects[0]?.effect ?? story.completed, effects[0]?.effect ?? story.places[0]!)
  }

  #dead(story: Story): void {
    const { id, fate, dead } = story
    // A copy of a letter may stay behind: judged in `reconcile/letters.ts`.
    if (fate === 'revived' && effective(story.runs).length > 0) return
    if (hasTwoEnds(story)) this.#find('zombies', id, `it completed, and lies in the dead letters: ${dead}`)
    else if (fate === 'dead') this.#deadLetters++
    else this.#find('left', id, `in the dead letters: ${dead}`)
  }

  #wellFounded({ id, path, key, committed, fate }: Story, handled: boolean): void {
    if (key === undefined) this.#find('phantom', id, 'handled, and nobody had offered it')
    else if (handled && path === 'outbox' && !committed)
      this.#find('phantom', id, 'an effect, and its transaction has not committed')
    else if (handled && fate === 'dead') this.#find('phantom', id, 'an effect of a message whose handler always fails')
  }

  #attempts(story: Story): void {
    const { wrong, repeats, soonestNs } = judgeAttempts(story, this.#stories)
    this.#retried += repeats
    this.#soonestRetryNs = Math.min(this.#soonestRetryNs, soonestNs)
    for (const why of wrong) this.#find('attempts', story.id, why)
  }

  /** What its publisher was told, and what became of it. Of those that were offered again, nobody can say which publish brought them. */
  #told({ id, path, unknown, withdrawn, mayHaveArrived, runs, dead, left }: Story, handled: boolean): void {
    if (path !== 'direct') return
    const arrived = handled || runs.length > 0 || dead !== undefined || left !== undefined
    if (unknown) this.#unknown.told++
    if (!withdrawn) return
    if (unknown) this.#unknown.withdrawn++
    if (unknown && arrived) this.#unknown.arrived++
    if (mayHaveArrived) return
    this.#neverSent++
    if (arrived) this.#find('phantom', id, 'its only publish ended not-sent or returned, and it arrived')
  }

  #direct(story: Story): void {
    const { repeated, doubled, zombies } = this.#runs.judge(story)
    this.#repeated += repeated
    for (const why of doubled) this.#find('doubled', story.id, why)
    for (const why of zombies) this.#find('zombies', story.id, why)
  }

  #outbox(story: Story, handled: boolean): void {
    const { id, places, outputs, left } = story
    for (const why of this.#runs.zombiesOf(story)) this.#find('zombies', id, why)
    if (places.length > 1) this.#find('doubled', id, `${places.length} effects in the database`)
    if (outputs.size > 1) this.#find('doubled', id, `its effect spoke with ${outputs.size} ids`)
    if (outputs.size > 0 && !handled) this.#find('phantom', id, 'no effect, and yet it spoke')
    if (handled && outputs.size === 0 && left === undefined)
      this.#find('lost', id, 'its effect spoke, and nothing was heard of it')
  }

  #place({ id, path, key, n, fate, confirmed, committed }: Story, at: number, place: number): void {
    // One that waits for an operator says nothing about the consumers.
    if (confirmed !== NEVER && at !== NEVER && fate !== 'revived') this.#waits[path].push([confirmed, at])
    // One that nobody was told is accepted has no place, but for one that was committed all the same.
    const hasPlace = confirmed !== NEVER || (path === 'outbox' && committed)
    if (key === undefined || !hasPlace || !this.#stories.inOrder.includes(path)) return
    const keys = this.#keys.get(path) ?? new Map<string, Placed[]>()
    this.#keys.set(path, keys)
    const placed = { id, n, place, from: confirmed, until: at }
    const messages = keys.get(key)
    if (messages) messages.push(placed)
    else keys.set(key, [placed])
  }

  /** Where the broker puts redelivered messages at the back, no order is promised to those that were on their way when a consumer was lost. */
  #order(path: Path, keys: ReadonlyMap<string, readonly Placed[]>): void {
    const { redelivered, lives } = this.#stories
    const role = path === 'direct' ? 'consumer' : 'inbox-consumer'
    const ofRole = [...lives.values()].filter((life) => life.role === role)
    const lost = redelivered === 'front' ? [] : ofRole.flatMap(({ unmoored, died }) => [...unmoored, died])
    lost.sort((a, b) => a - b)
    for (const messages of keys.values())
      for (const late of overtaken(messages))
        if (within(late, lost)) this.#reordered++
        else this.#find('outOfOrder', late.id, 'handled after a later one of its key')
  }

  #find(kind: Kind, id: string, why: string): void {
    const found = this.#found.get(kind)!
    found.count++
    if (found.told.length < TOLD) found.told.push(`${kind}: ${id} (${this.#known(this.#stories.story(id))}): ${why}`)
  }

  /** What is needed to look further: grep the folder for the id. */
  #known({ path, key, n, fate, confirmed, runs }: Story): string {
    const began = this.#stories.began
    const at = confirmed === NEVER ? 'not confirmed' : `confirmed at ${((confirmed - began) / 1e9).toFixed(3)} s`
    return `${path}, key ${key ?? '?'}, number ${n}, ${fate}, ${at}, ${runs.length} runs`
  }
}
