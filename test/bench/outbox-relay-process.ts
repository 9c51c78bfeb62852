/** A process that does nothing but relay one outbox, until its parent is gone. */

import { connect, Outbox } from '../../lib/index.ts'
import type { Job } from './job.ts'
import { poolOf } from './outbox-by-hand.ts'

const job = JSON.parse(process.argv[2] ?? '') as Job
process.once('disconnect', () => process.exit())
const pool = poolOf(job)
const surehop = await connect({ amqp: job.amqpUrl, service: 'bench' })
await surehop.relay({ outbox: new Outbox({ name: 'bench', schema: job.schema, pool }), pool })
process.send?.('ready')
