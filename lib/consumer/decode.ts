/**
 * Reads what came over the wire, from our producers or anybody's, and trusts nothing: identity, bounded headers, body.
 * A header of ours that is out of range is named and refused, so that a forged one steers nothing.
 */
import { hash } from 'node:crypto'
import { MessageInvalid, textOf } from '../errors.ts'
import {
  HEADER,
  HEADER_PREFIX,
  type Headers,
  isBrokerHeader,
  MAX_HEADER_DEPTH,
  type Message,
  newMessageId,
  type RawDelivery,
} from '../message.ts'
import { show } from '../options.ts'
import type { Run } from './handler.ts'

/** What to do with a message that has neither `message_id` nor a `transaction_id` header. */
export type IdentityPolicy = 'reject' | 'digest' | 'unguarded'

/** `auto`: JSON when the content type says so or is absent, else bytes. */
export type BodyFormat = 'auto' | 'json' | 'bytes'

/** How messages of one queue are read. */
export interface DecodeOptions {
  readonly queue: string
  readonly identity: IdentityPolicy
  readonly body: BodyFormat
  /** Compute digests, for a store that compares bodies. */
  readonly digests: boolean
}

/** Attempts and generations beyond this are forged or absurd. */
export const MAX_COUNT = 1_000
const MAX_ID_BYTES = 255
/** What stands for bytes that are no UTF-8; in no id that is taken. */
export const REPLACED = '\ufffd'
/** Years 2000 to 2200, ms: what a "first failed at" can be. */
const TIME_RANGE = [946_684_800_000, 7_258_118_400_000] as const

/**
 * @throws MessageInvalid naming the header or property
 */
export function decode(raw: RawDelivery, options: DecodeOptions): Run {
  const headers = raw.properties.headers ?? {}
  if (headers[HEADER.unreadable] !== undefined) throw unreadable(headers[HEADER.unreadable])
  const compared = options.digests && headers[HEADER.derived] === undefined
  const digest = compared || options.identity === 'digest' ? sha256(raw.content) : undefined
  const { id, guarded } = identityOf(raw, headers, digest, options)
  return {
    message: messageOf(raw, headers, id, options),
    digest,
    guarded,
    attempt: count(headers, HEADER.attempt, 1, 1),
    generation: count(headers, HEADER.generation, 0, 0),
    editedFrom: maybeText(headers[HEADER.editedFrom]),
    firstFailedAt: time(headers, HEADER.firstFailedAt),
    fencingToken: undefined,
  }
}

/** By way of a string, whose bytes are then copied into the pool: a buffer of its own costs half as much again. */
export function sha256(content: Buffer): Buffer {
  return Buffer.from(hash('sha256', content, 'binary'), 'latin1')
}

interface Identity {
  readonly id: string
  readonly guarded: boolean
}

function identityOf(
  raw: RawDelivery,
  headers: Readonly<Record<string, unknown>>,
  digest: Buffer | undefined,
  options: DecodeOptions,
): Identity {
  const id =
    idText(raw.properties.messageId, 'message_id') ??
    idText(headers[HEADER.transactionId], `headers.${HEADER.transactionId}`)
  if (id !== undefined) return { id, guarded: true }
  if (options.identity === 'unguarded') return { id: newMessageId(), guarded: false }
  if (options.identity === 'digest') return { id: `sha256:${digest!.toString('hex')}`, guarded: true }
  throw new MessageInvalid(
    'message_id',
    'the message has no identity: expected the message_id property or a transaction_id header. A publisher must set one, or the consumer must say identity: "digest" or "unguarded"',
  )
}

/** A UTF-16 unit takes at most three bytes: most ids need no counting. */
function isShort(id: string): boolean {
  return id.length * 3 <= MAX_ID_BYTES || Buffer.byteLength(id) <= MAX_ID_BYTES
}

/** Left out by connection/deep-headers.ts, or forged. */
function unreadable(names: unknown): MessageInvalid {
  return new MessageInvalid(
    'headers',
    `expected headers nested at most ${MAX_HEADER_DEPTH} levels deep and none named "__proto__", got others: ${showBounded(names)}`,
  )
}

function idText(value: unknown, path: string): string | undefined {
  if (value === undefined || value === null || value === '') return undefined
  // Bytes that are no UTF-8 arrive as this character: two ids that differ only there would be taken for one.
  if (typeof value === 'string' && value.includes(REPLACED))
    throw new MessageInvalid(path, `expected ${path} to be text in UTF-8, got bytes that are not`)
  if (typeof value === 'string' && isShort(value)) return value
  throw new MessageInvalid(
    path,
    `expected ${path} to be a string of at most ${MAX_ID_BYTES} bytes, got ${showBounded(value)}`,
  )
}

