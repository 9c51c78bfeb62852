/**
 * pg-transactional-outbox 0.5 as a relay, with its polling listener: a transaction per message locks the row, publishes, waits
 * for the confirm, marks the row as processed and commits. Without keys messages are marked `parallel`; a key is its `segment`.
 */
import { setTimeout as pause } from 'node:timers/promises'
import type { PoolConfig } from 'pg'
import * as trx from 'pg-transactional-outbox'
import { v7 } from 'uuid'
import { type Job, type Measured, stopwatch } from './job.ts'
import { confirming, poolOf, untilNone } from './outbox-by-hand.ts'
import { bodyOf, keyOf, type Part, sizeOf } from './outbox-messages.ts'

/** Messages under way at a time, and connections for them. 10 were slower; 25, 50 and 100 differed by less than the machine's noise. */
export const BATCH = 50

/** Nothing is expected to fail. What it says may hold whole messages. */
function complain(_: unknown, text?: string): void {
  throw new Error(text)
}

const logger: trx.TransactionalLogger = { ...trx.getDisabledLogger(), error: complain, warn: complain }

export async function prepareTransactionalOutbox(job: Job): Promise<void> {
  await using pool = poolOf(job)
  for (const part of ['warm', 'measured'] as const) {
    const setup = { outboxOrInbox: 'outbox', database: '', schema: job.schema, table: part, listenerRole: '' } as const
    const polling = { ...setup, nextMessagesName: `next_${part}` }
    await pool.query(trx.DatabaseSetup.dropAndCreateTable(setup))
    await pool.query(trx.DatabaseSetup.createPollingFunction(polling))
    // The names of its indexes are fixed.
    const indexes = trx.DatabaseSetup.setupPollingIndexes(polling).replaceAll(/outbox_\w+_idx/g, `${part}_$&`)
    await pool.query(`SET search_path = ${job.schema}; ${indexes}; RESET search_path`)
    await fill(part, job, pool)
  }
}

async function fill(part: Part, job: Job, pool: ReturnType<typeof poolOf>): Promise<void> {
  const client = await pool.connect()
  const store = trx.initializeMessageStorage({ outboxOrInbox: 'outbox', settings: settingsOf(part, job) }, logger)
  await client.query('BEGIN')
  for (let n = 0; n < sizeOf(part, job); n++) await store(storedOf(n, job), client)
  await client.query('COMMIT')
  client.release()
}

export function storedOf(n: number, job: Job): trx.TransactionalMessage {
  const key = keyOf(n, job)
  return {
    id: v7(),
    aggregateType: 'order',
    aggregateId: key ?? String(n),
    messageType: 'order.placed',
    payload: bodyOf(n, job),
    ...(key === undefined ? { concurrency: 'parallel' } : { segment: key }),
  }
}

export async function transactionalOutboxRelay(job: Job): Promise<Measured> {
  const publish = await confirming(job)
  await using pool = poolOf(job, 1)
  const drain = async (part: Part) => {
    let left = sizeOf(part, job)
    const connection: PoolConfig = { connectionString: job.databaseUrl, max: BATCH }
    const config = { outboxOrInbox: 'outbox', dbListenerConfig: connection, settings: settingsOf(part, job) } as const
    let stop = () => Promise.resolve()
    await new Promise<void>((resolve) => {
      const handle = async ({ id, payload }: trx.StoredTransactionalMessage) => {
        await publish(Buffer.from(JSON.stringify(payload)), id)
        if (--left === 0) resolve()
      }
      ;[stop] = trx.initializePollingMessageListener(config, { handle }, logger, { batchSizeStrategy: batches })
    })
    // The last transactions are under way.
    const unsent = `SELECT 1 FROM ${job.schema}.${part} WHERE processed_at IS NULL LIMIT 1`
    await untilNone(async () => (await pool.query(unsent)).rows.length > 0)
    return stop
  }
  const endWarm = await drain('warm')
  await endWarm()
  const stop = stopwatch(job.messages)
  await drain('measured')
  return stop()
}

/**
 * Fetches when all of a batch are done. The default fetches for each single message that is done; but each fetch sorts all that is
 * unprocessed, and locks rows under way, too, for a moment: a handler that meets such a lock gives its message up until the lease
 * has run out.
 */
async function batches(underWay: number): Promise<number> {
  if (underWay === 0) return BATCH
  await pause(1)
  return 0
}

function settingsOf(part: Part, { schema }: Job): trx.PollingListenerSettings {
  return {
    dbSchema: schema,
    dbTable: part,
    nextMessagesFunctionSchema: schema,
    nextMessagesFunctionName: `next_${part}`,
    nextMessagesBatchSize: BATCH,
    nextMessagesPollingIntervalInMs: 10,
    nextMessagesLockInMs: 5_000,
    enableMaxAttemptsProtection: false,
    enablePoisonousMessageProtection: false,
    messageCleanupIntervalInMs: 0,
  }
}
