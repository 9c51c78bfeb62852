// The fleet: the processes that work while the lab is at its worst, what they are told, and their replacements.
//
// Two paths run side by side. Direct: producers -> queue -> consumers with records in Redis, effects in storage that refuses older
// fencing tokens. Outbox: writers -> rows -> relays -> exchange -> inbox consumers, effect and record in one transaction, and a
// message of the effect's own -> rows -> relays -> queue, where it is heard. Some messages fail once, some for good. Where a row asks
// for a cast: an operator, and messages that fail until he has sent their letters again; or senders of half messages, whose
// messages go the direct path from there.
//
// How the runner uses it:
//
//     await using fleet = await startFleet({ amqp: proxies.map(({ url }) => url), redis, postgres, seed, folder })
//     ... inject faults ...
//     await fleet.enough(60_000)      // offers nothing new
//     await fleet.drained(120_000)    // all has ended; rejects with what is missing
//     await fleet.close()             // all workers closed; what lies where is on record
//     const verdict = reconcile(new LedgerReader(fleet.folder).entries())
//     await fleet.discard()
//
// Promises: all waits have limits, and say what was missing; whatever happens, no process outlives `close`.

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { deadQueueOf } from '../../lib/index.ts'
import { type Bundle, bundle } from '../support/bundle.ts'
import { eventually, within } from '../support/eventually.ts'
import type { TcpProxy } from '../support/tcp-proxy.ts'
import { Berth, type Errand } from './fleet/crew.ts'
import { Follower } from './fleet/follower.ts'
import { Ground } from './fleet/ground.ts'
import { LedgerWriter } from './ledger/writer.ts'
import { monotonicNs, type Path } from './ledger.ts'
import { RETRY, RETRY_DELAY_MS, type Sabotage } from './workers/job.ts'
import type { Cast, Progress, RedisPlace, Role, Workload } from './world.ts'

/** What the workers know of the world: proxies, never the servers themselves; and how much work there is. */
export interface FleetSettings {
  /** URLs of the proxies in front of the nodes. */
  readonly amqp: readonly string[]
  readonly redis: RedisPlace
  /** URL of the proxy in front of Postgres; the fleet makes a schema of its own there. */
  readonly postgres: string
  /** Default 1. */
  readonly seed?: number
  /** Where the ledger is kept. Default: a new folder in the system's temporary one. */
  readonly folder?: string
  /** How many of each. Default: 2 producers, 1 outbox writer, 2 relays, 3 consumers, 2 inbox consumers. */
  readonly workers?: Partial<Readonly<Record<Role, number>>>
  /** Who is there beside those: an operator, and messages that fail until their letter is sent again; or senders of half messages. Default: nobody. */
  readonly cast?: Cast | undefined
  /** Messages offered per second, all processes of a path together. Default 300 and 60. */
  readonly perSecond?: { readonly direct?: number; readonly outbox?: number; readonly half?: number }
  /** Messages in all; the fleet stops offering then. A producer that is killed makes it more. Default: until `enough`. */
  readonly messages?: { readonly direct?: number; readonly outbox?: number; readonly half?: number }
  /** Messages accepted and not yet handled, beyond which producers wait, per path. Default 5,000. */
  readonly backlog?: number
  /** Paths on which one instance works and others stand by, so that order holds over instances; on the others all share the work. Default: outbox. */
  readonly singleActive?: readonly Path[]
  /** Handlers at a time per consumer process. Default 20. */
  readonly concurrency?: number
  /** Longest run of a handler, ms; each takes its time from 0 to that. Default 20. */
  readonly handlerMs?: number
  /** Of a thousand messages, so many fail at first, and so many for good. Default 20 and 2. */
  readonly failing?: { readonly late?: number; readonly dead?: number }
  /** Default 3,000. */
  readonly leaseMs?: number
  /** For the lab's own tests: consumers of the direct path that break what Surehop promises. */
  readonly sabotage?: Sabotage
}

