// Owners that crash, lose replies and come back, against any store, under the eyes of an observer of everything.

import { randomUUID } from 'node:crypto'
import { expect } from 'chai'
import fc from 'fast-check'
import { v7 } from 'uuid'
import type { Claim, Ending, IdempotencyStore, Scope, SettleResult } from '../../lib/idempotency/idempotency.ts'
import { HOUR } from './model-commands.ts'

/** `claim!` and the like: executed, and the reply is lost; the owner repeats it when it next does anything. */
export const verbs = ['claim', 'claim!', 'complete', 'complete!', 'fail', 'fail!', 'give back', 'bury', 'die'] as const
type Verb = (typeof verbs)[number]
/** `freeze`: the store was frozen for so long that all leases ran out; what it executes next lay in its sockets. */
export type Step = readonly [owner: number, verb: Verb] | 'wipe' | 'freeze'

/** One owner as it sees itself. */
interface Owner {
  readonly name: string
  /** The last token it was told of, right or wrong by now. */
  token: number | undefined
  /** What the store knows of it. */
  presence: 'unknown' | 'alive' | 'silent'
  unanswered: (() => Promise<void>) | undefined
}

/** What a test does to a store. */
export interface Befall {
  /** Empties it. */
  wipe(): Promise<void>
  /** All owners were silent for longer than their lease: what time would do, without waiting. */
  silence(): Promise<void>
}

/** Runs steps against a store, and watches from outside what only an observer of everything can know. */
export class World {
  readonly #store: IdempotencyStore
  readonly #scope: Scope
  readonly #befall: Befall
  readonly #id = v7()
  readonly #owners: Owner[]
  #sequence = 0
  #attempt = 1
  #generation = 0
  #holder: { owner: Owner; token: number } | undefined
  #greatest = 0
  #completed = false
  #lastEnding: { token: number; ending: Ending } | undefined
  /** The store was emptied since: what it forgot it cannot hold against anybody. */
  #forgot = false

