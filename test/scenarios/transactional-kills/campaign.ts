// Spreads kills over the steps of one kind of process: first where nobody was killed yet, then in later transactions.
//
// Promises: every step that any process of the kind has reached gets its turn, also one that was only seen after a death; the order is
// that of the seed. A step that was waited for in vain so often is left alone.

import { ANY, CLOSING, type Obituary, type Plan } from './steps.ts'

/** How a step fared. */
export interface Fare {
  kills: number
  /** Planned, and not reached in time. */
  missed: number
  /** How often one process reached it, at most. */
  most: number
}

const MISSES = 2
const LATEST = 6
/** Work has so many deaths for each in an orderly end. */
const WEIGHT_OF_END = 3

/** The kills of one kind of process. */
export class Campaign {
  readonly steps = new Map<string, Fare>()
  readonly #target: number
  readonly #random: () => number
  readonly #wanted: (step: string) => boolean
  readonly #underWay = new Map<string, number>()
  kills = 0

  /** @param wanted which steps are to have deaths */
  constructor(target: number, random: () => number, wanted: (step: string) => boolean = () => true) {
    this.#target = target
    this.#random = random
    this.#wanted = wanted
  }

  get isOver(): boolean {
    return this.kills >= this.#target && this.#open.every(([, { kills }]) => kills > 0)
  }

  /** The next death; never two at the same step at once while others have had fewer. */
  next(): Plan {
    const open = this.#open
    const score = ([step, { kills }]: [string, Fare]) =>
      (kills + (this.#underWay.get(step) ?? 0)) * (step.startsWith(CLOSING) ? WEIGHT_OF_END : 1)
    const least = Math.min(...open.map(score))
    const candidates = open.filter((entry) => score(entry) === least)
    const chosen = candidates[Math.floor(this.#random() * candidates.length)]
    if (!chosen) return { step: ANY, nth: 1 }
    const [step, { kills, most }] = chosen
    this.#underWay.set(step, (this.#underWay.get(step) ?? 0) + 1)
    const later = Math.min(most, LATEST) - 1
    return { step, nth: kills === 0 || later < 1 ? 1 : 2 + Math.floor(this.#random() * later) }
  }

  /** What a process left behind, and what it was to die of. */
  learn({ died, seen }: Obituary, plan?: Plan): void {
    for (const [step, times] of Object.entries(seen)) {
      const fare = this.#fareOf(step)
      fare.most = Math.max(fare.most, times)
    }
    if (plan && plan.step !== ANY) {
      this.#underWay.set(plan.step, this.#underWay.get(plan.step)! - 1)
      if (died?.step !== plan.step) this.#fareOf(plan.step).missed++
    }
    if (!died) return
    this.#fareOf(died.step).kills++
    this.kills++
  }

  get #open(): [string, Fare][] {
    return [...this.steps].filter(([step, { missed }]) => missed < MISSES && this.#wanted(step))
  }

  #fareOf(step: string): Fare {
    const fare = this.steps.get(step) ?? { kills: 0, missed: 0, most: 0 }
    this.steps.set(step, fare)
    return fare
  }
}

/** Does the process have to be asked to end, for the step to be reached? */
export function needsEnd({ step }: Plan): boolean {
  return step.startsWith(CLOSING)
}

/** The same numbers for the same seed (mulberry32). */
export function randomOf(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}
