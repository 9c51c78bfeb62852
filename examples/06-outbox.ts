/** The outbox: a message is a row in your own transaction; it is sent if that commits, and only then. */
import { Pool } from 'pg'
import { connect, migrate, Outbox, onEvent } from '../lib/index.ts'

const queue = process.argv[2] ?? 'example-06'
const schema = queue.replaceAll('-', '_')
const pool = new Pool({ connectionString: process.env['DATABASE_URL'] ?? 'postgres://localhost/postgres' })
await migrate(pool, { schema })
await pool.query(`CREATE TABLE IF NOT EXISTS ${schema}.orders (id text)`)
await using surehop = await connect({ amqp: process.env['AMQP_URL'] ?? 'amqp://localhost', service: 'shop' })

const outbox = new Outbox({ name: 'shop', schema, pool })
const relay = await surehop.relay({ outbox, pool })

async function place(id: string, inStock: boolean): Promise<void> {
  await outbox.transaction(async (client) => {
    await client.query(`INSERT INTO ${schema}.orders VALUES ($1)`, [id])
    await outbox.add({ queue, type: 'order.placed', body: { id } }, client)
    if (!inStock) throw new Error('out of stock')
  })
}

const sent = new Promise((resolve) => onEvent('message.completed', resolve))
await surehop.consume<{ id: string }>(queue, {}, ({ body }) => console.log(`${body.id} is sent`))

await place('A-1', false).catch((error: Error) => console.log(`A-1 is rolled back, ${error.message}`))
await place('A-2', true)
await sent
const { rows } = await pool.query(`SELECT id FROM ${schema}.orders`)
console.log('orders:', rows)

await relay.close()
await pool.query(`DROP SCHEMA ${schema} CASCADE`)
await pool.end()
