// Sends half messages to the queue of the direct path: prepares them, does their work, and commits; or rolls back; or says nothing, as
// a process that dies, and leaves it to be asked. The work is a row; so is that it will never be done: whichever is first stands.
//
// Every instance also answers checks; one whose only task that is offers nothing. All take their time between the steps, so that
// deaths find them everywhere.

import { setTimeout as pause } from 'node:timers/promises'
import type { Pool } from 'pg'
import {
  AlreadyCommitted,
  AlreadyRolledBack,
  connect,
  type Prepared,
  RedisDecisionStore,
  type Surehop,
  type Transactional,
} from '../../../lib/index.ts'
import type { Checked, Said } from '../ledger/cast.ts'
import type { LedgerWriter } from '../ledger/writer.ts'
import { monotonicNs } from '../ledger.ts'
import { type Random, randomFrom } from '../random.ts'
import { clientOf, takeTime } from './consumer.ts'
import type { Job, Work } from './job.ts'
import { openPool } from './sql.ts'
import { type Offer, Supply } from './supply.ts'

const KEYS = 60
const CONNECTIONS = 8
/** Longest time between two steps, and of a check. */
const STEP_MS = 150
/** Longer than the work takes as a rule, and sometimes shorter: then the check is first, and the work is not done. */
const FIRST_CHECK_MS = 1_000
const CHECK_CAP_MS = 2_000
/** Of so many checks, one does not know. */
const UNKNOWING = 6
const DECIDED_WITHIN_MS = 20_000

export async function offerHalves(job: Job, ledger: LedgerWriter, accepted: () => void): Promise<Work> {
  const desk = await Desk.open(job, ledger)
  const supply = new Supply(job, KEYS, accepted)
  const sender = new Sender(job, desk, supply, ledger)
  const running = supply.run((offers) => sender.take(offers))
  return {
    flow: (now) => supply.flow(now),
    enough: () => supply.enough(),
    async close() {
      supply.enough()
      await running
      await desk.close()
    },
  }
}

export async function check(job: Job, ledger: LedgerWriter): Promise<Work> {
  const desk = await Desk.open(job, ledger)
  return { close: () => desk.close() }
}

/** The works, and who is asked about them. */
class Desk {
  readonly pool: Pool
  readonly random: Random
  readonly #ledger: LedgerWriter
  readonly #decisions: RedisDecisionStore
  #surehop: Surehop | undefined
  #halves: Transactional | undefined

  static async open(job: Job, ledger: LedgerWriter): Promise<Desk> {
    const desk = new Desk(job, ledger)
    desk.#surehop = await connect({ amqp: job.amqp, service: job.names.service, reconnectCapMs: 1_000 })
    desk.#halves = await desk.#surehop.transactional(job.names.halves, {
      decisions: desk.#decisions,
      firstCheckMs: FIRST_CHECK_MS,
      checkCapMs: CHECK_CAP_MS,
      check: (id) => desk.#check(id),
    })
    return desk
  }

  constructor({ postgres, redis, names, seed, worker }: Job, ledger: LedgerWriter) {
    this.pool = openPool(postgres, CONNECTIONS)
    this.random = randomFrom(seed * 1_000 + worker)
    this.#ledger = ledger
    this.#decisions = new RedisDecisionStore(clientOf(redis), { prefix: names.prefix })
  }

  get halves(): Transactional {
    return this.#halves!
  }

  /** @returns whether the work is done now; false: it never will be */
  async work(id: string): Promise<boolean> {
    const sql = 'INSERT INTO works (id, done) VALUES ($1, true) ON CONFLICT DO NOTHING'
    return (await this.pool.query(sql, [id])).rowCount === 1
  }

  /** What is held here is brought to its end before it is handed back: it comes again, but nobody may be there any more. */
  async close(): Promise<void> {
    const until = performance.now() + DECIDED_WITHIN_MS
    while (this.halves.undecided > 0 && performance.now() < until) await pause(STEP_MS)
    await this.#surehop!.close()
    await this.#decisions.close()
    await this.pool.end()
  }

  async #check(id: string): Promise<Checked> {
    this.#ledger.write({ is: 'checking', at: monotonicNs(), id })
    await takeTime(this.random, STEP_MS)
    const answer =
      this.random.between(1, UNKNOWING) === 1 ? 'unknown' : await this.#endOf(id).catch(() => 'unknown' as const)
    await takeTime(this.random, STEP_MS)
    this.#ledger.write({ is: 'checked', at: monotonicNs(), id, answer })
    return answer
  }

  async #endOf(id: string): Promise<'commit' | 'rollback'> {
    await this.pool.query('INSERT INTO works (id, done) VALUES ($1, false) ON CONFLICT DO NOTHING', [id])
    const { rows } = await this.pool.query('SELECT done FROM works WHERE id = $1', [id])
    return rows[0].done ? 'commit' : 'rollback'
  }
}

