// The attempts of one message, by what its handlers put on record. Pure.
//
// Within a generation (an operator's replay begins a new one): no attempt beyond the policy's last; each attempt but the first only
// after one before it failed, and the policy's delay later, by the machine's monotonic clock, whatever clocks the processes have; no
// attempt again whose failure was recorded, unless Redis has forgotten that; nothing that always fails is given up before its last.
// An attempt may begin several times: where a process died, lost its lease or its connection in it, or closed.
//
// Does NOT judge how late an attempt begins: faults make it late, and rightly so.

import { NEVER, type Run, type Stories, type Story } from './stories.ts'

/** What the attempts of one message amount to. */
export interface Attempted {
  /** In words, one each. */
  readonly wrong: readonly string[]
  /** Runs of an attempt beyond the first, and the least time from a failure to one of them. */
  readonly repeats: number
  readonly soonestNs: number
}

const ONE: Attempted = { wrong: [], repeats: 0, soonestNs: NEVER }

/** Judges the attempts of one message. */
export function judgeAttempts(story: Story, stories: Stories): Attempted {
  const runs = story.runs.filter(({ starts }) => starts > 0)
  const tooSoon = givenUpEarly(story, runs, stories.attempts)
  if (runs.length <= 1 && runs.every(({ attempt, threw }) => attempt === 1 && threw === NEVER))
    return tooSoon.length === 0 ? ONE : { ...ONE, wrong: tooSoon }
  const repeats = runs.filter(({ attempt }) => attempt > 1)
  const waits = repeats.map((run) => waitOf(run, runs, stories.delayNs))
  const wrong = repeats.flatMap((run, i) => wrongWith(run, waits[i], runs, stories))
  const again = runs.flatMap((run) => countedTwice(run, runs, stories))
  return {
    wrong: [...wrong, ...again, ...tooSoon],
    repeats: repeats.length,
    soonestNs: Math.min(NEVER, ...waits.filter((wait) => wait !== undefined)),
  }
}

/** From the failure that caused it: the last one that is the delay back, else the last one at all; undefined: there is none. */
function waitOf(run: Run, runs: readonly Run[], delayNs: number): number | undefined {
  const before = runs.filter(
    ({ generation, attempt, threw }) =>
      generation === run.generation && attempt === run.attempt - 1 && threw < run.started,
  )
  const waits = before.map(({ threw }) => run.started - threw)
  const due = waits.filter((wait) => wait >= delayNs)
  if (waits.length === 0) return undefined
  return Math.min(...(due.length > 0 ? due : waits))
}

function wrongWith(run: Run, wait: number | undefined, runs: readonly Run[], { attempts, delayNs }: Stories): string[] {
  const { attempt, by } = run
  const name = `attempt ${attempt} in process ${by}`
  if (attempt > attempts) return [`${name}, of ${attempts} at most`]
  if (wait === undefined) return [`${name}, and no attempt ${attempt - 1} had failed before; ${runs.length} runs`]
  if (wait >= delayNs) return []
  return [`${name} began ${(wait / 1e6).toFixed(1)} ms after the failure before it, and not ${delayNs / 1e6} ms`]
}

/**
 * The store had recorded that this attempt, or a later one, had failed, and had not forgotten it since. A token from before that was
 * given before: its process was frozen between its lease and its handler.
 */
function countedTwice(run: Run, runs: readonly Run[], stories: Stories): string[] {
  const known = (one: Run) =>
    one.generation === run.generation &&
    one.attempt >= run.attempt &&
    one.token < run.token &&
    one.end === 'failed' &&
    one.endSince < run.started &&
    !stories.forgot({ from: one.endSince, until: one.ended }, run.started)
  const before = runs.find(known)
  if (!before) return []
  return [`attempt ${run.attempt} began in process ${run.by} after attempt ${before.attempt} was recorded as failed`]
}

/** Of a message whose handler always fails, as long as it is not sent again. */
function givenUpEarly({ fate, dead }: Story, runs: readonly Run[], attempts: number): string[] {
  if (fate !== 'dead' || dead === undefined) return []
  const failed = runs.filter(({ threw }) => threw !== NEVER).map(({ attempt }) => attempt)
  const last = Math.max(0, ...failed)
  return last === attempts ? [] : [`given up after attempt ${last} of ${attempts}`]
}
