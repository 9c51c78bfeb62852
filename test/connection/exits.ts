// A service as a process of its own: connects, publishes, closes, and must then end by itself.

import { connect } from '../../lib/surehop.ts'
import { tellParent } from '../support/child.ts'

const [url = '', how = ''] = process.argv.slice(2)

async function main(): Promise<void> {
  const connectTimeoutMs = how === 'connected' ? 15_000 : 500
  const surehop = await connect({ amqp: url, service: 'exits', drainMs: 300, connectTimeoutMs })
  const producer = surehop.producer()
  if (how === 'returned') await producer.send('nobody', { body: 1 }).catch(() => {})
  if (how === 'delayed') await producer.send('nobody', { body: 1, delayMs: 100 }).catch(() => {})
  const pending = how === 'pending' ? producer.send('nobody', { body: 1 }, { deadlineMs: 60_000 }) : undefined
  await Promise.all([surehop.close(), pending?.catch(() => {})])
}

main()
  .catch((error: Error) => tellParent(error.message))
  .finally(() => {
    tellParent('done')
    process.disconnect()
  })
