// A process that sends letters again, for the tests that kill it in the middle.

import { connect, RedisIdempotencyStore } from '../../lib/index.ts'
import { tellParent } from '../support/child.ts'

const [queue = '', redis = '', prefix = '', most = 'Infinity'] = process.argv.slice(2)
const surehop = await connect({ amqp: process.env['AMQP_URL'] ?? '', service: 'replayer' })
const store = new RedisIdempotencyStore({ url: redis }, { prefix })
let told = 0
/** A parent that comes late to the kill finds it standing still, not done. */
const onOutcome = () => {
  if (told >= Number(most)) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)
  tellParent(++told)
}
tellParent('ready')
await surehop.deadLetters(queue, { idempotency: store }).replay({}, { perSecond: 0, watch: false, onOutcome })
await surehop.close()
await store.close()
tellParent('done')
process.disconnect?.()