  constructor(store: IdempotencyStore, scope: Scope, befall: Befall) {
    this.#store = store
    this.#scope = scope
    this.#befall = befall
    this.#owners = ['a', 'b', 'c'].map((name) => ({
      name,
      token: undefined,
      presence: 'unknown',
      unanswered: undefined,
    }))
  }

  async run(steps: readonly Step[]): Promise<void> {
    for (const step of steps) await this.#step(step)
    await this.#endsOrCanBeReclaimed()
  }

  async #step(step: Step): Promise<void> {
    if (step === 'wipe') return this.#forget()
    if (step === 'freeze') return this.#freeze()
    const owner = this.#owners[step[0]]!
    const repeat = owner.unanswered
    owner.unanswered = undefined
    if (repeat) await repeat()
    if (step[1] === 'die') return this.#die(owner)
    const lost = step[1].endsWith('!')
    const act = this.#action(owner, step[1].replace('!', ''))
    await act(lost)
    if (lost) owner.unanswered = () => act(false)
  }

  #action(owner: Owner, verb: string): (lost: boolean) => Promise<void> {
    if (verb !== 'claim') return this.#settlement(owner, this.#endingOf(verb))
    const claim: Claim = {
      id: this.#id,
      digest: undefined,
      generation: this.#generation,
      attempt: this.#attempt,
      sequence: ++this.#sequence,
    }
    return (lost) => this.#claim(owner, claim, lost)
  }

  #endingOf(verb: string): Ending {
    if (verb === 'complete') return { state: 'completed' }
    if (verb === 'fail') return { state: 'failed', nextAttempt: this.#attempt + 1 }
    return verb === 'bury' ? { state: 'dead', generation: this.#generation } : { state: 'returned' }
  }

  async #claim(owner: Owner, claim: Claim, lost: boolean): Promise<void> {
    const { presence } = owner
    const before = await this.#look()
    const [answer] = await this.#store.claim(this.#scope, owner.name, [claim])
    owner.presence = 'alive'
    if (answer?.status === 'leased') expect(await this.#look(), 'who waits changes nothing').to.deep.equal(before)
    if (answer?.status !== 'acquired' && answer?.status !== 'exhausted') return
    const { fencingToken: token } = answer
    expect(this.#completed, 'completed is final').to.equal(false)
    if (token !== this.#holder?.token) {
      expect(token, 'tokens only grow').to.be.greaterThan(this.#greatest)
      if (this.#holder && this.#holder.owner !== owner && !this.#forgot) {
        expect(this.#holder.owner.presence, 'one live holder').to.equal('silent')
        expect(presence, 'who was away takes nobody over').to.not.equal('silent')
      }
    } else expect(this.#holder.owner, 'a repeated answer goes to its owner').to.equal(owner)
    this.#greatest = Math.max(this.#greatest, token)
    this.#holder = { owner, token }
    this.#forgot = false
    if (!lost) owner.token = token
  }

  #settlement(owner: Owner, ending: Ending): (lost: boolean) => Promise<void> {
    const { token } = owner
    if (token === undefined) return async () => {}
    return async () => {
      const before = await this.#look()
      const settlement = { id: this.#id, fencingToken: token, digest: undefined, ending }
      const [result] = await this.#store.settle(this.#scope, owner.name, [settlement])
      if (result === 'settled') this.#ended(owner, token, ending, before.state === 'absent')
      else await this.#changedNothing(result!, before)
    }
  }

  #ended(owner: Owner, token: number, ending: Ending, absent: boolean): void {
    const repeated = this.#lastEnding?.token === token && sameEnding(this.#lastEnding.ending, ending)
    const held = this.#holder?.token === token && this.#holder.owner === owner
    const buried =
      ending.state === 'dead' && this.#lastEnding?.token === token && this.#lastEnding.ending.state === 'failed'
    expect(repeated || held || absent || buried, 'only the holder settles').to.equal(true)
    if (repeated && !held) return
    if (ending.state === 'completed') this.#completed = true
    if (ending.state === 'failed') this.#attempt = ending.nextAttempt
    if (ending.state === 'dead') this.#generation = Math.max(this.#generation, ending.generation + 1)
    this.#holder = undefined
    this.#lastEnding = { token, ending }
  }

  async #changedNothing(result: SettleResult, before: unknown): Promise<void> {
    expect(result).to.be.oneOf(['already', 'lost'])
    if (result === 'already') expect(this.#completed, 'already only if completed').to.equal(true)
    expect(await this.#look(), 'a zombie changes nothing').to.deep.equal(before)
  }

  async #die(owner: Owner): Promise<void> {
    await this.#store.renew(this.#scope, owner.name, { leave: true })
    owner.presence = 'unknown'
    if (this.#holder?.owner === owner) this.#forgotten()
  }

  async #freeze(): Promise<void> {
    await this.#befall.silence()
    for (const owner of this.#owners) if (owner.presence === 'alive') owner.presence = 'silent'
  }

  /** The lease of a dead owner: the next may have it, and until then its owner, come back, may still settle. */
  #forgotten(): void {
    this.#forgot = true
  }

  async #forget(): Promise<void> {
    await this.#befall.wipe()
    for (const owner of this.#owners) owner.presence = 'unknown'
    this.#completed = false
    this.#lastEnding = undefined
    this.#forgotten()
  }

  async #endsOrCanBeReclaimed(): Promise<void> {
    for (const owner of this.#owners) await this.#store.renew(this.#scope, owner.name, { leave: true })
    const claim = { id: this.#id, digest: undefined, generation: this.#generation, attempt: 1_000, sequence: 0 }
    const [answer] = await this.#store.claim(this.#scope, 'next', [claim])
    expect(answer?.status).to.be.oneOf(this.#completed ? ['completed'] : ['acquired', 'exhausted'])
  }

  async #look() {
    return (await this.#store.look(this.#scope, [this.#id]))[0]!
  }
}

function sameEnding(a: Ending, b: Ending): boolean {
  return JSON.stringify(a) === JSON.stringify(b)
}

export const scopeOf = (): Scope => ({ name: randomUUID(), retentionMs: 1_000 * HOUR, leaseMs: HOUR, maxStarts: 3 })

export const step = (owners: number): fc.Arbitrary<Step> =>
  fc.oneof(
    { weight: 20, arbitrary: fc.tuple(fc.nat({ max: owners - 1 }), fc.constantFrom(...verbs, 'claim' as const)) },
    { weight: 1, arbitrary: fc.constant<Step>('wipe') },
    { weight: 2, arbitrary: fc.constant<Step>('freeze') },
  )
