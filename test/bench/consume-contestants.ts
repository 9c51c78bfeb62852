/** Who consumes against whom, with and without deduplication. */

import { type Contest, lazy, rates } from './contest.ts'
import type { Job, Measured } from './job.ts'

const byHand = () => import('./consume-amqplib.ts')
const surehop = () => import('./consume-surehop.ts')
const connectionManager = () => import('./peer-amqp-connection-manager.ts')
const rabbitmqClient = () => import('./peer-rabbitmq-client.ts')
const cloudamqp = () => import('./peer-cloudamqp.ts')
const rascal = () => import('./peer-rascal.ts')
const powertools = () => import('./peer-powertools.ts')

const columns = rates('message')

/** The same with twice the prefetch. */
function doubled(contestant: (job: Job) => Promise<Measured>): (job: Job) => Promise<Measured> {
  return (job) => contestant({ ...job, prefetch: 2 * job.prefetch })
}

export const consumeContests: Readonly<Record<string, Contest>> = {
  consume: {
    title: 'Consume from a quorum queue, the handler does nothing, no deduplication',
    note: [
      'All: prefetch 200 and as many handlers at a time, each message acked after its handler.',
      'Only Surehop has a deadline for handlers, retries with delays and dead letters with their story. amqplib does not reconnect.',
      'amqp-connection-manager: `ChannelWrapper.consume()`, `ack()` by hand. rabbitmq-client: `createConsumer()`. @cloudamqp/amqp-client: `queue.subscribe()`. rascal: a subscription with `withDefaultConfig()`.',
    ].join('\n'),
    columns,
    full: true,
    contestants: {
      'amqplib, handler, ack': lazy(byHand, (it) => it.rawConsume),
      'amqp-connection-manager': lazy(connectionManager, (it) => it.consume),
      'rabbitmq-client': lazy(rabbitmqClient, (it) => it.consume),
      '@cloudamqp/amqp-client': lazy(cloudamqp, (it) => it.consume),
      rascal: lazy(rascal, (it) => it.consume),
      'Surehop, no store': lazy(surehop, (it) => it.surehopConsume),
    },
  },
  deduplicate: {
    title: 'Consume from a quorum queue with deduplication in Redis',
    note: [
      'All: prefetch 200 where nothing else is said, remembered for 14 days, every message new. By hand: amqplib and ioredis; no fencing, nothing renewed, bodies not compared: who dies between its two `SET`s leaves a key that swallows the message or lets it run twice.',
      '@aws-lambda-powertools/idempotency: `makeIdempotent()` around the handler, `CachePersistenceLayer` with @redis/client (which writes the commands of one tick together), the message id as key, no local cache (its default), in progress for 15 s, on the same amqplib loop. Not renewed, no fencing; bodies not compared.',
      'Surehop: leases that are renewed, fencing tokens, a count of starts without an end, bodies compared; `concurrency: 200`, so that as many are worked on at a time as in the loops with prefetch 200, which is their only bound. Left to itself, it prefetches twice its concurrency.',
    ].join('\n'),
    columns,
    full: true,
    contestants: {
      'by hand: SET NX, handler, SET, ack': lazy(byHand, (it) => it.rawDeduplicated),
      'by hand, prefetch and handlers 400': lazy(byHand, (it) => doubled(it.rawDeduplicated)),
      'by hand, auto-pipelined': lazy(byHand, (it) => it.rawPipelined),
      '@aws-lambda-powertools/idempotency': lazy(powertools, (it) => it.deduplicated),
      'Surehop, Redis store': lazy(surehop, (it) => it.surehopDeduplicated),
      'Surehop, prefetch as it comes (400)': lazy(surehop, (it) => doubled(it.surehopDeduplicated)),
    },
  },
}
