/**
 * The queues of one transactional sender, quorum queues all three:
 *
 *     prepare ──▶ name.half ──TTL firstCheckMs──▶ name.half.check ──given up──▶ name.half.parked
 *                 (nobody consumes)               (every instance)              (terminal: an operator)
 *
 * Every hop is at-least-once by the broker itself. Delivery limits are the largest there are: undecided messages are handed back
 * now and then, and looking at parked ones counts as well.
 */
import { TopologyMismatch } from '../errors.ts'
import { text } from '../options.ts'
import { NO_DELIVERY_LIMIT } from '../topology/queues.ts'
import type { Queue, Topology } from '../topology/topology.ts'

export function halfQueueOf(name: string): string {
  return `${name}.half`
}

export function checkQueueOf(name: string): string {
  return `${name}.half.check`
}

export function parkedQueueOf(name: string): string {
  return `${name}.half.parked`
}

/** A name that can be a transactional sender's: its queues are named after it. */
export function senderName(value: unknown): string | undefined {
  const long = text(200)(value)
  if (long !== undefined) return long
  return /\.(dead|archive|half)$|\.half\.(check|parked)$|[\0\p{Surrogate}]/u.test(value as string)
    ? 'the plain name of the sender, such as "payments": ".half", ".half.check" and ".half.parked" are added to it'
    : undefined
}

export function halfTopology(name: string, firstCheckMs: number): Topology {
  return {
    exchanges: [],
    bindings: [],
    queues: [
      { name: parkedQueueOf(name), arguments: QUORUM },
      { name: checkQueueOf(name), arguments: { ...QUORUM, ...deadLettersTo(parkedQueueOf(name)) } },
      halfQueue(name, firstCheckMs),
    ],
  }
}

function halfQueue(name: string, firstCheckMs: number): Queue {
  return {
    name: halfQueueOf(name),
    arguments: { ...QUORUM, ...deadLettersTo(checkQueueOf(name)), 'x-message-ttl': firstCheckMs },
  }
}

const QUORUM = { 'x-queue-type': 'quorum', 'x-delivery-limit': NO_DELIVERY_LIMIT } as const

function deadLettersTo(queue: string): Queue['arguments'] {
  return {
    'x-dead-letter-exchange': '',
    'x-dead-letter-routing-key': queue,
    'x-dead-letter-strategy': 'at-least-once',
    'x-overflow': 'reject-publish',
  }
}

/** The time of the first check is an argument of the queue, and those are fixed: says the way out. */
export function explainMismatch(error: unknown, name: string): unknown {
  if (!(error instanceof TopologyMismatch) || error.argument !== 'x-message-ttl') return error
  const { resource, argument, wanted, actual } = error
  const queue = halfQueueOf(name)
  return new TopologyMismatch(
    { resource, argument, wanted, actual },
    `transactional("${name}"): firstCheckMs is ${wanted}, but ${resource} was declared with ${actual}, and that cannot be changed. Either ask for ${actual}; ` +
      `or stop all instances, wait ${actual} ms until the broker has moved everything on, delete the empty queue ("rabbitmqctl delete_queue ${queue} --if-empty") and start again; or use another name`,
    { cause: error },
  )
}
