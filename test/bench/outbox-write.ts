/** What a message in the outbox costs the transaction that writes it: so many connections, one transaction after another on each. */

import { Outbox, type SqlClient } from '../../lib/index.ts'
import { type Job, type Measured, Meter } from './job.ts'
import { poolOf } from './outbox-by-hand.ts'
import { placeOrder, prepareService } from './outbox-latency.ts'
import { bodyOf, messageOf } from './outbox-messages.ts'
import { started } from './outbox-pg-boss.ts'

/** Within the transaction, beside its row of business. */
type Also = (n: number, client: SqlClient) => Promise<unknown>

export function insertAlone(job: Job): Promise<Measured> {
  return written(job, async () => {})
}

/** A relay's hints included: the outbox has a pool. */
export async function insertAndAdd(job: Job): Promise<Measured> {
  await using pool = poolOf(job, 1)
  const outbox = new Outbox({ name: 'bench', schema: job.schema, pool })
  return await written(job, (n, client) => outbox.add(messageOf(n, job), client))
}

export const insertAndAddKeyed = (job: Job) => insertAndAdd({ ...job, keys: 1_000 })

export async function prepareTwoTables(job: Job): Promise<void> {
  await prepareService(job)
  await using pool = poolOf(job)
  await pool.query(
    `CREATE TABLE ${job.schema}.by_hand (position bigserial PRIMARY KEY, id uuid NOT NULL, body bytea NOT NULL)`,
  )
}

export function insertTwice(job: Job): Promise<Measured> {
  const insert = `INSERT INTO ${job.schema}.by_hand (id, body) VALUES (gen_random_uuid(), $1)`
  return written(job, (n, client) => client.query(insert, [Buffer.from(JSON.stringify(bodyOf(n, job)))]))
}

export async function prepareBoss(job: Job): Promise<void> {
  await prepareService(job)
  const boss = await started({ ...job, schema: bossSchema(job) })
  await boss.createQueue('bench')
  await boss.stop({ graceful: false })
}

export async function insertAndSend(job: Job): Promise<Measured> {
  const boss = await started({ ...job, schema: bossSchema(job) })
  return written(job, (n, client) => boss.send('bench', bodyOf(n, job), { db: transactionOf(client) }))
}

const bossSchema = ({ schema }: Job) => `${schema}_boss`

function transactionOf(client: SqlClient) {
  return { executeSql: (sql: string, values: unknown[]) => client.query(sql, values) as Promise<{ rows: unknown[] }> }
}

async function written(job: Job, also: Also): Promise<Measured> {
  await using pool = poolOf(job, job.connections)
  const meter = new Meter(job)
  let next = 0
  const write = async () => {
    const client = await pool.connect()
    while (next < job.warmup + job.messages) {
      const n = next++
      await client.query('BEGIN')
      await placeOrder(n, job, client)
      await also(n, client)
      await client.query('COMMIT')
      meter.count()
    }
    client.release()
  }
  await Promise.all(Array.from({ length: job.connections }, write))
  return await meter.done
}
