// The processes of the fleet: started, killed, frozen, closed, and replaced as they end.
//
//   starting -> working -> ended -> (a new process in its berth) starting ...; any -> dismissed
//
// Promises: each process has a number of its own, and its death is on record with the time before the signal was sent; whatever ended
// is replaced until it is dismissed; one that ended by itself is told with what it printed, and is no secret (`crashes`).

import { setTimeout as pause } from 'node:timers/promises'
import type { Bundle } from '../../support/bundle.ts'
import { Life } from '../../support/life.ts'
import type { LedgerWriter } from '../ledger/writer.ts'
import { monotonicNs } from '../ledger.ts'
import { type Job, type Order, TRY_AGAIN, type Word } from '../workers/job.ts'
import type { Role } from '../world.ts'

/** What a process is told, but for its number. */
export type Errand = Omit<Job, 'worker'>

const AGAIN_AFTER_MS = 200
const CLOSE_WITHIN_MS = 45_000
const OUTPUT_TOLD = 1_500

/** What all processes of a fleet share. */
export interface Harbour {
  readonly bundle: Bundle
  readonly ledger: LedgerWriter
  /** Next number of a process. */
  next(): number
  /** Of processes that ended by themselves, in words. */
  readonly crashes: string[]
  /** A process has said that all it has offered is accepted. */
  onAccepted(): void
}

/** A place in the fleet: one process at a time. */
export class Berth {
  readonly role: Role
  /** The number of the process that is here now. */
  worker = 0
  /** All it offered is accepted, and it offers nothing more. */
  accepted = false
  /** Where its connections to the brokers come from, as far as it has told. */
  readonly ports = new Set<number>()
  readonly #harbour: Harbour
  readonly #errand: Errand
  #clockMs = 0
  #flow: 'stop' | 'go' = 'go'
  #life: Life<Order, Word> | undefined
  #starting: Promise<void> | undefined
  #how: 'killed' | 'closed' | undefined
  #dismissed = false
  /** What one that did not close in time had printed. While services are away that may be; at the end of all it may not. */
  #forced: string | undefined

  constructor(errand: Errand, harbour: Harbour) {
    this.role = errand.role
    this.#errand = errand
    this.#harbour = harbour
  }

  get lives(): boolean {
    return this.#life !== undefined
  }

  /** Resolves when a process works here; starts as many as it takes. */
  work(): Promise<void> {
    this.#starting ??= this.#start().finally(() => {
      this.#starting = undefined
    })
    return this.#starting
  }

  say(order: Order): void {
    this.#life?.say(order)
  }

  /** Says it once to each process. */
  flow(now: 'stop' | 'go'): void {
    if (now === this.#flow) return
    this.#flow = now
    this.say({ flow: now })
  }

  /** Ends it at once. @returns when the next one works, if there is to be one */
  async kill9(): Promise<void> {
    const life = this.#life
    if (!life) return
    this.#died('killed')
    await life.kill9()
    if (!this.#dismissed) await this.work()
  }

  async freeze(during: number | (() => Promise<unknown>)): Promise<void> {
    const life = this.#life
    life?.signal('SIGSTOP')
    try {
      await (typeof during === 'number' ? pause(during) : during())
    } finally {
      life?.signal('SIGCONT')
    }
  }

  /** Ends it in good order, and starts another whose clock is off. */
  async restartWithClock(offsetMs: number): Promise<void> {
    this.#clockMs = offsetMs
    await this.#close()
    this.#forced = undefined
    if (!this.#dismissed) await this.work()
  }

  /** Ends it in good order, and for good. */
  async dismiss(): Promise<void> {
    this.#dismissed = true
    await this.#starting
    await this.#close()
    if (this.#forced) this.#harbour.crashes.push(`${this.role} ${this.worker} did not close in time: ${this.#forced}`)
  }

  /** Ends it, and for good. */
  async abandon(): Promise<void> {
    this.#dismissed = true
    await this.kill9()
    await this.#starting
  }

  async #close(): Promise<void> {
    const life = this.#life
    if (!life) return
    this.#how ??= 'closed'
    life.say({ close: true })
    const late = new AbortController()
    const force = () => {
      this.#forced = life.output.trim().slice(-OUTPUT_TOLD) || 'it printed nothing'
      return this.kill9()
    }
    const killed = pause(CLOSE_WITHIN_MS, undefined, { signal: late.signal }).then(force, () => {})
    await life.ended
    late.abort()
    await killed
  }

  async #start(): Promise<void> {
    while (!this.#dismissed && !(await this.#begun())) await pause(AGAIN_AFTER_MS)
  }

  /** @returns whether it works; false: it has ended before */
  async #begun(): Promise<boolean> {
    if (this.#life) return true
    const { bundle, ledger, next } = this.#harbour
    this.worker = next()
    this.accepted = false
    this.ports.clear()
    this.#how = undefined
    this.#flow = 'go'
    const clock = this.#clockMs === 0 ? {} : { SUREHOP_LAB_CLOCK_MS: `${this.#clockMs}` }
    const life = new Life<Order, Word>(bundle.of('worker.ts'), ['--import', bundle.of('clock.ts')], clock)
    this.#life = life
    ledger.write({ is: 'born', at: monotonicNs(), worker: this.worker, role: this.role })
    life.hear((word) => this.#hear(word))
    life.say({ start: { ...this.#errand, worker: this.worker } })
    void life.ended.then(({ code, signal }) => this.#ended(life, code, signal))
    return Promise.race([life.ready.then(() => true), life.ended.then(() => false)])
  }

  #hear(word: Word): void {
    if (word === 'accepted') {
      this.accepted = true
      this.#harbour.onAccepted()
    } else if (word === 'ready') return
    else if ('moored' in word) this.ports.add(word.moored)
    else this.ports.delete(word.unmoored)
  }

  #ended(life: Life<Order, Word>, code: number | null, signal: string | null): void {
    if (this.#life !== life) return
    if (this.#how !== 'killed') this.#died(this.#how ?? 'crashed')
    const expected = this.#how === 'killed' || (this.#how === 'closed' && code === 0) || code === TRY_AGAIN
    if (!expected) this.#harbour.crashes.push(this.#inWords(`ended by itself (${signal ?? code})`))
    this.#life = undefined
    if (!this.#dismissed) void this.work()
  }

  #died(how: 'killed' | 'closed' | 'crashed'): void {
    if (how === 'killed') this.#how = how
    this.#harbour.ledger.write({ is: 'died', at: monotonicNs(), worker: this.worker, how })
  }

  #inWords(what: string): string {
    return `${this.role} ${this.worker} ${what}: ${this.#life?.output.trim().slice(-OUTPUT_TOLD) || 'it printed nothing'}`
  }
}
