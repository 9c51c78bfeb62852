// Sends the rows of both outboxes.

import { connect } from '../../../lib/index.ts'
import { type Job, OUTBOXES, type Work } from './job.ts'
import { openPool } from './sql.ts'

const CONNECTIONS = 6

export async function relay({ amqp, postgres, leaseMs, names }: Job): Promise<Work> {
  const pool = openPool(postgres, CONNECTIONS)
  const surehop = await connect({ amqp, service: names.service, reconnectCapMs: 1_000 })
  const { schema } = names
  // A row that cannot be sent is tried for as long as the lab lasts.
  const options = { schema, pool, leaseMs, attempts: 1_000_000, publishDeadlineMs: 5_000 }
  for (const outbox of Object.values(OUTBOXES)) await surehop.relay({ ...options, outbox })
  return {
    async close() {
      await surehop.close()
      await pool.end()
    },
  }
}
