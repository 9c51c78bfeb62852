/**
 * The three queues of one consumer: work `q`, dead letters `q.dead`, archive `q.archive`. Quorum queues only: on RabbitMQ 4
 * a classic queue confirms without fsync. Arguments are the same on every broker version, so that an upgrade never breaks a declare.
 */
import { text } from '../options.ts'
import type { Queue, Topology } from './topology.ts'

export const DEAD_SUFFIX = '.dead'
export const ARCHIVE_SUFFIX = '.archive'

/** Broker-side deliveries of one message before the broker itself dead-letters it. */
export const DELIVERY_LIMIT = 20
/**
 * Looking at a queue consumes its delivery limit; 2^31-1 makes looking harmless (an absent limit means 20 on RabbitMQ 4). Of a policy and
 * this the lower wins: where a policy with a `delivery-limit` reaches dead letters, looking more often drops them (measured).
 */
export const NO_DELIVERY_LIMIT = 2_147_483_647
/** How long discarded letters stay restorable, ms. 14 days. */
export const ARCHIVE_TTL_MS = 14 * 24 * 3_600_000

/** What can be chosen of a work queue; fixed when it is first declared. */
export interface WorkQueueOptions {
  /** Most messages the queue holds before publishes are nacked. Default: no limit. */
  readonly maxLength?: number | undefined
  /** Most bytes the queue holds before publishes are nacked. Default: no limit. */
  readonly maxLengthBytes?: number | undefined
  /** Only one consumer at a time gets messages, the others stand by: order over several instances. Default false. */
  readonly singleActiveConsumer?: boolean | undefined
}

export function deadQueueOf(queue: string): string {
  return queue + DEAD_SUFFIX
}

export function archiveQueueOf(queue: string): string {
  return queue + ARCHIVE_SUFFIX
}

/** A name that can be a work queue's: not that of its dead letters or archive. */
export function workQueueName(value: unknown): string | undefined {
  const long = text(200)(value)
  if (long !== undefined) return long
  return /\.(dead|archive)$/.test(value as string)
    ? `the name of a work queue: "${DEAD_SUFFIX}" and "${ARCHIVE_SUFFIX}" are added to it`
    : undefined
}

/** Work queue, dead letters and archive of one consumer. */
export function workQueueTopology(name: string, options: WorkQueueOptions = {}): Topology {
  return { exchanges: [], bindings: [], queues: [workQueue(name, options), deadQueue(name), archiveQueue(name)] }
}

function workQueue(name: string, options: WorkQueueOptions): Queue {
  return {
    name,
    arguments: {
      'x-queue-type': 'quorum',
      'x-dead-letter-exchange': '',
      'x-dead-letter-routing-key': deadQueueOf(name),
      'x-dead-letter-strategy': 'at-least-once',
      'x-overflow': 'reject-publish',
      'x-delivery-limit': DELIVERY_LIMIT,
      ...(options.maxLength === undefined ? {} : { 'x-max-length': options.maxLength }),
      ...(options.maxLengthBytes === undefined ? {} : { 'x-max-length-bytes': options.maxLengthBytes }),
      ...(options.singleActiveConsumer ? { 'x-single-active-consumer': true } : {}),
    },
  }
}

/** Terminal: no TTL, no dead-lettering. */
export function deadQueue(queue: string): Queue {
  return { name: deadQueueOf(queue), arguments: { 'x-queue-type': 'quorum', 'x-delivery-limit': NO_DELIVERY_LIMIT } }
}

export function archiveQueue(queue: string): Queue {
  return {
    name: archiveQueueOf(queue),
    arguments: { 'x-queue-type': 'quorum', 'x-delivery-limit': NO_DELIVERY_LIMIT, 'x-message-ttl': ARCHIVE_TTL_MS },
  }
}
