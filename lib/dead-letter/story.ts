/**
 * Reads a letter: who put it here, why, and what it was. Trusts nothing: everything in a letter can be forged by a publisher,
 * so every field is checked for its type and bounded, and what a letter says is for display, filters and a checked replay only.
 *
 * A letter was put here by a consumer of ours (story in `surehop-` headers), by the broker itself (`x-death`: delivery limit,
 * rejected, expired, length limit; or `undeliverable`: what it was to arrive at after a delay was gone), or by somebody unknown (published straight to the queue). Where the broker's word and
 * the headers are both present, the broker's counts: it acted last, and consumers of ours strip it.
 */
import { createHash } from 'node:crypto'
import { MAX_COUNT } from '../consumer/decode.ts'
import { textOf } from '../errors.ts'
import { forwardedProperties } from '../forward.ts'
import { HEADER, HEADER_PREFIX, isBrokerHeader, type RawDelivery } from '../message.ts'
import { type Count, headerBytes } from '../producer/encode.ts'
import { DELAY_PREFIX } from '../topology/delay.ts'

/** A dead letter as lists show it: everything but its body. */
export interface Letter {
  /** What selects it: the message id, else the transaction id, else `~` and a digest of the whole letter. */
  readonly id: string
  /** Identity by which consumers recognise it, or undefined: then nothing can tell its copies from one another. */
  readonly messageId: string | undefined
  readonly transactionId: string | undefined
  /** Who put it here. */
  readonly by: 'consumer' | 'broker' | 'unknown'
  /** Why: a sentence of the consumer, or the broker's `delivery_limit`, `rejected`, `expired`, `maxlen`; else `unknown`. */
  readonly reason: string
  /** Name and text of the last error; absent where no handler failed. */
  readonly errorType: string | undefined
  readonly errorMessage: string | undefined
  /** Equal for errors of one type thrown at one place. */
  readonly fingerprint: string | undefined
  readonly errorStack: string | undefined
  /** The queue it failed in, as far as known. */
  readonly queue: string | undefined
  /** The consuming service and host that gave up on it. */
  readonly service: string | undefined
  readonly host: string | undefined
  /** The publishing service, as it claims. */
  readonly publisher: string | undefined
  readonly type: string | undefined
  readonly key: string | undefined
  readonly correlationId: string | undefined
  readonly contentType: string | undefined
  readonly contentEncoding: string | undefined
  readonly exchange: string | undefined
  readonly routingKey: string | undefined
  /** The last attempt's number, where a consumer counted. */
  readonly attempt: number | undefined
  /** How often an operator has sent it again. */
  readonly generation: number
  readonly publishedAt: Date | undefined
  readonly firstFailedAt: Date | undefined
  readonly lastFailedAt: Date | undefined
  readonly deadAt: Date | undefined
  readonly discardedAt: Date | undefined
  /** `<id>#<generation>` of the letter this one was edited from. */
  readonly editedFrom: string | undefined
  readonly bodyBytes: number
}

/** The broker's word on why it moved a message. */
export interface Death {
  readonly reason: string
  /** The queue it left; for one that had waited in the delay, the queue it was to arrive at, if any. */
  readonly queue: string | undefined
  readonly at: Date | undefined
  readonly exchange: string | undefined
  readonly routingKey: string | undefined
}

type Values = Readonly<Record<string, unknown>>

const MAX_SHOWN = 4_000
/** Headers with room for the story that a consumer adds: amqplib sends 64 KiB of both. */
const ROOMY: Count = { scalar: 9, max: 48 * 1024 }
/** Years 2000 to 2200, ms. */
const TIME_RANGE = [946_684_800_000, 7_258_118_400_000] as const

export function readLetter(raw: RawDelivery): Letter {
  const headers = raw.properties.headers ?? {}
  const death = lastDeath(headers)
  const messageId = identityOf(raw)
  return {
    id: messageId ?? `~${digestOf(raw).slice(0, 16)}`,
    messageId,
    transactionId: transactionIdOf(raw),
    ...storyOf(raw, headers, death),
    ...errorOf(headers),
    ...messageOf(raw, headers, death),
    generation: generationOf(raw),
    bodyBytes: raw.content.length,
  }
}

/** The identity a consumer will find: message id, else transaction id. */
export function identityOf(raw: RawDelivery): string | undefined {
  return shortText(raw.properties.messageId) ?? shortText(raw.properties.headers?.[HEADER.transactionId])
}

/** What it belongs to; alone where it does not say. */
export function transactionIdOf(raw: RawDelivery): string | undefined {
  return shortText(raw.properties.headers?.[HEADER.transactionId]) ?? identityOf(raw)
}

/** A forged or absurd generation counts as none. */
export function generationOf(raw: RawDelivery): number {
  return countOf(raw.properties.headers?.[HEADER.generation], 0) ?? 0
}

/** The latest entry of `x-death`, if the broker put the letter here. */
export function lastDeath(headers: Values): Death | undefined {
  const list = headers['x-death']
  const entry: unknown = Array.isArray(list) ? list[0] : undefined
  if (typeof entry !== 'object' || entry === null) return undefined
  const { reason, queue, time, exchange, 'routing-keys': keys } = entry as Values
  if (shortText(queue) === undefined) return undefined
  const routingKey = Array.isArray(keys) ? text(keys[0]) : undefined
  const delayed = shortText(queue)!.startsWith(DELAY_PREFIX)
  return {
    reason: delayed ? 'undeliverable' : (shortText(reason) ?? 'unknown'),
    queue: delayed ? (headers[HEADER.deliverTo] === undefined ? routingKey : undefined) : shortText(queue),
    at: brokerTime(time),
    exchange: typeof exchange === 'string' ? exchange : undefined,
    routingKey,
  }
}

