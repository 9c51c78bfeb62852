// Repeated effects and zombies: what the runs of one message of the direct path say about each other. Pure.
//
// The storage of the effects is the ledger, read as storage that refuses older fencing tokens: in the order of time, an effect counts
// if its token is greater than that of every effect before it. (A database table with `WHERE token < excluded.token` does the same,
// and would be the bottleneck of the lab.)
//
// A message with k effects that count has k - 1 repeated ones. Each of these k - 1, the earlier one of its pair, is *explained* if
// its run was not recorded as completed before the later run began, and one of these is known, from what the lab itself has seen
// and never from what the library says about itself:
//
// - its process died (SIGKILL, sent by the fleet) before the later run began: "the process may die between your effect and its
//   record". A process runs at most `concurrency` handlers, and at most as many more have ended without a record of it: so one
//   death explains no more than both; the rest is doubled.
// - its process had no answer from the store for a whole lease before the later run began: its lease was lost (frozen, cut off).
//   The time counts from the sending of the last renewal that was answered, so it never says more than Redis can have seen.
// - Redis has forgotten its lease, or its record, at an instant that lies between the two runs; the fault that did it has put on
//   record when, and how much it may have forgotten. Then even a recorded completion keeps nobody from running it again.
//
// Everything else is *doubled*: also a run that begins after another one of its message was recorded as completed, effect or not.
//
// A *zombie* is a run whose end was recorded although the store was first asked to after a run with a newer token had begun, which
// Redis had not forgotten; or whose completion the store was asked to record before its effect, which a death between would have lost; or a token that two runs got; or one that is not newer than that of a run which began before, unless its
// process may have slept since it was given. Tokens are judged whatever Redis forgets: they grow even when it comes back empty. A message that completed, and lies in the dead letters with a story, has two ends: a zombie, too.

import { type Life, NEVER, type Run, type Stories, type Story } from './stories.ts'

/** What the runs of one message amount to. */
export interface Judged {
  readonly repeated: number
  /** In words, one each. */
  readonly doubled: readonly string[]
  readonly zombies: readonly string[]
}

const SOUND: Judged = { repeated: 0, doubled: [], zombies: [] }

/** Judges message after message; remembers how much each death has explained. */
export class Runs {
  readonly #stories: Stories
  readonly #explainedByDeath = new Map<number, number>()

  constructor(stories: Stories) {
    this.#stories = stories
  }

