/**
 * Delays without a queue per delay: binary levels, shared by all queues of the vhost (the idea is NServiceBus', "Delayed
 * delivery" of its RabbitMQ transport; the steering is ours).
 *
 *     publish ──▶ enter ──▶ level k ──TTL 100·2^k ms──▶ level k-1 or lower ... ──▶ to-queue (direct) ──▶ work queue
 *                                                                           └───▶ to-exchange (headers) ──▶ any exchange
 *
 * Level k is a headers exchange and a quorum queue `surehop.delay.<k>`; the queue's TTL is the level's share of the delay.
 * A message says per level, in one small header, whether it waits there, passes, or has arrived. So its routing key stays
 * its own on the whole way, and a delayed publish to a topic exchange reaches other people's bindings unchanged: with the
 * delay in the routing key, as NServiceBus has it, that is impossible.
 *
 * A hop must find a queue whatever happened meanwhile: at-least-once dead-lettering repeats an unroutable message for ever, and
 * 32 of them block their level for everybody (measured). So what was to go to a queue or exchange that is gone, and what somebody
 * put into a level without our headers, ends in `surehop.undeliverable.dead`. The way in is strict, by an exchange of its own: a
 * publish that finds its level deleted is returned, and the level is declared anew. What arrives at an exchange also goes to a sink of length one, since an exchange without a
 * matching binding would block just so. An event that no queue wants when it arrives is dropped, as undelayed ones are.
 *
 * Promises: never early; four significant bits, rounded up (at most 12.5 % late), so at most four hops; every hop
 * at-least-once; no per-message expiration, hence no head-of-line blocking; the number of broker objects does not grow with
 * consumers. Does NOT promise order, nor punctuality while the broker is down, nor while 32 messages of one level wait for room in a
 * full queue that refuses them (`maxLength`, or a policy): all others of that level wait behind them, and go on when there is room (measured).
 */
import { MAX_DELAY_MS } from '../backoff.ts'
import { HEADER } from '../message.ts'
import { deadQueueOf, NO_DELIVERY_LIMIT } from './queues.ts'
import type { Binding, Exchange, Queue, Topology } from './topology.ts'

/** One unit of delay, ms: the TTL of level 0. */
export const UNIT_MS = 100
/** A delay keeps this many leading bits. */
export const SIGNIFICANT_BITS = 4
/** The highest level; 2^25 units are 38 days. */
export const TOP_LEVEL = 24

/** The names of everything here begin so, but for the dead letters. */
export const DELAY_PREFIX = 'surehop.delay.'
/** What arrived for a queue or exchange that is gone: dead letters of no queue, for `surehop dead ... surehop.undeliverable`. */
export const UNDELIVERABLE = deadQueueOf('surehop.undeliverable')
/** The way in: an exchange that returns what finds no level. */
const ENTER = `${DELAY_PREFIX}enter`
const ENTER_HEADER = `${HEADER.delayLevel}enter`
const TO_QUEUE = `${DELAY_PREFIX}to-queue`
const TO_EXCHANGE = `${DELAY_PREFIX}to-exchange`
/** Takes a copy of what arrives for an exchange, and drops it: see below. */
const SINK = `${DELAY_PREFIX}sink`
/** Where level 0 leads: below it nothing is left to wait. */
const BELOW = -1

/** Rounds up to whole units of four significant bits: what will really be waited, in units (>= 1). */
export function delayUnits(delayMs: number): number {
  const units = Math.max(1, Math.ceil(Math.min(delayMs, MAX_DELAY_MS) / UNIT_MS))
  const step = 2 ** Math.max(0, topBit(units) - SIGNIFICANT_BITS + 1)
  return Math.ceil(units / step) * step
}

/** The delay that will really be waited, ms. */
export function roundedDelayMs(delayMs: number): number {
  return delayUnits(delayMs) * UNIT_MS
}

/** The level a delay enters at: every level up to it must exist. */
export function levelFor(delayMs: number): number {
  return topBit(delayUnits(delayMs))
}

function topBit(units: number): number {
  return 31 - Math.clz32(units)
}

/** Where to publish a delayed message, and the headers that steer it. */
export interface DelayRoute {
  readonly exchange: string
  readonly routingKey: string
  readonly headers: Record<string, string>
}

