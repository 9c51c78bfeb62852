/**
 * What becomes of one half message in the check queue: pure decisions (`nextStep`), and the turn that carries them out
 * (`takeTurn`) over whatever store, broker and check it is given. Knows no timer and no queue.
 *
 *     arrived ─▶ look ─┬─ published, rolled back ──▶ ack
 *                      ├─ committed ──▶ publish all ──▶ note it ──▶ ack
 *                      └─ undecided ──▶ the operator's verdict, or ask `check` ──▶ decide (first writer wins) ──▶ as above
 *                               ▲                                     │unknown, error, hung
 *                               └──────── hold, twice as long ◀───────┤
 *                                                                     └─ asked often enough, or too old ──▶ park
 *
 * Promises: every decision is made by the store, so what this turn was told of last is what it acts on; committed: the half
 * message is acked only after every message was confirmed; rolled back: nothing is published; undecided: never acked, never dropped,
 * and parked only after this schedule has asked at least once and the record was looked at once more.
 */
import type { Decider, Decision, DecisionView } from './decisions.ts'

/** What `check` says: it happened, it did not and never will, or it cannot tell yet. */
export type CheckAnswer = 'commit' | 'rollback' | 'unknown'

/** What an operator sends a parked half message back with: their decision, or the wish to be checked once more. */
export type Verdict = 'commit' | 'rollback' | 'check'

/** The schedule of checks. */
export interface Limits {
  readonly firstCheckMs: number
  readonly checkCapMs: number
  readonly checks: number
  readonly maxAgeMs: number
}

/** `arrived`: the broker has just delivered it. `due`: it was held, and its time has come. `asked`: `check` could not tell. */
export type Phase = 'arrived' | 'due' | 'asked'

/** What is known when a step is chosen. */
export interface Standing {
  readonly phase: Phase
  readonly record: DecisionView
  readonly halfId: string
  readonly verdict: Verdict | undefined
  readonly answer: CheckAnswer | undefined
  readonly ageMs: number
}

/** How a turn ends. `fetch`: it must come anew from the broker, since its bodies are not kept while it is held. */
export type End =
  | { readonly do: 'ack' }
  | { readonly do: 'hold'; readonly ms: number }
  | { readonly do: 'fetch' }
  | { readonly do: 'stuck'; readonly error: Error }
  | { readonly do: 'park' }

type Step =
  | { readonly do: 'ack' }
  | { readonly do: 'publish' }
  | { readonly do: 'decide'; readonly decision: Decision; readonly by: Decider }
  | { readonly do: 'ask' }
  | { readonly do: 'hold'; readonly ms: number }
  | { readonly do: 'park' }

/** The next step. Pure but for the jitter, which is given. */
export function nextStep(standing: Standing, limits: Limits, random: number): Step {
  const { record, halfId, verdict, answer, phase } = standing
  if (record.decision === 'rolled-back') return { do: 'ack' }
  if (record.decision === 'committed') return record.published === halfId ? { do: 'ack' } : { do: 'publish' }
  if (verdict === 'commit' || verdict === 'rollback') return decide(verdict, 'operator')
  if (answer === 'commit' || answer === 'rollback') return decide(answer, 'check')
  const { checks } = record
  const last = checks >= limits.checks || standing.ageMs >= limits.maxAgeMs
  if (phase === 'asked') return last ? { do: 'park' } : { do: 'hold', ms: waitMs(checks, limits, random) }
  // Taken up again, from another instance perhaps: when it was asked last is not known. Not all at once.
  const resumed = phase === 'arrived' && checks > 0 && !last && verdict !== 'check'
  return resumed ? { do: 'hold', ms: random * waitMs(checks, limits, 1) } : { do: 'ask' }
}

/** After so many checks: doubling from the time of the first, at most the cap, the last quarter by chance. */
export function waitMs(checks: number, { firstCheckMs, checkCapMs }: Limits, random: number): number {
  const ceiling = Math.min(checkCapMs, firstCheckMs * 2 ** Math.min(checks, 30))
  return ceiling * (0.75 + random / 4)
}

function decide(answer: 'commit' | 'rollback', by: Decider): Step {
  return { do: 'decide', decision: answer === 'commit' ? 'committed' : 'rolled-back', by }
}

/** One half message in hand. */
export interface Turn {
  readonly phase: Phase
  readonly halfId: string
  /** As it was looked up just now. */
  readonly record: DecisionView
  readonly verdict: Verdict | undefined
  readonly ageMs: number
  /** Publishes all messages and resolves when every one is confirmed. Undefined where the bodies are not at hand. */
  readonly publish: (() => Promise<void>) | undefined
}

/** What a turn acts on; bound to one transaction. Each may throw: then nothing is known, and the turn is taken again later. */
export interface Surroundings {
  readonly limits: Limits
  look(): Promise<DecisionView>
  decide(decision: Decision, by: Decider): Promise<DecisionView>
  published(): Promise<void>
  checked(): Promise<number>
  /** Asks the service. Never throws: what is no answer is `unknown`. */
  ask(check: number): Promise<CheckAnswer>
  random(): number
}

/**
 * Takes one turn.
 * @throws what the store failed with; nothing was acked or published then
 */
export async function takeTurn(turn: Turn, around: Surroundings): Promise<End> {
  let { record, phase } = turn
  let answer: CheckAnswer | undefined
  for (;;) {
    const { halfId, verdict, ageMs } = turn
    const step = nextStep({ phase, record, halfId, verdict, answer, ageMs }, around.limits, around.random())
    if (step.do === 'ack' || step.do === 'hold') return step
    if (step.do === 'publish') return publish(turn, around)
    if (step.do === 'decide') record = await around.decide(step.decision, step.by)
    if (step.do === 'ask') {
      const checks = await around.checked()
      answer = await around.ask(checks)
      phase = 'asked'
      record = { ...record, checks }
    }
    if (step.do === 'park') {
      record = await around.look()
      if (record.decision === undefined) return step
    }
  }
}

/** That it was published is noted for others' sake; where that fails, the worst is a copy with the same ids. */
async function publish({ publish }: Turn, around: Surroundings): Promise<End> {
  if (!publish) return { do: 'fetch' }
  try {
    await publish()
  } catch (error) {
    return { do: 'stuck', error: error as Error }
  }
  await around.published().catch(() => {})
  return { do: 'ack' }
}
