// Handles the outbox path: effect, record and the message that tells of it are one transaction. Its second consumer hears what the
// effects of all processes say, without any record: each copy goes to the ledger.

import {
  connect,
  LeaseLost,
  type Middleware,
  Outbox,
  onEvent,
  PostgresIdempotencyStore,
  type Surehop,
} from '../../../lib/index.ts'
import type { LedgerWriter } from '../ledger/writer.ts'
import { monotonicNs } from '../ledger.ts'
import { randomFrom } from '../random.ts'
import { type Body, failAsFated, noteEvents, notingAttempts, paceOf, spend } from './consumer.ts'
import { type Job, MAX_STARTS, OUTBOXES, RETRY, type Work } from './job.ts'
import { NotingStore } from './noting-store.ts'
import { openPool } from './sql.ts'

/** Of the inbox itself, beside one for each handler; and of the outbox' hints. */
const MORE_CONNECTIONS = 4

export async function consumeOnce(job: Job, ledger: LedgerWriter): Promise<Work> {
  const { amqp, names, concurrency } = job
  const pool = openPool(job.postgres, concurrency + MORE_CONNECTIONS)
  const surehop = await connect({ amqp, service: names.service, reconnectCapMs: 1_000 })
  noteEvents(ledger)
  const ended = (as: 'completed' | 'dead') => (run: { readonly queue: string; readonly messageId: string }) => {
    const at = monotonicNs()
    if (run.queue === names.inbox) ledger.note({ is: 'ended', at, id: run.messageId, token: 0, since: at, as })
  }
  onEvent('message.completed', ended('completed'))
  onEvent('message.dead-lettered', ended('dead'))
  await hear(surehop, job, ledger)
  await handle(surehop, job, ledger, pool)
  return {
    async close() {
      await surehop.close()
      await pool.end()
    },
  }
}

async function handle(
  surehop: Surehop,
  job: Job,
  ledger: LedgerWriter,
  pool: ReturnType<typeof openPool>,
): Promise<void> {
  const { names, leaseMs, concurrency, handlerMs, worker, seed } = job
  const { schema, service } = names
  const random = randomFrom(seed * 1_000 + worker)
  const inbox = new PostgresIdempotencyStore({ pool, schema })
  const commits = new Commits(ledger)
  const outbox = new Outbox({ name: OUTBOXES.told, schema, service, pool })
  const ordered = job.singleActive.includes('outbox')
  const options = {
    bind: [{ exchange: names.events }],
    idempotency: new NotingStore(inbox, ledger, { completedByHandler: true }),
    leaseMs,
    concurrency,
    maxStarts: MAX_STARTS,
    retry: RETRY,
    middleware: [notingAttempts(ledger), commits.noting],
    ...(ordered && { orderBy: 'key' as const, singleActiveConsumer: true }),
  }
  const handler = inbox.transactional<Body>({ outbox }, async (message, { client, send, attempt, signal }) => {
    const { messageId, body } = message
    const { beforeMs, afterMs, heeds } = paceOf(random, handlerMs)
    await spend(beforeMs, heeds ? signal : undefined)
    await client.query('INSERT INTO effects (id, worker) VALUES ($1, $2)', [messageId, worker])
    await send(names.told, { type: 'lab.told', body: { of: messageId } })
    await spend(afterMs, heeds ? signal : undefined)
    // After the effect: it must not count.
    failAsFated(body, attempt)
    commits.asked(message)
  })
  await surehop.consume<Body>(names.inbox, options, handler)
}

/** Puts on record that the handler's transaction has completed its message, or that the database has refused that. */
class Commits {
  readonly #ledger: LedgerWriter
  readonly #askedAt = new WeakMap<object, number>()

  constructor(ledger: LedgerWriter) {
    this.#ledger = ledger
  }

  /** The handler is done: now its record is written and committed. */
  asked(message: object): void {
    this.#askedAt.set(message, monotonicNs())
  }

  readonly noting: Middleware = (next) => async (message, context) => {
    const note = (is: 'ended' | 'denied') => {
      const [at, since] = [monotonicNs(), this.#askedAt.get(message)]
      if (since === undefined) return
      const { messageId: id } = message
      this.#ledger.note({ is, at, id, token: context.fencingToken ?? 0, since, as: 'completed' })
    }
    try {
      await next(message, context)
    } catch (error) {
      // What our own signal says is no word of the database.
      if (error instanceof LeaseLost && error !== context.signal.reason) note('denied')
      throw error
    }
    note('ended')
  }
}

async function hear(surehop: Surehop, { names }: Job, ledger: LedgerWriter): Promise<void> {
  await surehop.consume<{ of: string }>(names.told, { concurrency: 50 }, ({ messageId: id, body }) => {
    ledger.write({ is: 'output', at: monotonicNs(), id, of: body.of })
  })
}