function messageOf(
  raw: RawDelivery,
  headers: Readonly<Record<string, unknown>>,
  id: string,
  options: DecodeOptions,
): Message {
  const { properties, fields } = raw
  return {
    messageId: id,
    transactionId: idText(headers[HEADER.transactionId], `headers.${HEADER.transactionId}`) ?? id,
    body: bodyOf(raw, options.body),
    rawBody: raw.content,
    type: maybeText(properties.type),
    key: keyOf(headers),
    correlationId: maybeText(properties.correlationId),
    replyTo: maybeText(properties.replyTo),
    contentType: maybeText(properties.contentType),
    appId: maybeText(properties.appId),
    publishedAt: timeOf(properties.timestamp),
    headers: userHeaders(headers),
    exchange: maybeText(headers[HEADER.exchange]) ?? fields.exchange,
    routingKey: maybeText(headers[HEADER.routingKey]) ?? fields.routingKey,
    queue: options.queue,
  }
}

/**
 * The message as its handler gets it. A body of bytes is the handler's own: one that wipes it, or decrypts it in place, must not do so to the
 * next attempt and the dead letter. Copied no earlier, since of all that waits each would be held twice.
 */
export function withOwnBytes(message: Message): Message {
  const { body, rawBody } = message
  if (body !== rawBody) return message
  const bytes = Buffer.from(rawBody)
  return { ...message, body: bytes, rawBody: bytes }
}

function bodyOf(raw: RawDelivery, format: BodyFormat): unknown {
  const contentType = maybeText(raw.properties.contentType)
  const json =
    format === 'json' || (format === 'auto' && (contentType === undefined || /[/+]json\b/i.test(contentType)))
  if (!json) return raw.content
  try {
    return JSON.parse(raw.content.toString('utf8'))
  } catch (cause) {
    const encoding = maybeText(raw.properties.contentEncoding)
    const packed =
      encoding && !/^(utf-?8|identity)$/i.test(encoding)
        ? ` (its content_encoding is ${show(encoding)}, which is not undone here)`
        : ''
    throw new MessageInvalid(
      'body',
      `the body is not JSON, content_type ${show(contentType)}${packed}: ${positionOf(cause)}`,
      { cause },
    )
  }
}

/** V8 quotes the text it cannot parse; a body must not leak into logs and headers, so only the position is kept. */
function positionOf(cause: unknown): string {
  return /at position \d+/.exec(textOf(cause))?.[0] ?? 'unexpected end or token'
}

function count(headers: Readonly<Record<string, unknown>>, name: string, min: number, absent: number): number {
  const value = headers[name]
  if (value === undefined) return absent
  if (Number.isInteger(value) && (value as number) >= min && (value as number) <= MAX_COUNT) return value as number
  throw new MessageInvalid(
    `headers.${name}`,
    `expected header ${name} to be an integer from ${min} to ${MAX_COUNT}, got ${showBounded(value)}`,
  )
}

function time(headers: Readonly<Record<string, unknown>>, name: string): number | undefined {
  const value = headers[name]
  if (value === undefined) return undefined
  if (typeof value === 'number' && value >= TIME_RANGE[0] && value <= TIME_RANGE[1]) return value
  throw new MessageInvalid(
    `headers.${name}`,
    `expected header ${name} to be a time in ms since 1970, got ${showBounded(value)}`,
  )
}

function keyOf(headers: Readonly<Record<string, unknown>>): string | undefined {
  const value = headers[HEADER.key]
  if (value === undefined) return undefined
  return idText(value, `headers.${HEADER.key}`)
}

/** Whole seconds, as AMQP has it; what no Date can hold is no time. */
function timeOf(seconds: unknown): Date | undefined {
  const time = new Date(typeof seconds === 'number' ? seconds * 1_000 : Number.NaN)
  return Number.isNaN(time.getTime()) ? undefined : time
}

function maybeText(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined
}

function showBounded(value: unknown): string {
  return typeof value === 'string' && value.length > 60 ? `a string of ${Buffer.byteLength(value)} bytes` : show(value)
}

function userHeaders(headers: Readonly<Record<string, unknown>>): Headers {
  const out: Record<string, unknown> = {}
  for (const name of Object.keys(headers)) {
    if (name.startsWith(HEADER_PREFIX) || name === HEADER.transactionId || isBrokerHeader(name)) continue
    out[name] = headers[name]
  }
  return out as Headers
}