/** What is to become of a transaction, if nothing comes between: of nine, six are committed and one each is left to be asked, or rolled back. */
const PLANS = [
  ...Array<Plan>(6).fill({ works: true, says: 'commit' }),
  { works: true, says: 'nothing' },
  { works: false, says: 'nothing' },
  { works: false, says: 'rollback' },
] as const

interface Plan {
  readonly works: boolean
  readonly says: Said
}

class Sender {
  readonly #queue: string
  readonly #desk: Desk
  readonly #supply: Supply
  readonly #ledger: LedgerWriter

  constructor(job: Job, desk: Desk, supply: Supply, ledger: LedgerWriter) {
    this.#queue = job.names.direct
    this.#desk = desk
    this.#supply = supply
    this.#ledger = ledger
  }

  take(offers: readonly Offer[]): void {
    for (const offer of offers) this.#ledger.note({ is: 'offered', at: monotonicNs(), path: 'half', ...offer })
    this.#ledger.flush()
    for (const offer of offers) void this.#carryOut(offer)
  }

  async #carryOut(offer: Offer): Promise<void> {
    const isDone = await this.#transaction(offer)
    this.#supply.done(offer, isDone ? 'accepted' : 'withdrawn')
  }

  /** @returns whether its work is surely done */
  async #transaction(offer: Offer): Promise<boolean> {
    const { random } = this.#desk
    const plan = random.pick<Plan>(PLANS)
    const prepared = await this.#prepare(offer)
    // It may be stored; nobody works for it, and a check will hear that.
    if (!prepared) return false
    await takeTime(random, STEP_MS)
    const done = plan.works && (await this.#work(offer.id))
    await takeTime(random, STEP_MS)
    // A work that may or may not be done is not ours to decide.
    const says = done === plan.works ? plan.says : done === false ? 'rollback' : 'nothing'
    await this.#say(says, offer.id, prepared)
    return done === true
  }

  async #prepare({ id, key, n, fate }: Offer): Promise<Prepared | undefined> {
    const body = { key, n, fate }
    const messages = [{ queue: this.#queue, type: 'lab.half', messageId: id, key, body }]
    const prepared = await this.#desk.halves.prepare(messages, { transactionId: id }).catch(() => undefined)
    if (prepared) this.#ledger.write({ is: 'prepared', at: monotonicNs(), id })
    return prepared
  }

  /** @returns undefined when nobody knows */
  async #work(id: string): Promise<boolean | undefined> {
    const done = await this.#desk.work(id).catch(() => undefined)
    if (done) this.#ledger.write({ is: 'told', at: monotonicNs(), id, outcome: 'confirmed' })
    return done
  }

  async #say(what: Said, id: string, prepared: Prepared): Promise<void> {
    this.#ledger.write({ is: 'said', at: monotonicNs(), id, what })
    try {
      if (what === 'commit') await prepared.commit()
      if (what === 'rollback') await prepared.rollback()
    } catch (error) {
      // Of all else, check-back takes care.
      if (error instanceof AlreadyRolledBack || error instanceof AlreadyCommitted)
        this.#ledger.write({ is: 'contradicted', at: monotonicNs(), id })
    }
  }
}
