/** Who publishes against whom. */

import { type Contest, lazy, rates } from './contest.ts'
import type { Job, Measured } from './job.ts'

const byHand = () => import('./publish-amqplib.ts')
const surehop = () => import('./publish-surehop.ts')
const connectionManager = () => import('./peer-amqp-connection-manager.ts')
const rabbitmqClient = () => import('./peer-rabbitmq-client.ts')
const cloudamqp = () => import('./peer-cloudamqp.ts')
const rascal = () => import('./peer-rascal.ts')

export const publishContests: Readonly<Record<string, Contest>> = {
  publish: {
    title: 'Publish, confirmed, to a quorum queue',
    note: [
      'All: persistent, a message id, 500 in flight where nothing else is said; `noDelay` where it can be set and helps. Only Surehop, the careful loop and rascal publish mandatory; with the others a message that no queue takes is confirmed and gone.',
      'amqplib: a confirm callback per message, no promises, no reconnecting. Its ids, and those of the peers, are `randomUUID()`, the cheapest there is (UUIDv7 of the package uuid would cost 2.5 µs more); Surehop makes UUIDv7. Careful: a return listener, timestamp, app id, content type and a transaction id in a header, as Surehop sets them.',
      'amqp-connection-manager: `ChannelWrapper.publish()`; queues in memory without a bound while disconnected.',
      'rabbitmq-client: `createPublisher({ confirm: true, maxAttempts: 2 })`, without `noDelay` (its default, and faster).',
      '@cloudamqp/amqp-client: `AMQPSession`, `queue.publish()`; it has no setting for `noDelay`; rejects while disconnected.',
      'rascal: `withDefaultConfig()`, which publishes mandatory and with a deadline of 10 s; a channel per message in flight, from a pool of 200 instead of the default of 5 (of 5, 20, 50, 200 and 500 the fastest), so 200 are in flight. As it comes: the same without the larger pool and `noDelay`; 5 are in flight.',
      'Surehop: mandatory, a returned message is an error; deadline, retries with the same id and a bounded window are its defaults. As it comes: that window is 1,000 messages.',
    ].join('\n'),
    columns: rates('message'),
    contestants: {
      'amqplib, confirm callback': lazy(byHand, (it) => it.rawPublish),
      'amqplib, confirm callback, 1,000 in flight': lazy(byHand, (it) => doubled(it.rawPublish)),
      'amqplib, careful: mandatory, properties': lazy(byHand, (it) => it.rawCarefulPublish),
      'amqp-connection-manager': lazy(connectionManager, (it) => it.publish),
      'rabbitmq-client': lazy(rabbitmqClient, (it) => it.publish),
      '@cloudamqp/amqp-client': lazy(cloudamqp, (it) => it.publish),
      rascal: lazy(rascal, (it) => it.publish),
      'rascal as it comes': lazy(rascal, (it) => it.publishAsItComes),
      'Surehop send()': lazy(surehop, (it) => it.surehopSend),
      'Surehop send(), window as it comes (1,000)': lazy(surehop, (it) => doubled(it.surehopSend)),
      'Surehop publishMany()': lazy(surehop, (it) => it.surehopPublishMany),
    },
  },
}

/** With twice the messages in flight. */
function doubled(run: (job: Job) => Promise<Measured>): (job: Job) => Promise<Measured> {
  return (job) => run({ ...job, inFlight: 2 * job.inFlight })
}
