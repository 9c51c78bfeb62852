/**
 * The outbox that one writes by hand: a table, and a loop that locks rows, publishes them, waits for the confirms, deletes the
 * rows and commits. It holds its transaction open while it talks to the broker, and a message that cannot be sent stops it.
 */
import { setTimeout as pause } from 'node:timers/promises'
import { connect as connectRaw } from 'amqplib'
import { Pool } from 'pg'
import { v7 } from 'uuid'
import { type Job, type Measured, stopwatch } from './job.ts'
import { bodyOf, type Part, pieces, sizeOf } from './outbox-messages.ts'

const BATCH = 500
/** How often it is asked whether all rows are gone: seldom enough to cost nothing that shows. */
const LOOK_MS = 5

/** Publishes one message, mandatory and persistent; resolves when it is confirmed, rejects when no queue took it. */
export type ConfirmedPublish = (content: Buffer, messageId: string) => Promise<void>

/** amqplib with what Surehop sets, too. Never closed: it ends with the process. */
export async function confirming({ amqpUrl, queue }: Job): Promise<ConfirmedPublish> {
  const connection = await connectRaw(amqpUrl, { noDelay: true })
  const channel = await connection.createConfirmChannel()
  const returned = new Set<string>()
  channel.on('return', ({ properties }) => void returned.add(String(properties.messageId)))
  return (content, messageId) =>
    new Promise((resolve, reject) => {
      channel.publish('', queue, content, propertiesOf(messageId), (error: Error | null) => {
        if (error || returned.delete(messageId)) reject(error ?? new Error('returned'))
        else resolve()
      })
    })
}

function propertiesOf(messageId: string) {
  return {
    persistent: true,
    mandatory: true,
    messageId,
    type: 'order.placed',
    timestamp: Math.floor(Date.now() / 1_000),
    appId: 'bench',
    contentType: 'application/json',
    headers: { transaction_id: messageId },
  }
}

export async function prepareByHand(job: Job): Promise<void> {
  await using pool = poolOf(job)
  await pool.query(`CREATE SCHEMA ${job.schema}`)
  for (const part of ['warm', 'measured'] as const) {
    await pool.query(
      `CREATE TABLE ${job.schema}.${part} (position bigserial PRIMARY KEY, id text NOT NULL, body bytea NOT NULL)`,
    )
    for (const some of pieces(sizeOf(part, job), BATCH)) {
      const bodies = some.map((n) => Buffer.from(JSON.stringify(bodyOf(n, job))))
      const insert = `INSERT INTO ${job.schema}.${part} (id, body) SELECT * FROM unnest(CAST($1 AS text[]), CAST($2 AS bytea[]))`
      await pool.query(insert, [some.map(() => v7()), bodies])
    }
  }
}

export async function relayByHand(job: Job): Promise<Measured> {
  await using pool = poolOf(job)
  const publish = await confirming(job)
  await drain('warm', job, pool, publish)
  const stop = stopwatch(job.messages)
  await drain('measured', job, pool, publish)
  return stop()
}

async function drain(part: Part, { schema }: Job, pool: Pool, publish: ConfirmedPublish): Promise<void> {
  const client = await pool.connect()
  const table = `${schema}.${part}`
  const select = `SELECT position, id, body FROM ${table} ORDER BY position LIMIT ${BATCH} FOR UPDATE SKIP LOCKED`
  for (let taken = BATCH; taken === BATCH; ) {
    await client.query('BEGIN')
    const { rows } = await client.query<{ position: string; id: string; body: Buffer }>(select)
    await Promise.all(rows.map(({ id, body }) => publish(body, id)))
    await client.query(`DELETE FROM ${table} WHERE position = ANY ($1)`, [rows.map(({ position }) => position)])
    await client.query('COMMIT')
    taken = rows.length
  }
  client.release()
}

/** Ends with `await using`. */
export function poolOf({ databaseUrl }: Job, max = 10): Pool & AsyncDisposable {
  const pool = new Pool({ connectionString: databaseUrl, max })
  return Object.assign(pool, { [Symbol.asyncDispose]: () => pool.end() })
}

/** Looks until there is nothing left. */
export async function untilNone(left: () => Promise<boolean>): Promise<void> {
  while (await left()) await pause(LOOK_MS)
}
