/** The inbox in Postgres: what a handler does in SQL, what it publishes, and the record of its message are one transaction. */
import { Pool } from 'pg'
import { connect, fixed, migrate, Outbox, onEvent, PostgresIdempotencyStore } from '../lib/index.ts'

const queue = process.argv[2] ?? 'example-07'
const schema = queue.replaceAll('-', '_')
const pool = new Pool({ connectionString: process.env['DATABASE_URL'] ?? 'postgres://localhost/postgres' })
await migrate(pool, { schema })
await pool.query(`CREATE TABLE IF NOT EXISTS ${schema}.stock AS SELECT 10 AS pieces`)
await using surehop = await connect({ amqp: process.env['AMQP_URL'] ?? 'amqp://localhost', service: 'inventory' })

const outbox = new Outbox({ name: 'inventory', schema, pool })
const inbox = new PostgresIdempotencyStore({ pool, schema })
const relay = await surehop.relay({ outbox, pool })

let left = 2
const done = new Promise<void>((resolve) => onEvent('message.completed', () => --left || resolve()))
const consumer = await surehop.consume(
  queue,
  { idempotency: inbox, retry: { attempts: 3, backoff: fixed({ delayMs: 100 }) } },
  inbox.transactional({ outbox }, async (message, { client, attempt, send }) => {
    if (message.type === 'stock.reserved') return console.log('stock.reserved is sent')
    await client.query(`UPDATE ${schema}.stock SET pieces = pieces - 1`)
    await send(queue, { type: 'stock.reserved', body: {} })
    console.log(`attempt ${attempt}`)
    if (attempt < 3) throw new Error('too bad: whatever this attempt did is undone')
  }),
)

await surehop.producer().send(queue, { type: 'order.placed', body: {} })
await done
console.log('stock:', (await pool.query(`SELECT pieces FROM ${schema}.stock`)).rows[0]?.pieces)

for (const open of [consumer, relay]) await open.close()
await pool.query(`DROP SCHEMA ${schema} CASCADE`)
await pool.end()