  judge({ runs }: Story): Judged {
    const [only] = runs
    const soundAlone = only === undefined || (runs.length === 1 && only.starts <= 1 && !completedBeforeEffect(only))
    if (soundAlone) return SOUND
    const inOrder = runs.toSorted((a, b) => a.token - b.token)
    const effects = effective(runs)
    const faults = effects.slice(0, -1).map((earlier, i) => this.#unexplained(earlier, effects[i + 1]!))
    const doubled = [...faults.filter((why) => why !== undefined), ...this.#again(inOrder, new Set(effects))]
    const repeated = effects.length - 1 - faults.filter((why) => why !== undefined).length
    return { repeated: Math.max(0, repeated), doubled, zombies: this.#zombies(inOrder) }
  }

  /** Where the effect is in the database, and repeats of it are counted there. */
  zombiesOf({ runs }: Story): readonly string[] {
    return runs.length < 2 ? [] : this.#zombies(runs.toSorted((a, b) => a.token - b.token))
  }

  /** @returns why the effect of the later run should not have been; undefined if it is within a limit */
  #unexplained(earlier: Run, later: Run): string | undefined {
    if (earlier.end === 'completed' && earlier.endSince < later.started)
      return this.#forgotEnd(earlier, later)
        ? undefined
        : `the effect of ${nameOf(later)} came after ${nameOf(earlier)} was recorded as completed`
    const life = this.#stories.lives.get(earlier.by)
    if (life && this.#wasSilent(life, earlier, later)) return undefined
    const leased = { from: earlier.started, until: earlier.started }
    if (this.#stories.forgot(leased, later.started)) return undefined
    if (life && (life.how === 'killed' || life.how === 'crashed') && life.died <= later.started)
      return this.#byDeath(earlier, later)
    return `the effect of ${nameOf(later)} came while the process of ${nameOf(earlier)} was alive`
  }

  #forgotEnd({ endSince, ended }: Run, later: Run): boolean {
    return this.#stories.forgot({ from: endSince, until: ended }, later.started)
  }

  #wasSilent({ silences }: Life, earlier: Run, later: Run): boolean {
    const { leaseNs } = this.#stories
    return silences.some(([from, until]) => from + leaseNs <= later.started && until > earlier.started)
  }

  #byDeath(earlier: Run, later: Run): string | undefined {
    const explained = (this.#explainedByDeath.get(earlier.by) ?? 0) + 1
    this.#explainedByDeath.set(earlier.by, explained)
    const most = 2 * this.#stories.concurrency
    if (explained <= most) return undefined
    return `the death of process ${earlier.by} explains ${most} effects without a record, not that of ${nameOf(earlier)}, which ${nameOf(later)} repeats`
  }

  /** Runs without an effect of their own that began after a completion. */
  #again(inOrder: readonly Run[], effects: ReadonlySet<Run>): string[] {
    const completed = inOrder.filter(({ end }) => end === 'completed')
    const wrong = (run: Run) =>
      completed.find(
        (before) =>
          before !== run && before.token <= run.token && before.endSince < run.started && !this.#forgotEnd(before, run),
      )
    return inOrder.flatMap((run) => {
      const before = effects.has(run) ? undefined : wrong(run)
      return before ? [`${nameOf(run)} began after ${nameOf(before)} was recorded as completed`] : []
    })
  }

  #zombies(inOrder: readonly Run[]): string[] {
    const begun = inOrder.filter((run) => !isBurial(run))
    const twice = new Set(begun.filter(({ starts }, i) => starts > 1 || begun[i - 1]?.token === begun[i]!.token))
    return inOrder.flatMap((run, i) => {
      if (twice.has(run)) return [`the token of ${nameOf(run)} was given twice`]
      const newer = inOrder.slice(i + 1).filter(({ token }) => token > run.token)
      const overwritten = newer.find((one) => this.#overwrote(run, one))
      if (completedBeforeEffect(run)) return [`${nameOf(run)} was recorded as completed before its effect`]
      if (overwritten) return [`${nameOf(run)} recorded its end over ${nameOf(overwritten)}`]
      const before = newer.find((one) => this.#cameLater(run, one))
      return before ? [`${nameOf(run)} began after ${nameOf(before)}: its token had not grown`] : []
    })
  }

  #overwrote({ end, endSince, ended }: Run, newer: Run): boolean {
    if (end === undefined || newer.started >= endSince) return false
    const made = { from: newer.started, until: newer.end === undefined ? newer.started : newer.ended }
    return !this.#stories.forgot(made, ended)
  }

  /** Where its process did not sleep, it began when its token was given. */
  #cameLater({ by, started, starts }: Run, newer: Run): boolean {
    if (starts === 0 || newer.started >= started) return false
    const { lives, leaseNs } = this.#stories
    const slept = lives.get(by)?.silences.some(([from, until]) => from <= started && until + leaseNs >= newer.started)
    return !slept
  }
}

/** Why a letter without a story is dead: the broker's own dead-lettering, which asks no record. */
export const BY_BROKER = 'the broker'

/** It was recorded as completed, and yet somebody wrote its letter. */
export function hasTwoEnds({ runs, places, dead }: Story): boolean {
  if (dead === undefined || dead === BY_BROKER) return false
  return places.length > 0 || runs.some(({ end }) => end === 'completed')
}

/** Not a run: its last attempt had failed, perhaps in another process, and whoever got its next delivery wrote the letter by that run's token. */
function isBurial({ starts, end }: Run): boolean {
  return starts === 0 && end === 'dead'
}

/** A death between the two would have lost the message. */
function completedBeforeEffect({ end, endSince, effect }: Run): boolean {
  return end === 'completed' && effect !== NEVER && endSince < effect
}

/** Those that storage took which refuses older tokens, in the order of time. */
export function effective(runs: readonly Run[]): Run[] {
  const [only] = runs
  if (runs.length === 1) return only!.effect === NEVER ? [] : [only!]
  const inTime = runs.filter(({ effect }) => effect !== NEVER).sort((a, b) => a.effect - b.effect)
  let newest = Number.NEGATIVE_INFINITY
  return inTime.filter(({ token }) => {
    if (token <= newest) return false
    newest = token
    return true
  })
}

function nameOf({ by, token }: Run): string {
  return `run ${token} of process ${by}`
}
