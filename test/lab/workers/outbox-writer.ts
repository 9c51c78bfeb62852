// Writes a business row and its message in one transaction, again and again; some are rolled back on purpose.
//
// A COMMIT without an answer: the same transaction is tried again, and waits at the row's primary key for the one before to end. If
// the row is there, that one has committed.

import { setTimeout as pause } from 'node:timers/promises'
import type { Pool, PoolClient } from 'pg'
import { Outbox } from '../../../lib/index.ts'
import type { LedgerWriter } from '../ledger/writer.ts'
import { monotonicNs, type Outcome } from '../ledger.ts'
import { type Job, OUTBOXES, type Work } from './job.ts'
import { openPool } from './sql.ts'
import { type Offer, Supply } from './supply.ts'

const KEYS = 100
const CONNECTIONS = 8
const AGAIN_AFTER_MS = 200
/** Most messages of one transaction, and of how many transactions one is rolled back. */
const MOST = 3
const ROLLED_BACK = 10

export async function write(job: Job, ledger: LedgerWriter, accepted: () => void): Promise<Work> {
  const pool = openPool(job.postgres, CONNECTIONS)
  const { schema, service } = job.names
  const outbox = new Outbox({ name: OUTBOXES.orders, schema, service, pool })
  const supply = new Supply(job, KEYS, accepted)
  const writer = new Writer(job, ledger, pool, outbox, supply)
  const running = supply.run((offers) => writer.take(offers))
  return {
    flow: (now) => supply.flow(now),
    enough: () => supply.enough(),
    async close() {
      supply.enough()
      await running
      await pool.end()
    },
  }
}

class Writer {
  readonly #job: Job
  readonly #ledger: LedgerWriter
  readonly #pool: Pool
  readonly #outbox: Outbox
  readonly #supply: Supply

  constructor(job: Job, ledger: LedgerWriter, pool: Pool, outbox: Outbox, supply: Supply) {
    this.#job = job
    this.#ledger = ledger
    this.#pool = pool
    this.#outbox = outbox
    this.#supply = supply
  }

  take(offers: Offer[]): void {
    const { random } = this.#supply
    while (offers.length > 0) {
      const together = offers.splice(0, random.between(1, MOST))
      const end = random.between(1, ROLLED_BACK) === 1 ? 'ROLLBACK' : 'COMMIT'
      for (const offer of together) this.#ledger.note({ is: 'offered', at: monotonicNs(), path: 'outbox', ...offer })
      this.#ledger.flush()
      void this.#untilAnswered(together, end)
    }
  }

  async #untilAnswered(offers: readonly Offer[], end: 'COMMIT' | 'ROLLBACK'): Promise<void> {
    for (;;) {
      const outcome = await this.#transaction(offers, end)
      for (const { id } of offers) this.#ledger.note({ is: 'told', at: monotonicNs(), id, outcome })
      // One that was to be rolled back is so, whatever happened: nobody ever said COMMIT.
      const how = end === 'ROLLBACK' ? 'withdrawn' : outcome === 'confirmed' ? 'accepted' : undefined
      if (how) return offers.forEach((offer) => void this.#supply.done(offer, how))
      await pause(AGAIN_AFTER_MS)
    }
  }

  async #transaction(offers: readonly Offer[], end: 'COMMIT' | 'ROLLBACK'): Promise<Outcome> {
    const client = await this.#pool.connect().catch(() => undefined)
    if (!client) return 'refused'
    let outcome: Outcome = 'refused'
    let sound = false
    try {
      await client.query('BEGIN')
      if (!(await this.#fill(offers, client))) return 'confirmed'
      if (end === 'COMMIT') outcome = 'unknown'
      await client.query(end)
      if (end === 'COMMIT') outcome = 'confirmed'
      sound = true
      this.#outbox.wake()
    } catch {
      // What is known is in the outcome.
    } finally {
      // Whatever went wrong, its connection ends, and its transaction with it.
      client.release(!sound)
    }
    return outcome
  }

  /** @returns false if the rows are there already */
  async #fill(offers: readonly Offer[], client: PoolClient): Promise<boolean> {
    const { rowCount } = await client.query(
      'INSERT INTO orders (id, key, n) SELECT * FROM unnest($1::text[], $2::text[], $3::int[]) ON CONFLICT DO NOTHING',
      [offers.map(({ id }) => id), offers.map(({ key }) => key), offers.map(({ n }) => n)],
    )
    if (rowCount === 0) {
      await client.query('ROLLBACK')
      return false
    }
    const { events } = this.#job.names
    const messages = offers.map(({ id, key, n, fate }) => ({
      exchange: events,
      type: 'lab.outbox',
      messageId: id,
      key,
      body: { key, n, fate },
    }))
    await this.#outbox.add(messages, client)
    return true
  }
}
