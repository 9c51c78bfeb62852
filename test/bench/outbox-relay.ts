/** Surehop's relay over rows that are committed already, and publishing the same messages without an outbox. */

import type { Pool } from 'pg'
import { connect, migrate, Outbox, type OutgoingMessage } from '../../lib/index.ts'
import { inTransaction } from '../../lib/sql/client.ts'
import { type Job, type Measured, stopwatch } from './job.ts'
import { poolOf, untilNone } from './outbox-by-hand.ts'
import { messageOf, type Part, pieces, sizeOf } from './outbox-messages.ts'

/** Rows of one transaction, while filling. */
const BATCH = 500

/** `producer.publishMany()`: what an outbox has to be compared with. */
export async function publishDirectly(job: Job): Promise<Measured> {
  await using surehop = await connect({ amqp: job.amqpUrl, service: 'bench' })
  const producer = surehop.producer()
  const publish = async (part: Part) => {
    const results = await producer.publishMany('', messages(part, job))
    if (results.some(({ outcome }) => outcome !== 'confirmed')) throw new Error('a message was not confirmed')
  }
  await publish('warm')
  const stop = stopwatch(job.messages)
  await publish('measured')
  return stop()
}

function* messages(part: Part, job: Job): Generator<OutgoingMessage> {
  for (let n = 0; n < sizeOf(part, job); n++) {
    const { queue, exchange: _, ...message } = messageOf(n, job)
    yield { ...message, routingKey: job.queue }
  }
}

export async function prepareOutbox(job: Job): Promise<void> {
  await using pool = poolOf(job)
  await migrate(pool, { schema: job.schema })
  for (const part of ['warm', 'measured'] as const) {
    // Without a pool: no hints.
    const outbox = outboxOf(part, job)
    for (const some of pieces(sizeOf(part, job), BATCH))
      await inTransaction(pool, (client) =>
        outbox.add(
          some.map((n) => messageOf(n, job)),
          client,
        ),
      )
  }
}

/** From the relay's first look at the table until no row is left. */
export async function surehopRelay(job: Job): Promise<Measured> {
  await using pool = poolOf(job)
  await using surehop = await connect({ amqp: job.amqpUrl, service: 'bench' })
  const drain = async (part: Part) => {
    const last = await lastPosition(part, job, pool)
    const relay = await surehop.relay({ outbox: outboxOf(part, job, pool), pool })
    const stop = stopwatch(sizeOf(part, job))
    await untilDrained(part, last, job, pool)
    const measured = stop()
    await relay.close()
    return measured
  }
  await drain('warm')
  return await drain('measured')
}

/** The last row is cheap to look for. That all others are gone, too, is asked when it is. */
async function untilDrained(part: Part, last: string, { schema }: Job, pool: Pool): Promise<void> {
  const unsent = `SELECT 1 FROM ${schema}.outbox WHERE state <> 'sent' AND`
  await untilNone(() => isThere(pool, `${unsent} position = $1`, last))
  await untilNone(() => isThere(pool, `${unsent} name = $1 LIMIT 1`, part))
}

async function lastPosition(part: Part, { schema }: Job, pool: Pool): Promise<string> {
  const { rows } = await pool.query(`SELECT max(position) AS last FROM ${schema}.outbox WHERE name = $1`, [part])
  return rows[0].last
}

async function isThere(pool: Pool, sql: string, parameter: string): Promise<boolean> {
  return (await pool.query(sql, [parameter])).rows.length > 0
}

function outboxOf(part: Part, { schema }: Job, pool?: Pool): Outbox {
  return new Outbox({ name: part, schema, ...(pool ? { pool } : {}) })
}
