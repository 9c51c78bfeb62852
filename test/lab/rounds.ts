// Plays one row: a fleet works, the troubles of its lanes come and go, all is made whole, everything drains, the ledger is read.
//
//   starting -> working (under trouble) -> whole again -> draining -> closed -> judged
//
// Promises: each lane has its number of turns, and at least so many messages flow, unless the time is up; a trouble that cannot be
// healed, or work that does not drain, is told in the row and never hidden by the counts; the ledger stays only where
// the row failed.

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { guard } from '../support/guard.ts'
import { type FleetSettings, startFleet } from './fleet.ts'
import type { Grounds } from './grounds.ts'
import { LedgerReader } from './ledger/reader.ts'
import { type Lane, lanesOf, type Row } from './mix.ts'
import { judgeHalves } from './reconcile/halves.ts'
import { withJudgement } from './reconcile/judgement.ts'
import { judgeLetters } from './reconcile/letters.ts'
import { reconcile } from './reconcile.ts'
import { failings, type Played } from './table.ts'
import type { Workload, World } from './world.ts'

/** How large a row is. */
export interface Size {
  /** Messages handled at least. */
  readonly messages: number
  /** Turns of a row with one fault; a mix has as many as its largest lane has faults, this many at least. */
  readonly turns: number
  /** Turns of each lane of a mix at most. */
  readonly mixTurns: number
  /** Longest time for the work under trouble, ms: then no new trouble begins and what flows is enough. */
  readonly workMs: number
  /** Longest time for what was offered to come to its end, ms. */
  readonly drainMs: number
  /** How much work there is at a time. */
  readonly fleet: Pick<FleetSettings, 'perSecond' | 'backlog' | 'workers' | 'singleActive'>
}

/** Says a line about the row. */
export type Tell = (line: string) => void

const TELL_EVERY_MS = 10_000
const LOOK_EVERY_MS = 200

/** Plays it on these grounds. Whatever goes wrong is told in what it returns. */
export async function play(row: Row, grounds: Grounds, seed: number, size: Size, tell: Tell): Promise<Played> {
  const began = performance.now()
  const folder = await mkdtemp(join(tmpdir(), 'surehop-lab-'))
  const letGo = guard({ path: folder })
  const outcome = await playInto(folder, row, grounds, seed, size, tell).catch(unplayed)
  const { id, name, limits, provokes, leftOut } = row
  const played = {
    id,
    name,
    limits,
    provokes,
    ...(leftOut && { leftOut }),
    seconds: (performance.now() - began) / 1_000,
    ...outcome,
  }
  if (failings(played).length === 0) await rm(folder, { recursive: true, force: true })
  else tell(`the ledger is kept in ${folder}`)
  letGo()
  return played
}

type Outcome = Pick<Played, 'injected' | 'verdict' | 'trouble' | 'tried'>

async function playInto(
  folder: string,
  row: Row,
  grounds: Grounds,
  seed: number,
  size: Size,
  tell: Tell,
): Promise<Outcome> {
  await using place = await grounds.prepare(row)
  await using fleet = await startFleet({ ...place.reach, ...size.fleet, cast: row.cast, seed, folder })
  const round = new Round(row, { ...place.world, fleet }, seed, size, tell)
  const working = await round.work().then(
    () => [],
    (error: unknown) => [inWords(error)],
  )
  await fleet.close()
  const trouble = [...working, ...fleet.crashes()].join('; ')
  const verdict = reconcile(new LedgerReader(folder).entries())
  return withCast(row, folder, { injected: round.injected, verdict, ...(trouble !== '' && { trouble }) }, tell)
}

const JUDGES = { operator: judgeLetters, halves: judgeHalves } as const

/** With what those did who are there only in some rows; a row in which they came to nothing proves nothing. */
function withCast({ cast, faults }: Row, folder: string, outcome: Outcome, tell: Tell): Outcome {
  if (!cast) return outcome
  const judged = JUDGES[cast](new LedgerReader(folder).entries())
  tell(
    Object.entries(judged.counts)
      .map(([what, count]) => `${count} ${what}`)
      .join(', '),
  )
  const never = faults.flatMap(({ tries = [] }) => tries).filter((what) => !judged.counts[what])
  const untried = [...judged.untried, ...never.map((what) => `0 ${what}`)]
  const troubles = [...(outcome.trouble === undefined ? [] : [outcome.trouble]), ...untried]
  const trouble = troubles.length === 0 ? {} : { trouble: troubles.join('; ') }
  return { ...outcome, ...trouble, verdict: withJudgement(outcome.verdict, judged), tried: judged.counts }
}

