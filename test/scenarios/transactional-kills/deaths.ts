// The deaths of one run, in lanes: one per place and kind of process, in each of which one lives at a time.

import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import type { End } from '../../support/child.ts'
import { within } from '../../support/eventually.ts'
import { Campaign, needsEnd, randomOf } from './campaign.ts'
import type { Life, Nursery } from './nursery.ts'
import { type Place, type Role, TRY_AGAIN } from './place.ts'
import { ANY, type Obituary, type Plan } from './steps.ts'

/** Which deaths, and how many. */
export interface DeathOptions {
  /** Deaths of each kind of process, at least; and one at least at each step that can be reached. Others do not live. */
  readonly kills: Readonly<Partial<Record<Role, number>>>
  /** Only at steps whose name begins so. Default: at all. */
  readonly only?: string
  /** Of the order in which steps get their deaths. */
  readonly seed: number
}

/** Deaths at one step. */
export interface StepReport {
  readonly role: Role
  readonly step: string
  readonly kills: number
  readonly missed: number
}

const ROLES: readonly Role[] = ['writer', 'relay', 'consumer', 'half', 'naive writer', 'naive consumer']

const START_MS = 60_000
/** A step that has not been reached after so long is given up: any other will do. */
const PATIENCE_MS = 3_000
/** A process that is to die while it ends works for so long before. */
const BEFORE_END_MS = 300
const DRY_MS = 3_000

interface Around {
  readonly nursery: Nursery
  readonly places: readonly Place[]
  readonly folder: string
  readonly tell: (line: string) => void
}

/** All deaths. */
export class Deaths {
  readonly #campaigns: ReadonlyMap<Role, Campaign>
  readonly #around: Around
  readonly #lanes: readonly Lane[]

  constructor({ kills, seed, only = '' }: DeathOptions, around: Around) {
    const random = randomOf(seed)
    this.#around = around
    const roles = ROLES.filter((role) => kills[role] !== undefined)
    this.#campaigns = new Map(
      roles.map((role) => [role, new Campaign(kills[role]!, random, (step) => step.startsWith(only))]),
    )
    this.#lanes = around.places.flatMap((place) =>
      [...this.#campaigns].map(([role, campaign]) => new Lane(role, place, campaign, around)),
    )
  }

  get kills(): number {
    return [...this.#campaigns.values()].reduce((sum, { kills }) => sum + kills, 0)
  }

  get steps(): StepReport[] {
    return [...this.#campaigns].flatMap(([role, { steps }]) =>
      [...steps].map(([step, { kills, missed }]) => ({ role, step, kills, missed })),
    )
  }

  /** Which steps are there? Nobody dies. */
  async dryRun(): Promise<void> {
    await Promise.all(this.#lanes.map((lane) => lane.start()))
    await pause(DRY_MS)
    await Promise.all(this.#lanes.map((lane) => lane.end()))
    for (const [role, { steps }] of this.#campaigns) this.#around.tell(`${role}: ${steps.size} steps seen`)
  }

  /** In the end every lane has a process that nobody kills. */
  async killAll(): Promise<void> {
    await Promise.all(this.#lanes.map((lane) => lane.killAll(() => this.#told())))
  }

  /** Those who begin transactions end. */
  endWork(): void {
    for (const lane of this.#lanes) lane.rest()
  }

  async end(): Promise<void> {
    await Promise.all(this.#lanes.map((lane) => lane.end()))
  }

  #told(): void {
    if (this.kills % 50 === 0) this.#around.tell(`${this.kills} killed`)
  }
}

class Lane {
  static #started = 0
  readonly role: Role
  readonly #place: Place
  readonly #campaign: Campaign
  readonly #around: Around
  #file = ''
  #life: Life | undefined

  constructor(role: Role, place: Place, campaign: Campaign, around: Around) {
    this.role = role
    this.#place = place
    this.#campaign = campaign
    this.#around = around
  }

  /** A process that nobody kills; once more, where the services did not answer in time. */
  async start(): Promise<void> {
    for (;;) {
      const life = this.#begin()
      const end = await within(Promise.race([life.ready, life.ended]), { withinMs: START_MS, what: `a ${this.role}` })
      if (!end) return
      this.#campaign.learn(await this.#obituary(end))
    }
  }

  async killAll(told: () => void): Promise<void> {
    while (!this.#campaign.isOver) {
      const plan = this.#campaign.next()
      this.#campaign.learn(await this.#obituary(await this.#death(plan)), plan)
      told()
    }
    await this.start()
  }

  /** No new transaction; what is under way goes on. */
  rest(): void {
    this.#life?.say({ rest: true })
  }

  async end(): Promise<void> {
    if (!this.#life) return
    this.#life.say({ stop: true })
    this.#campaign.learn(await this.#obituary(await this.#ended(START_MS)))
    this.#life = undefined
  }

  #begin(plan?: Plan): Life {
    const life = this.#around.nursery.take()
    this.#file = join(this.#around.folder, `obituary-${++Lane.#started}`)
    this.#life = life
    life.say({ start: { role: this.role, place: this.#place, file: this.#file, ...(plan ? { plan } : {}) } })
    return life
  }

  /** Waits for the planned death; where it does not come, any will do. */
  async #death(plan: Plan): Promise<End> {
    const life = this.#begin(plan)
    if (needsEnd(plan)) {
      await Promise.race([life.ready.then(() => pause(BEFORE_END_MS)), life.ended])
      life.say({ stop: true })
    }
    await within(Promise.race([life.ready, life.ended]), { withinMs: START_MS, what: `a ${this.role}` })
    return this.#ended(PATIENCE_MS).catch(() => {
      life.say({ plan: { step: ANY, nth: 1 } })
      return this.#ended(START_MS)
    })
  }

  #ended(withinMs: number): Promise<End> {
    return within(this.#life!.ended, { withinMs, what: `the end of a ${this.role}` })
  }

  async #obituary({ code, signal }: End): Promise<Obituary> {
    if (signal !== 'SIGKILL' && code !== 0 && code !== TRY_AGAIN)
      throw new Error(`a ${this.role} ended by itself (${signal ?? code}). It printed:\n${this.#life!.output}`)
    const words = await readFile(this.#file, 'utf8').catch((cause: unknown) => {
      const { output } = this.#life!
      throw new Error(`a ${this.role} left no obituary (${signal ?? code}). It printed:\n${output}`, { cause })
    })
    return JSON.parse(words) as Obituary
  }
}