/** A fleet at work. */
export interface WorkingFleet extends Workload {
  /** Resolves when all `messages` have been accepted; never without `messages`. */
  readonly offeredAll: Promise<void>
}

const ROLES: Readonly<Record<Role, { readonly path?: Path; readonly many: number }>> = {
  relay: { many: 2 },
  consumer: { many: 3 },
  'inbox-consumer': { many: 2 },
  producer: { path: 'direct', many: 2 },
  'outbox-writer': { path: 'outbox', many: 1 },
  operator: { many: 0 },
  'half-producer': { path: 'half', many: 0 },
  'half-checker': { many: 0 },
}
const CASTS: Readonly<Record<Cast, Partial<Record<Role, number>>>> = {
  operator: { operator: 1 },
  halves: { 'half-producer': 2, 'half-checker': 1 },
}
/** Of a thousand messages of the direct path, where there is an operator. */
const REVIVED = 60
const RATES = { direct: 300, outbox: 60, half: 30 }
/** Who is closed first: the last ones still serve those before. */
const CLOSING: readonly (readonly Role[])[] = [
  ['producer', 'outbox-writer', 'operator'],
  ['half-producer', 'half-checker'],
  ['consumer', 'inbox-consumer'],
  ['relay'],
]
const DEFAULTS = { seed: 1, backlog: 5_000, concurrency: 20, handlerMs: 20, leaseMs: 3_000 } as const
const START_WITHIN_MS = 120_000
const FOLLOW_EVERY_MS = 250
const SWEEP_WITHIN_MS = 30_000
const SWEEPS = 3
const TOLD = 5
/** So many missing messages are looked for. */
const MISSING = 10_000

/** Builds the workers, makes schema, queues and exchange, and starts all. @returns when all work */
export async function startFleet(settings: FleetSettings): Promise<WorkingFleet> {
  const folder = settings.folder ?? (await mkdtemp(join(tmpdir(), 'surehop-lab-')))
  const singleActive = settings.singleActive ?? ['outbox']
  const made = await bundle(
    new URL('./workers/worker.ts', import.meta.url),
    new URL('./workers/clock.ts', import.meta.url),
  )
  const ground = await Ground.make(settings.amqp, settings.postgres, singleActive).catch((error: unknown) => {
    made.close()
    throw error
  })
  const fleet = new TheFleet({ ...DEFAULTS, ...settings, singleActive }, folder, ground, made)
  try {
    await fleet.start()
    return fleet
  } catch (error) {
    await fleet.abandon()
    throw error
  }
}

type Settled = FleetSettings & Required<Pick<FleetSettings, keyof typeof DEFAULTS | 'singleActive'>>

class TheFleet implements WorkingFleet {
  readonly folder: string
  readonly queues: readonly string[]
  readonly castQueues: Readonly<Record<Cast, string>>
  readonly leaseMs: number
  readonly offeredAll: Promise<void>
  readonly #settings: Settled
  readonly #ground: Ground
  readonly #bundle: Bundle
  readonly #ledger: LedgerWriter
  readonly #follower: Follower
  readonly #following: NodeJS.Timeout
  readonly #berths: Berth[] = []
  readonly #crashes: string[] = []
  readonly #stopped: Record<Path, boolean> = { direct: false, outbox: false, half: false }
  #acceptedAll: () => void = () => {}
  #isEnough = false
  #lastNumber = 0
  #closed: Promise<void> | undefined

  constructor(settings: Settled, folder: string, ground: Ground, made: Bundle) {
    this.#settings = settings
    this.folder = folder
    this.#ground = ground
    this.#bundle = made
    this.leaseMs = settings.leaseMs
    this.queues = [ground.names.direct, ground.names.inbox]
    this.castQueues = { operator: deadQueueOf(ground.names.direct), halves: `${ground.names.halves}.half.check` }
    this.#ledger = new LedgerWriter(folder, 0)
    this.#follower = new Follower(folder)
    this.offeredAll = new Promise((resolve) => {
      this.#acceptedAll = resolve
    })
    this.#noteRules()
    this.#following = setInterval(() => this.#follow(), FOLLOW_EVERY_MS)
  }