/**
 * The route of a message that shall arrive at `exchange` with `routingKey` after `delayMs`.
 * The default exchange `''` means the queue named by the routing key.
 */
export function delayRoute(delayMs: number, exchange: string, routingKey: string): DelayRoute {
  const units = delayUnits(delayMs)
  const top = topBit(units)
  const lowest = 31 - Math.clz32(units & -units)
  const headers: Record<string, string> = { [ENTER_HEADER]: levelWord(top) }
  for (let level = top - 1; level >= lowest; level--)
    headers[levelHeader(level)] = units & (1 << level) ? 'wait' : 'pass'
  headers[levelHeader(lowest - 1)] = exchange === '' ? 'queue' : 'exchange'
  if (exchange !== '') headers[HEADER.deliverTo] = exchange
  return { exchange: ENTER, routingKey, headers }
}

/** The levels 0..top with everything they lead to. */
export function delayTopology(top: number): Topology {
  const levels = Array.from({ length: top + 1 }, (_, level) => level)
  return {
    exchanges: [
      { name: UNDELIVERABLE, type: 'fanout' },
      { name: TO_QUEUE, type: 'direct', alternate: UNDELIVERABLE },
      { name: TO_EXCHANGE, type: 'headers', alternate: UNDELIVERABLE },
      { name: ENTER, type: 'headers' },
      ...[BELOW, ...levels].map(
        (level): Exchange => ({ name: levelName(level), type: 'headers', alternate: UNDELIVERABLE }),
      ),
    ],
    queues: [...ENDS, ...levels.map(levelQueue)],
    bindings: [
      { source: UNDELIVERABLE, queue: UNDELIVERABLE, routingKey: '' },
      ...levels.map(entry),
      ...[BELOW, ...levels].flatMap(levelBindings),
    ],
  }
}

const ENDS: readonly Queue[] = [
  { name: UNDELIVERABLE, arguments: { 'x-queue-type': 'quorum', 'x-delivery-limit': NO_DELIVERY_LIMIT } },
  { name: SINK, arguments: { 'x-queue-type': 'quorum', 'x-max-length': 1, 'x-delivery-limit': NO_DELIVERY_LIMIT } },
]

/** Lets delayed messages arrive at a queue. */
export function arrivalAtQueue(queue: string): Binding {
  return { source: TO_QUEUE, queue, routingKey: queue }
}

/** Lets delayed messages arrive at an exchange. */
export function arrivalAtExchange(exchange: string): Binding {
  return {
    source: TO_EXCHANGE,
    exchange,
    routingKey: '',
    arguments: { 'x-match': 'all', [HEADER.deliverTo]: exchange },
  }
}

function levelQueue(level: number): Queue {
  return {
    name: levelName(level),
    arguments: {
      'x-queue-type': 'quorum',
      'x-message-ttl': UNIT_MS * 2 ** level,
      'x-dead-letter-exchange': levelName(level - 1),
      'x-dead-letter-strategy': 'at-least-once',
      'x-overflow': 'reject-publish',
      'x-delivery-limit': NO_DELIVERY_LIMIT,
    },
  }
}

function entry(level: number): Binding {
  const when = { 'x-match': 'all', [ENTER_HEADER]: levelWord(level) }
  return { source: ENTER, queue: levelName(level), routingKey: '', arguments: when }
}

function levelBindings(level: number): Binding[] {
  const when = (value: string) => ({ 'x-match': 'all', [levelHeader(level)]: value })
  const from = { source: levelName(level), routingKey: '' }
  const arrived: Binding[] = [
    { ...from, exchange: TO_QUEUE, arguments: when('queue') },
    { ...from, exchange: TO_EXCHANGE, arguments: when('exchange') },
    { ...from, queue: SINK, arguments: when('exchange') },
  ]
  if (level === BELOW) return arrived
  return [
    ...arrived,
    { ...from, queue: levelName(level), arguments: when('wait') },
    { ...from, exchange: levelName(level - 1), arguments: when('pass') },
  ]
}

function levelName(level: number): string {
  return DELAY_PREFIX + levelWord(level)
}

function levelHeader(level: number): string {
  return HEADER.delayLevel + levelWord(level)
}

function levelWord(level: number): string {
  return level === BELOW ? 'end' : String(level).padStart(2, '0')
}
