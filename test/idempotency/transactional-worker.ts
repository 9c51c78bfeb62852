// A consumer with a transactional handler as a process of its own, for tests that kill and freeze it. The handler writes one effect and
// one message per run; the process tells when it begins and ends, and stops where the test says.

import { Pool } from 'pg'
import { connect, Outbox, onEvent, PostgresIdempotencyStore } from '../../lib/index.ts'
import { onParent, tellParent } from '../support/child.ts'

/** What the test wants of the process. */
export interface WorkerSettings {
  readonly queue: string
  readonly amqp: string
  readonly database: string
  readonly schema: string
  readonly leaseMs: number
  /** `before commit`: waits in the handler, its work done. `before ack`: kills itself once the commit is done. */
  readonly stops?: 'before commit' | 'before ack'
}

const settings = JSON.parse(process.argv[2]!) as WorkerSettings
const { queue, amqp, database, schema, leaseMs, stops } = settings

let goOn: () => void
const told = new Promise<void>((resolve) => {
  goOn = resolve
})
onParent(() => goOn())
onEvent('message.completed', ({ messageId }) => tellParent({ completed: messageId }))
for (const name of ['message.failed', 'message.put-off', 'message.stale'] as const)
  onEvent(name, () => tellParent({ notDone: name }))

const pool = new Pool({ connectionString: database }).on('error', () => {})
const inbox = new PostgresIdempotencyStore({ pool, schema })
const outbox = new Outbox({ name: 'worker', schema })
const handler = inbox.transactional({ outbox }, async ({ messageId }, { client, send, attempt }) => {
  await client.query(`INSERT INTO ${schema}.effects (id, by) VALUES ($1, $2)`, [messageId, String(process.pid)])
  await send('elsewhere', { type: 'done', body: { attempt, pid: process.pid } })
  tellParent({ worked: messageId })
  if (stops === 'before commit') await told
})

const surehop = await connect({ amqp, service: 'worker', reconnectBaseMs: 50 })
await surehop.consume(queue, { idempotency: inbox, leaseMs, concurrency: 1 }, async (message, context) => {
  await handler(message, context)
  // Committed; the consumer knows nothing of it yet.
  if (stops === 'before ack') process.kill(process.pid, 'SIGKILL')
})
tellParent('ready')
