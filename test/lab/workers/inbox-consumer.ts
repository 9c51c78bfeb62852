// Handles the outbox path: effect, record and the message that tells of it are one transaction. Its second consumer hears what the
// effects of all processes say, without any record: each copy goes to the ledger.

import { connect, Outbox, onEvent, PostgresIdempotencyStore, type Surehop } from '../../../lib/index.ts'
import type { LedgerWriter } from '../ledger/writer.ts'
import { monotonicNs } from '../ledger.ts'
import { randomFrom } from '../random.ts'
import { type Body, failAsFated, noteEvents, takeTime } from './consumer.ts'
import { type Job, MAX_STARTS, OUTBOXES, RETRY, type Work } from './job.ts'
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
  await handle(surehop, job, pool)
  return {
    async close() {
      await surehop.close()
      await pool.end()
    },
  }
}

async function handle(surehop: Surehop, job: Job, pool: ReturnType<typeof openPool>): Promise<void> {
  const { names, leaseMs, concurrency, handlerMs, worker, seed } = job
  const { schema, service } = names
  const random = randomFrom(seed * 1_000 + worker)
  const inbox = new PostgresIdempotencyStore({ pool, schema })
  const outbox = new Outbox({ name: OUTBOXES.told, schema, service, pool })
  const ordered = job.singleActive.includes('outbox')
  const options = {
    bind: [{ exchange: names.events }],
    idempotency: inbox,
    leaseMs,
    concurrency,
    maxStarts: MAX_STARTS,
    retry: RETRY,
    ...(ordered && { orderBy: 'key' as const, singleActiveConsumer: true }),
  }
  const handler = inbox.transactional<Body>(
    { outbox },
    async ({ messageId, body }, { client, send, attempt, signal }) => {
      await takeTime(random, handlerMs / 2, signal)
      await client.query('INSERT INTO effects (id, worker) VALUES ($1, $2)', [messageId, worker])
      await send(names.told, { type: 'lab.told', body: { of: messageId } })
      await takeTime(random, handlerMs / 2, signal)
      // After the effect: it must not count.
      failAsFated(body, attempt)
    },
  )
  await surehop.consume<Body>(names.inbox, options, handler)
}

async function hear(surehop: Surehop, { names }: Job, ledger: LedgerWriter): Promise<void> {
  await surehop.consume<{ of: string }>(names.told, { concurrency: 50 }, ({ messageId: id, body }) => {
    ledger.write({ is: 'output', at: monotonicNs(), id, of: body.of })
  })
}
