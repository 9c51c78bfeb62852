// What a producing process offers: messages of many keys at a steady rate, each key's next one only after the one before was accepted.
//
//   running <-> stopped; either -> enough -> accepted (nothing is open any more)
//
// Promises: `n` counts up within a key without gaps; never more messages open than keys; never a burst to make up for a pause.

import { setTimeout as pause } from 'node:timers/promises'
import { v7 } from 'uuid'
import type { Fate } from '../ledger.ts'
import { type Random, randomFrom } from '../random.ts'
import type { Job } from './job.ts'

/** One message to be offered. */
export interface Offer {
  readonly id: string
  readonly key: string
  readonly n: number
  readonly fate: Fate
}

const TICK_MS = 10
/** Of ids, one in so many is not a UUID: those are kept otherwise by the stores. */
const ODD_IDS = 10

/** See the head of this file. */
export class Supply {
  readonly random: Random
  readonly #job: Job
  /** Keys of which no message is open, and their next number. */
  readonly #free: { readonly key: string; n: number }[]
  readonly #keys: number
  #offered = 0
  #stopped = false
  #enough = false
  #accepted: () => void = () => {}

  constructor(job: Job, keys: number, accepted: () => void) {
    this.#job = job
    this.#keys = keys
    this.#accepted = accepted
    this.random = randomFrom(job.seed * 1_000 + job.worker)
    this.#free = Array.from({ length: keys }, (_, i) => ({ key: `w${job.worker}.${i}`, n: 1 }))
  }

  flow(now: 'stop' | 'go'): void {
    this.#stopped = now === 'stop'
  }

  enough(): void {
    if (this.#enough) return
    this.#enough = true
    this.#tellIfAccepted()
  }

  /** Gives out messages until it is enough, several at a time; `take` says what becomes of each by `done`. */
  async run(take: (offers: Offer[]) => void): Promise<void> {
    let due = 0
    for (let last = performance.now(); !this.#enough; ) {
      await pause(TICK_MS)
      const now = performance.now()
      due = Math.min(due + ((now - last) / 1_000) * this.#job.perSecond, this.#keys)
      last = now
      if (this.#stopped) due = 0
      const offers = this.#some(Math.floor(due))
      due -= offers.length
      if (offers.length > 0) take(offers)
      if (this.#offered >= (this.#job.share ?? Number.POSITIVE_INFINITY)) this.enough()
    }
  }

  /** The key may go on: with its next number, or with this one again under another id. */
  done({ key, n }: Offer, how: 'accepted' | 'withdrawn'): void {
    this.#free.push({ key, n: how === 'accepted' ? n + 1 : n })
    this.#tellIfAccepted()
  }

  #some(most: number): Offer[] {
    const room = Math.min(most, this.#free.length, (this.#job.share ?? Number.POSITIVE_INFINITY) - this.#offered)
    const offers = this.#free
      .splice(0, Math.max(0, room))
      .map(({ key, n }) => ({ id: this.#id(), key, n, fate: this.#fate() }))
    this.#offered += offers.length
    return offers
  }

  #id(): string {
    return this.random.between(1, ODD_IDS) === 1 ? `odd:${v7()}` : v7()
  }

  #fate(): Fate {
    const { late, dead, revived } = this.#job.failing
    const drawn = this.random.between(0, 999)
    if (drawn < dead) return 'dead'
    if (drawn < dead + late) return 'late'
    return drawn < dead + late + revived ? 'revived' : 'well'
  }

  #tellIfAccepted(): void {
    if (this.#enough && this.#free.length === this.#keys) this.#accepted()
  }
}
