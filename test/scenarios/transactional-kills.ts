// The scenario "every step of transactional sending has its death": writers, relays, consumers with a transactional inbox, and
// senders of half messages die by kill -9 at each statement, frame, decision and piece of work that they come to. Then all is counted.

import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { migrate } from '../../lib/index.ts'
import type { End } from '../support/child.ts'
import { freshSchema } from '../support/database.ts'
import { eventually, within } from '../support/eventually.ts'
import { Campaign, needsEnd, randomOf } from './transactional-kills/campaign.ts'
import { type Books, bookOf, FAULTS, reconcile, type Verdict } from './transactional-kills/ledger.ts'
import { type Life, type Nursery, openNursery } from './transactional-kills/nursery.ts'
import { type Place, type Role, TRY_AGAIN } from './transactional-kills/place.ts'
import { ANY, type Obituary, type Plan } from './transactional-kills/steps.ts'
import { tableOf } from './transactional-kills/table.ts'
import { makeTables, openPlace, Witness } from './transactional-kills/witness.ts'

/** How large. */
export interface TransactionalKillOptions {
  /** Deaths of each kind of process, at least; and one at least at each step that can be reached. */
  readonly kills: Readonly<Partial<Record<Role, number>>>
  /** Only at steps whose name begins so. Default: at all. */
  readonly only?: string
  /** Lines of queues side by side. */
  readonly places: number
  /** Of the order in which steps get their deaths. */
  readonly seed: number
  /** From the last death to the last message, ms. */
  readonly withinMs: number
}

/** What came of it. */
export interface TransactionalKillReport {
  readonly seed: number
  readonly kills: number
  readonly seconds: number
  readonly steps: readonly StepReport[]
  readonly verdicts: Readonly<Record<'outbox' | 'half messages', Verdict>>
  readonly left: Readonly<Record<string, number>>
}

/** Deaths at one step. */
export interface StepReport {
  readonly role: Role
  readonly step: string
  readonly kills: number
  readonly missed: number
}

const ROLES: readonly Role[] = ['writer', 'relay', 'consumer', 'half', 'naive writer', 'naive consumer']

/** Of the ordinary test run. */
export const FULL_SIZE = {
  kills: { writer: 60, relay: 160, consumer: 200, half: 130 },
  places: 2,
  withinMs: 300_000,
} as const

/** SEED, if set. */
export function seedOfRun(): number {
  return Number(process.env['SEED'] ?? Date.now() % 1_000_000)
}

const START_MS = 60_000
/** A step that has not been reached after so long is given up: any other will do. */
const PATIENCE_MS = 4_000
/** A process that is to die while it ends works for so long before. */
const BEFORE_END_MS = 300
const DRY_MS = 3_000

type Tell = (line: string) => void

/** Plays it against the services of AMQP_URL, REDIS_URL and DATABASE_URL. */
export async function transactionalKills(
  options: TransactionalKillOptions,
  tell: Tell = () => {},
): Promise<TransactionalKillReport> {
  const began = performance.now()
  const folder = await mkdtemp(join(tmpdir(), 'surehop-books-'))
  const schema = await freshSchema()
  const nursery = await openNursery()
  let witness: Witness | undefined
  try {
    await migrate(schema.pool, { schema: schema.name })
    await makeTables(schema)
    const places = await Promise.all(Array.from({ length: options.places }, () => openPlace(schema, folder)))
    witness = await Witness.open(schema, places)
    const deaths = new Deaths(options, { nursery, places, folder, tell })
    await deaths.dryRun()
    await deaths.killAll()
    tell(`${deaths.kills} killed after ${secondsSince(began)} s; waiting for the end`)
    const { books, left } = await theEnd(witness, deaths, options.withinMs)
    const of = (letter: string) => reconcile(bookOf(books, (id) => id.startsWith(letter)))
    const verdicts = { outbox: of('w'), 'half messages': of('h') }
    return {
      seed: options.seed,
      kills: deaths.kills,
      seconds: secondsSince(began),
      steps: deaths.steps,
      verdicts,
      left,
    }
  } finally {
    await nursery.close()
    await witness?.close().catch(() => {})
    await schema.close()
    await rm(folder, { recursive: true, force: true })
  }
}

/** Nothing new is begun; what was committed gets the time to arrive. Then all end in good order. */
async function theEnd(
  witness: Witness,
  deaths: Deaths,
  withinMs: number,
): Promise<{ books: Books; left: Record<string, number> }> {
  deaths.endWork()
  const faults = async () => {
    const verdict = reconcile(await witness.books())
    const found = FAULTS.filter((fault) => verdict[fault].length > 0).map(
      (fault) => `${verdict[fault].length} ${fault}`,
    )
    const left = Object.keys(await witness.left())
    if (found.length + left.length > 0) throw new Error([...found, ...left].join(', '))
  }
  // What is not there then is missing: the verdict says what.
  await eventually(faults, { withinMs, what: 'the end of all that was committed' }).catch(() => {})
  await deaths.end()
  return { books: await witness.books(), left: await witness.left() }
}

interface Around {
  readonly nursery: Nursery
  readonly places: readonly Place[]
  readonly folder: string
  readonly tell: Tell
}

/** All deaths, in lanes: one per place and role, in each of which one process lives at a time. */
class Deaths {
  readonly #campaigns: ReadonlyMap<Role, Campaign>
  readonly #around: Around
  readonly #lanes: readonly Lane[]

  constructor({ kills, seed, only = '' }: TransactionalKillOptions, around: Around) {
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
    return JSON.parse(await readFile(this.#file, 'utf8')) as Obituary
  }
}

function secondsSince(began: number): number {
  return Math.round((performance.now() - began) / 100) / 10
}

/** `npm run scenario:transactional-kills`: the full size, told as it goes. */
async function main(): Promise<void> {
  const report = await transactionalKills({ ...FULL_SIZE, seed: seedOfRun() }, (line) => console.error(line))
  console.log(tableOf(report))
  const sound = Object.values(report.verdicts).every((verdict) => FAULTS.every((fault) => verdict[fault].length === 0))
  process.exitCode = sound && Object.keys(report.left).length === 0 ? 0 : 1
}

if (process.argv[1] === import.meta.filename) await main()
