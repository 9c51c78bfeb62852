// The scenario "every step of transactional sending has its death": writers, relays, consumers with a transactional inbox, and
// senders of half messages die by kill -9 at each statement, frame, decision and piece of work that they come to. Then all is counted.

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { migrate } from '../../lib/index.ts'
import { freshSchema } from '../support/database.ts'
import { eventually } from '../support/eventually.ts'
import { guard } from '../support/guard.ts'
import { type DeathOptions, Deaths, type StepReport } from './transactional-kills/deaths.ts'
import { type Books, bookOf, FAULTS, reconcile, type Verdict } from './transactional-kills/ledger.ts'
import { openNursery } from './transactional-kills/nursery.ts'
import { tableOf } from './transactional-kills/table.ts'
import { makeTables, openPlace, Witness } from './transactional-kills/witness.ts'

/** How large. */
export interface TransactionalKillOptions extends DeathOptions {
  /** Lines of queues side by side. */
  readonly places: number
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
  /** Messages that still lie somewhere. */
  readonly left: Readonly<Record<string, number>>
  /** Messages whose consumers died so often that the broker gave up on them, and an operator sent them again. */
  readonly replayed: number
}

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

type Tell = (line: string) => void

/** Plays it against the services of AMQP_URL, REDIS_URL and DATABASE_URL. */
export async function transactionalKills(
  options: TransactionalKillOptions,
  tell: Tell = () => {},
): Promise<TransactionalKillReport> {
  const began = performance.now()
  const folder = await mkdtemp(join(tmpdir(), 'surehop-books-'))
  const release = guard({ path: folder })
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
    const { books, left, replayed } = await theEnd(witness, deaths, options.withinMs)
    const of = (letter: string) => reconcile(bookOf(books, (id) => id.startsWith(letter)))
    const verdicts = { outbox: of('w'), 'half messages': of('h') }
    return {
      seed: options.seed,
      kills: deaths.kills,
      seconds: secondsSince(began),
      steps: deaths.steps,
      verdicts,
      left,
      replayed,
    }
  } finally {
    await nursery.close()
    await witness?.close().catch(() => {})
    await schema.close()
    await rm(folder, { recursive: true, force: true })
    release()
  }
}

/** Nothing new is begun; what was committed gets the time to arrive. Then all end in good order. */
async function theEnd(
  witness: Witness,
  deaths: Deaths,
  withinMs: number,
): Promise<Pick<TransactionalKillReport, 'left' | 'replayed'> & { readonly books: Books }> {
  deaths.endWork()
  let replayed = 0
  const faults = async () => {
    replayed += await witness.replayTooOftenDelivered()
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
  return { books: await witness.books(), left: await witness.left(), replayed }
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