function unplayed(error: unknown): Outcome {
  const counts = { lost: 0, doubled: 0, repeated: 0, zombies: 0, outOfOrder: 0, phantom: 0, left: 0, deadLetters: 0 }
  const contests = { putOff: 0, takenOver: 0, refused: 0, unmoored: 0 }
  const attempts = { attempts: 0, retried: 0, reordered: 0 }
  const told = { unknown: { told: 0, withdrawn: 0, arrived: 0 }, neverSent: 0 }
  const verdict = { messages: 0, ...counts, ...contests, ...attempts, ...told, longestGapMs: 0, evidence: [] }
  return { injected: 0, verdict, trouble: `it could not be played: ${inWords(error)}` }
}

class Round {
  injected = 0
  readonly #row: Row
  readonly #world: World & { readonly fleet: Workload }
  readonly #seed: number
  readonly #size: Size
  readonly #tell: Tell
  readonly #until: number

  constructor(row: Row, world: World & { readonly fleet: Workload }, seed: number, size: Size, tell: Tell) {
    this.#row = row
    this.#world = world
    this.#seed = seed
    this.#size = size
    this.#tell = tell
    this.#until = Date.now() + size.workMs
  }

  async work(): Promise<void> {
    const telling = setInterval(() => this.#tell(this.#howFar()), TELL_EVERY_MS)
    try {
      const lanes = lanesOf(this.#row, this.#seed)
      await Promise.all(lanes.map((lane) => this.#run(lane, this.#turnsOf(lane, lanes.length))))
      await this.#enoughHandled()
      await this.#drain()
    } finally {
      clearInterval(telling)
    }
  }

  #turnsOf({ size }: Lane, lanes: number): number {
    const { turns, mixTurns } = this.#size
    return lanes === 1 ? turns : Math.min(Math.max(turns, size), mixTurns)
  }

  async #run({ turns }: Lane, howMany: number): Promise<void> {
    for (let turn = 0; turn < howMany && !this.#timeIsUp(); turn++) {
      const { fault, afterMs, choices, inject } = turns.next().value
      await pause(afterMs)
      this.#tell(`${fault.name} (${choices})`)
      await inject(this.#world).catch((error: unknown) => {
        throw new Error(`"${fault.name}" (${choices}) could not be injected or healed: ${inWords(error)}`, {
          cause: error,
        })
      })
      this.injected++
    }
  }

  async #enoughHandled(): Promise<void> {
    const { fleet } = this.#world
    while (fleet.progress().handled < this.#size.messages && !this.#timeIsUp()) await pause(LOOK_EVERY_MS)
  }

  async #drain(): Promise<void> {
    const { fleet } = this.#world
    await Promise.all([this.#whole(), fleet.enough(this.#size.drainMs)])
    await fleet.drained(this.#size.drainMs)
  }

  /** Each fault has healed what it did; this is for one that could not. */
  async #whole(): Promise<void> {
    const { rabbitmq, redis, postgres, sentinel, redisCluster } = this.#world
    const touched = this.#row.faults.some(({ touches }) => touches === 'broker')
    const servers = [redis.start(), postgres.start(), sentinel?.whole(), redisCluster?.whole()]
    await Promise.all([...servers, touched ? rabbitmq.whole() : undefined])
  }

  #timeIsUp(): boolean {
    return Date.now() > this.#until
  }

  #howFar(): string {
    const { offered, accepted, handled } = this.#world.fleet.progress()
    return `${handled} handled of ${accepted} accepted and ${offered} offered, ${this.injected} faults healed`
  }
}

function inWords(error: unknown): string {
  // Closing failed, too: both are told.
  const { name, error: then, suppressed } = (error ?? {}) as Partial<SuppressedError>
  if (name === 'SuppressedError') return `${inWords(suppressed)}; and then: ${inWords(then)}`
  return error instanceof Error ? error.message : String(error)
}