/** Headers without ours and without the broker's bookkeeping. */
export function userHeaders(headers: Values): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(headers).filter(
      ([name]) => !name.startsWith(HEADER_PREFIX) && name !== HEADER.transactionId && !isBrokerHeader(name),
    ),
  )
}

function storyOf(raw: RawDelivery, headers: Values, death: Death | undefined) {
  const told = text(headers[HEADER.reason])
  const by = death ? ('broker' as const) : told === undefined ? ('unknown' as const) : ('consumer' as const)
  return {
    by,
    reason: death ? brokersReason(raw, death) : `${told ?? 'unknown'}${unreadable(headers)}`,
    queue: death?.queue ?? queueName(headers[HEADER.queue]),
    service: death ? undefined : text(headers[HEADER.service]),
    host: death ? undefined : text(headers[HEADER.host]),
    attempt: countOf(headers[HEADER.attempt], 1),
    firstFailedAt: ourTime(headers[HEADER.firstFailedAt]),
    lastFailedAt: ourTime(headers[HEADER.lastFailedAt]),
    deadAt: death ? death.at : ourTime(headers[HEADER.deadAt]),
    discardedAt: ourTime(headers[HEADER.discardedAt]),
    editedFrom: text(headers[HEADER.editedFrom]),
  }
}

/** A consumer of ours rejects what it cannot send again, and has nowhere to write why. */
export function brokersReason(raw: RawDelivery, { reason }: Death): string {
  const why = reason === 'rejected' ? unforwardable(raw) : undefined
  return why === undefined ? `${reason}${unreadable(raw.properties.headers ?? {})}` : `${reason} (${why})`
}

function unforwardable(raw: RawDelivery): string | undefined {
  try {
    forwardedProperties(raw, {})
  } catch (error) {
    return textOf(error)
  }
  const large = headerBytes(raw.properties.headers, ROOMY) > ROOMY.max
  return large ? `headers of more than ${ROOMY.max} bytes leave no room for its story` : undefined
}

/** What could not be read is the likely reason, whoever put it here. */
function unreadable(headers: Values): string {
  const names = text(headers[HEADER.unreadable])
  return names === undefined ? '' : ` (headers nested too deep, or named "__proto__", to be read: ${names})`
}

function errorOf(headers: Values) {
  return {
    errorType: text(headers[HEADER.errorType]),
    errorMessage: text(headers[HEADER.errorMessage]),
    fingerprint: text(headers[HEADER.errorFingerprint]),
    errorStack: text(headers[HEADER.errorStack]),
  }
}

function messageOf({ properties }: RawDelivery, headers: Values, death: Death | undefined) {
  const { timestamp } = properties
  return {
    publisher: text(properties.appId),
    type: text(properties.type),
    key: text(headers[HEADER.key]),
    correlationId: text(properties.correlationId),
    contentType: text(properties.contentType),
    contentEncoding: text(properties.contentEncoding),
    exchange: text(headers[HEADER.exchange]) ?? death?.exchange,
    routingKey: text(headers[HEADER.routingKey]) ?? death?.routingKey,
    publishedAt: typeof timestamp === 'number' ? ourTime(timestamp * 1_000) : undefined,
  }
}

/** A queue name that a message may be sent to: a letter must not be sent into dead letters, nor past its way into the delay. */
export function queueName(value: unknown): string | undefined {
  const name = shortText(value)
  const refused = name === undefined || /\p{Cc}|\.(dead|archive)$/u.test(name) || name.startsWith(DELAY_PREFIX)
  return refused ? undefined : name
}

/** Over all that is stored of it; equal for equal letters, and the same on every reading, also before it was sent. */
function digestOf({ properties, content }: RawDelivery): string {
  const { headers = {}, ...rest } = properties
  const own = Object.entries(headers).filter(
    ([name]) => name === 'x-death' || (!isBrokerHeader(name) && name !== HEADER.publishId),
  )
  const fixed = JSON.stringify([inOrder(Object.entries(rest)), inOrder(own)], (_, v) => asRead(v))
  return createHash('sha256').update(fixed).update(content).digest('hex')
}

function inOrder(entries: [string, unknown][]): [string, unknown][] {
  return entries
    .filter(([name, value]) => value !== undefined && name !== 'deliveryMode')
    .sort(([a], [b]) => (a < b ? -1 : 1))
}

/** A number that is told to be a double comes back as a number. */
function asRead(value: unknown): unknown {
  if (typeof value === 'bigint') return String(value)
  const { '!': type, value: told } = (value ?? {}) as { '!'?: unknown; value?: unknown }
  return type === 'double' ? told : value
}

function text(value: unknown): string | undefined {
  return typeof value === 'string' ? value.slice(0, MAX_SHOWN) : undefined
}

function shortText(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' && Buffer.byteLength(value) <= 255 ? value : undefined
}

function countOf(value: unknown, min: number): number | undefined {
  return Number.isInteger(value) && (value as number) >= min && (value as number) <= MAX_COUNT
    ? (value as number)
    : undefined
}

function ourTime(value: unknown): Date | undefined {
  return typeof value === 'number' && value >= TIME_RANGE[0] && value <= TIME_RANGE[1] ? new Date(value) : undefined
}

/** amqplib reads an AMQP timestamp (whole seconds) as `{'!': 'timestamp', value}`. */
function brokerTime(value: unknown): Date | undefined {
  const seconds = (value as { value?: unknown } | null | undefined)?.value
  return typeof seconds === 'number' ? ourTime(seconds * 1_000) : undefined
}
