/**
 * Sends a message that was received on to another queue, as it is but for our own headers. Pure.
 * What must not travel is left behind: the broker's bookkeeping (it can be forged and confuses dead-lettering), CC and BCC (they
 * would route extra copies), `expiration` (it would end the message in a delay or dead-letter queue), `user-id` (the broker
 * refuses a foreign one), and `reply-to` where it is the bare name of direct replies: it names nobody (the broker gives a message a
 * real address in its place, unless another protocol brought it), and the broker closes the channel that sends it.
 */
import { checkForwardable } from './forwardable.ts'
import {
  DIRECT_REPLY_TO,
  HEADER,
  isBrokerHeader,
  isCopyHeader,
  needsDouble,
  type RawDelivery,
  type WireProperties,
} from './message.ts'

/** Headers to set; `undefined` removes one. */
export type HeaderChanges = Readonly<Record<string, unknown>>

/** @throws MessageInvalid naming a header or property that amqplib cannot send as it came */
export function forwardedProperties(raw: RawDelivery, changes: HeaderChanges): WireProperties {
  const properties = keptProperties(raw, changes)
  checkForwardable(properties)
  properties.headers = withDoubles(properties.headers)
  if (properties.timestamp !== undefined) properties.timestamp = Math.min(properties.timestamp, LAST_SECOND)
  return properties
}

/** The largest number below 2^64: the last seconds that a timestamp can tell are read as 2^64, which none can. */
const LAST_SECOND = 2 ** 64 - 2_048
const WIDE = 2 ** 63

/**
 * For the way through a delay, where no message may have a priority: RabbitMQ 4.0 lets expired ones wait behind those of another
 * priority that have not expired, so that one message of priority 5 every half second makes the repeats of all queues late without
 * end (measured). `forwardedProperties` gives it back.
 */
export function withoutPriority({ priority, ...properties }: WireProperties): WireProperties {
  if (priority === undefined) return properties
  return { ...properties, headers: { ...properties.headers, [HEADER.priority]: priority } }
}

/** Which numbers are to be told to be doubles. */
type Which = (value: number) => boolean

/**
 * The headers with numbers told to be doubles: amqplib writes every whole number as an integer of 64 bits, and throws where it is none.
 * @param which by default those that, read as they came, may have been doubles or were rounded up
 */
export function withDoubles(headers: Record<string, unknown>, which: Which = isWide): Record<string, unknown> {
  return Object.values(headers).some((value) => has(value, which)) ? told(headers, which) : headers
}

/** Rarely one has: then nothing needs to be copied. */
function has(value: unknown, which: Which): boolean {
  if (typeof value === 'number') return which(value)
  return isPlainTable(value) && Object.values(value).some((item) => has(item, which))
}

/** Also of one with a field "!", which at the top is a header like any other. */
function told(table: object, which: Which): Record<string, unknown> {
  return Object.fromEntries(Object.entries(table).map(([name, item]) => [name, toldValue(item, which)]))
}

function toldValue(value: unknown, which: Which): unknown {
  if (typeof value === 'number') return which(value) ? { '!': 'double', value } : value
  if (!isPlainTable(value)) return value
  return Array.isArray(value) ? value.map((item) => toldValue(item, which)) : told(value, which)
}

/** `NaN` counts as wide. */
function isWide(value: number): boolean {
  return !(Math.abs(value) < WIDE) || needsDouble(value)
}

function isPlainTable(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !(value instanceof Uint8Array) && !Object.hasOwn(value, '!')
}

const TEXTS = ['messageId', 'type', 'appId', 'contentType', 'contentEncoding', 'correlationId'] as const

/** The same, to be looked at and not to be sent. */
export function keptProperties(raw: RawDelivery, changes: HeaderChanges): Mutable<WireProperties> {
  const { properties } = raw
  const { timestamp, replyTo } = properties
  const priority = priorityOf(properties)
  const kept: Mutable<WireProperties> = { headers: forwardedHeaders(raw, changes) }
  for (const name of TEXTS) {
    const value = properties[name]
    if (typeof value === 'string') kept[name] = value
  }
  if (typeof timestamp === 'number') kept.timestamp = timestamp
  if (priority !== undefined) kept.priority = priority
  if (typeof replyTo === 'string' && replyTo !== DIRECT_REPLY_TO) kept.replyTo = replyTo
  return kept
}

/** Its own, or the one it had before it went into a delay. */
function priorityOf({ priority, headers }: RawDelivery['properties']): number | undefined {
  if (typeof priority === 'number') return priority
  const before = headers?.[HEADER.priority]
  return Number.isInteger(before) && (before as number) >= 0 && (before as number) <= 255
    ? (before as number)
    : undefined
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] }

/** Where a message was first published is remembered, since the way through delay and dead letters changes it. */
function forwardedHeaders({ fields, properties }: RawDelivery, changes: HeaderChanges): Record<string, unknown> {
  const { headers = {} } = properties
  const forwarded: Record<string, unknown> = {}
  set(forwarded, HEADER.exchange, fields.exchange, changes)
  set(forwarded, HEADER.routingKey, fields.routingKey, changes)
  for (const name of Object.keys(headers)) if (!leftBehind(name)) set(forwarded, name, headers[name], changes)
  // What was not there before comes last.
  for (const name of Object.keys(changes)) if (changes[name] !== undefined) forwarded[name] = changes[name]
  return forwarded
}

/** To leave out what a change removes costs less than to delete it: that makes a dictionary of the table. */
function set(headers: Record<string, unknown>, name: string, value: unknown, changes: HeaderChanges): void {
  if (!Object.hasOwn(changes, name)) headers[name] = value
  else if (changes[name] !== undefined) headers[name] = changes[name]
}

function leftBehind(name: string): boolean {
  return (
    isBrokerHeader(name) ||
    isCopyHeader(name) ||
    name === HEADER.deliverTo ||
    name === HEADER.priority ||
    name === HEADER.publishId ||
    name.startsWith(HEADER.delayLevel)
  )
}