  async start(): Promise<void> {
    for (const [role, { many }] of Object.entries(ROLES) as [Role, { many: number }][]) {
      const number = this.#settings.workers?.[role] ?? this.#cast[role] ?? many
      for (let i = 0; i < number; i++) this.#berths.push(this.#berth(role, number))
    }
    const all = Promise.all(this.#berths.map((berth) => berth.work()))
    await within(all, { withinMs: START_WITHIN_MS, what: 'the start of all workers' }).catch((error: Error) => {
      throw new Error([error.message, ...this.#crashes].join('\n'), { cause: error })
    })
  }

  living(role: Role): readonly number[] {
    return this.#berths.filter((berth) => berth.role === role && berth.lives).map(({ worker }) => worker)
  }

  kill9(worker: number): Promise<void> {
    return this.#of(worker).kill9()
  }

  freeze(worker: number, during: number | (() => Promise<unknown>)): Promise<void> {
    return this.#of(worker).freeze(during)
  }

  inWork(worker: number): number {
    this.#follower.look()
    return this.#follower.inWork(worker)
  }

  takenFrom(worker: number): number {
    this.#follower.look()
    return this.#follower.takenFrom(worker)
  }

  cutOff(worker: number, proxies: readonly TcpProxy[]): void {
    const ports = [...this.#of(worker).ports]
    this.#ledger.write({ is: 'cut-off', at: monotonicNs(), worker })
    for (const proxy of proxies) proxy.cut('rst', ports)
  }

  redisForgot(times: { readonly since: number; readonly from: number; readonly at: number }): void {
    this.#ledger.write({ is: 'forgot', ...times })
  }

  async restartWithClock(worker: number, offsetMs: number): Promise<number> {
    const berth = this.#of(worker)
    await berth.restartWithClock(offsetMs)
    return berth.worker
  }

  crashes(): readonly string[] {
    return this.#crashes.splice(0)
  }

  progress(): Progress {
    return this.#follower.progress
  }

  async enough(withinMs: number): Promise<void> {
    this.#isEnough = true
    const offering = this.#berths.filter(({ role }) => ROLES[role].path !== undefined)
    const check = () => {
      const open = offering.filter(({ accepted }) => !accepted)
      if (open.length > 0) throw new Error(`open at ${open.map(({ role, worker }) => `${role} ${worker}`).join(', ')}`)
    }
    await eventually(check, { withinMs, what: 'that all that was offered is accepted' })
  }

  async drained(withinMs: number): Promise<void> {
    await eventually(() => this.#nothingWaits(), { withinMs, what: 'the end of all messages' })
    const crashes = this.crashes()
    if (crashes.length > 0) throw new Error(crashes.join('\n'))
  }

  close(): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  async discard(): Promise<void> {
    await rm(this.folder, { recursive: true, force: true })
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  /** Ends what had been started. */
  async abandon(): Promise<void> {
    await Promise.all(this.#berths.map((berth) => berth.abandon()))
    await this.#letGo()
  }

  async #close(): Promise<void> {
    try {
      for (const roles of CLOSING)
        await Promise.all(this.#berths.filter(({ role }) => roles.includes(role)).map((berth) => berth.dismiss()))
      await this.#sweep()
      this.#follower.look()
      await this.#ground.survey(this.#ledger, this.#follower.missing(MISSING))
    } finally {
      await this.abandon()
    }
  }

  /** What consumers gave back when they closed is nobody's fault: once more, with new ones. */
  async #sweep(): Promise<void> {
    for (let sweep = 0; sweep < SWEEPS; sweep++) {
      if (Object.keys(await this.#ground.onTheWay().catch(() => ({}))).length === 0) return
      const halves = this.#settings.cast === 'halves' ? (['half-checker'] as const) : []
      const berths = (['relay', 'consumer', 'inbox-consumer', ...halves] as const).map((role) => this.#berth(role, 1))
      this.#berths.push(...berths)
      await within(Promise.all(berths.map((berth) => berth.work())), { withinMs: SWEEP_WITHIN_MS }).catch(() => {})
      await eventually(() => this.#nothingWaits(), { withinMs: SWEEP_WITHIN_MS }).catch(() => {})
      for (const berth of berths.toReversed()) await berth.dismiss()
    }
  }

  async #letGo(): Promise<void> {
    clearInterval(this.#following)
    this.#ledger.close()
    this.#bundle.close()
    await this.#ground.close()
  }

  get #cast(): Partial<Record<Role, number>> {
    const { cast } = this.#settings
    return cast ? CASTS[cast] : {}
  }

  #of(worker: number): Berth {
    const berth = this.#berths.find((one) => one.worker === worker && one.lives)
    if (!berth) throw new Error(`expected the number of a living worker, got ${worker}: it has ended since`)
    return berth
  }

  #berth(role: Role, many: number): Berth {
    const harbour = {
      bundle: this.#bundle,
      ledger: this.#ledger,
      next: () => ++this.#lastNumber,
      crashes: this.#crashes,
      onAccepted: () => this.#tellIfAccepted(),
    }
    return new Berth(this.#errand(role, many), harbour)
  }

  #errand(role: Role, many: number): Errand {
    const { amqp, redis, seed, concurrency, handlerMs, failing, leaseMs, singleActive, sabotage } = this.#settings
    const { names, postgres } = this.#ground
    const { path } = ROLES[role]
    const share = path && this.#settings.messages?.[path]
    const revived = this.#settings.cast === 'operator' && path === 'direct' ? REVIVED : 0
    return {
      ...{ role, amqp, redis, postgres, names, seed, concurrency, handlerMs, leaseMs, singleActive, sabotage },
      folder: this.folder,
      failing: { late: failing?.late ?? 20, dead: failing?.dead ?? 2, revived },
      perSecond: path ? (this.#settings.perSecond?.[path] ?? RATES[path]) / many : 0,
      share: share === undefined ? undefined : Math.ceil(share / many),
    }
  }

  #noteRules(): void {
    const { leaseMs, concurrency, singleActive } = this.#settings
    const redelivered = Number(this.#ground.brokerVersion.split('.')[0]) >= 4 ? ('front' as const) : ('back' as const)
    const rules = { leaseMs, concurrency, inOrder: singleActive, redelivered, attempts: RETRY.attempts }
    this.#ledger.write({ is: 'rules', at: monotonicNs(), ...rules, delayMs: RETRY_DELAY_MS })
  }

  #tellIfAccepted(): void {
    if (this.#berths.every(({ role, accepted }) => accepted || ROLES[role].path === undefined)) this.#acceptedAll()
  }

  /** Producers wait for consumers that cannot follow, and for faults that keep them from it. */
  #follow(): void {
    this.#follower.look()
    // Again and again: a process that was killed and replaced has not heard it.
    if (this.#isEnough) for (const berth of this.#berths) if (!berth.accepted) berth.say({ enough: true })
    const { backlog } = this.#settings
    for (const path of ['direct', 'outbox', 'half'] as const) {
      const waiting = this.#follower.waiting[path]
      const stop = this.#stopped[path] ? waiting > backlog / 2 : waiting > backlog
      this.#stopped[path] = stop
      const flow = stop ? 'stop' : 'go'
      for (const berth of this.#berths) if (ROLES[berth.role].path === path) berth.flow(flow)
    }
  }

  async #nothingWaits(): Promise<void> {
    this.#follower.look()
    const { direct, outbox, half } = this.#follower.waiting
    if (direct + outbox + half > 0) {
      const missing = this.#follower.missing(TOLD).join(', ')
      throw new Error(`${direct} direct and ${outbox} outbox and ${half} half messages wait: ${missing}`)
    }
    const fill = await this.#ground.onTheWay()
    const left = Object.entries(fill).map(([name, count]) => `${count} in ${name}`)
    if (left.length > 0) throw new Error(`all is handled, and on the way are still ${left.join(', ')}`)
  }
}
