/**
 * Turns what a user publishes into bytes and AMQP properties, and refuses on our side what the broker would refuse by
 * closing the channel: too large bodies and headers, too long ids. Pure.
 */
import { MAX_DELAY_MS } from '../backoff.ts'
import { MessageInvalid } from '../errors.ts'
import { withDoubles } from '../forward.ts'
import {
  DIRECT_REPLY_TO,
  HEADER,
  HEADER_PREFIX,
  isBrokerHeader,
  isCopyHeader,
  isDerivedId,
  MAX_HEADER_DEPTH,
  needsDouble,
  newMessageId,
  type OutgoingMessage,
  type WireMessage,
  type WireProperties,
} from '../message.ts'
import { hintAt, show } from '../options.ts'

/** Header tables beyond this many bytes are refused (amqplib gives up at 64 KiB, properties included). */
export const MAX_HEADER_BYTES = 60 * 1024
const MAX_SHORT_STRING = 255

/** The fields of a message. */
export const MESSAGE_FIELDS: ReadonlySet<string> = new Set([
  'body',
  'type',
  'routingKey',
  'key',
  'messageId',
  'transactionId',
  'correlationId',
  'replyTo',
  'contentType',
  'headers',
  'delayMs',
])

/** What stamping and checking a message needs. */
export interface EncodeOptions {
  readonly service: string
  readonly maxBodyBytes: number
  /** The messages are published by handlers, in the name of their own. */
  readonly derived?: boolean
}

/** A message ready to go, with its identity at hand. */
export interface Encoded extends WireMessage {
  readonly messageId: string
  readonly transactionId: string
}

/** Where a message goes. */
export interface Target {
  readonly exchange: string
  /** Instead of the message's own. */
  readonly routingKey?: string | undefined
}

/**
 * Stamps ids and encodes.
 * @throws MessageInvalid naming the field
 */
export function encode(target: Target, message: OutgoingMessage, options: EncodeOptions): Encoded {
  checkFields(message)
  const { exchange, routingKey = message.routingKey } = target
  shortString('routingKey', routingKey)
  const messageId = message.messageId ?? newMessageId()
  const transactionId = message.transactionId ?? messageId
  const content = encodeBody(message.body)
  if (content.length > options.maxBodyBytes) throw tooLarge(content.length, options.maxBodyBytes)
  const headers: Record<string, unknown> = message.headers ? userHeaders(message.headers) : {}
  headers[HEADER.transactionId] = transactionId
  if (options.derived && isDerivedId(messageId)) headers[HEADER.derived] = true
  if (message.key !== undefined) headers[HEADER.key] = message.key
  const { type, correlationId, replyTo, body } = message
  const contentType =
    message.contentType ?? (body instanceof Uint8Array ? 'application/octet-stream' : 'application/json')
  const timestamp = Math.floor(Date.now() / 1_000)
  const properties: Mutable<WireProperties> = { messageId, timestamp, appId: options.service, contentType, headers }
  if (type !== undefined) properties.type = type
  if (correlationId !== undefined) properties.correlationId = correlationId
  if (replyTo !== undefined) properties.replyTo = replyTo
  return { messageId, transactionId, exchange, routingKey: routingKey ?? type ?? '', content, properties }
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] }

function encodeBody(body: unknown): Buffer {
  if (Buffer.isBuffer(body)) return body
  if (body instanceof Uint8Array) return Buffer.from(body.buffer, body.byteOffset, body.byteLength)
  refusePromise(body)
  let json: string | undefined
  try {
    json = JSON.stringify(body)
  } catch (cause) {
    throw new MessageInvalid('body', `expected body to be something JSON can carry: ${(cause as Error).message}`, {
      cause,
    })
  }
  if (json === undefined)
    throw new MessageInvalid('body', `expected body to be something JSON can carry, or bytes, got ${show(body)}`)
  if (json === '{}') refuseEmptied(body)
  return Buffer.from(json)
}

/** @throws MessageInvalid for what JSON makes an empty object of, whatever it holds: it would be confirmed, and lost */
function refuseEmptied(body: unknown): void {
  if (isPlain(body)) return
  throw new MessageInvalid(
    'body',
    `expected body to be something JSON can carry, got ${show(body)}: JSON keeps nothing of it`,
  )
}

/** All that keeps what it holds elsewhere has a tag of its own (a Map, an Error, an ArrayBuffer, a Blob), whatever realm it comes of. */
function isPlain(body: unknown): boolean {
  return (
    typeof (body as Convertible).toJSON === 'function' || Object.prototype.toString.call(body) === '[object Object]'
  )
}

/** @throws MessageInvalid for a promise of any kind, also a query that runs when it is awaited: what it is for would be lost */
function refusePromise(body: unknown): void {
  if (typeof (body as Convertible | null | undefined)?.then !== 'function') return
  throw new MessageInvalid(
    'body',
    `expected body to be something JSON can carry, got ${show(body)}: is an await missing?`,
  )
}

interface Convertible {
  readonly then?: unknown
  readonly toJSON?: unknown
}

function checkFields(message: OutgoingMessage): void {
  if (typeof message !== 'object' || message === null)
    throw new MessageInvalid('message', `expected a message like {type, body}, got ${show(message)}`)
  for (const name in message)
    if (!MESSAGE_FIELDS.has(name))
      throw new MessageInvalid(name, `unknown message field "${name}", ${hintAt(name, [...MESSAGE_FIELDS])}`)
  shortString('type', message.type)
  shortString('key', message.key)
  shortString('messageId', message.messageId, 1)
  shortString('transactionId', message.transactionId, 1)
  shortString('correlationId', message.correlationId)
  shortString('replyTo', message.replyTo)
  checkReplyTo(message.replyTo)
  shortString('contentType', message.contentType)
  const { delayMs } = message
  if (delayMs !== undefined && !(Number.isFinite(delayMs) && delayMs >= 0 && delayMs <= MAX_DELAY_MS))
    throw new MessageInvalid(
      'delayMs',
      `expected delayMs to be a number of ms from 0 to ${MAX_DELAY_MS} (30 days), got ${show(delayMs)}`,
    )
}

function shortString(field: string, value: string | undefined, min = 0): void {
  if (value === undefined) return
  const fits =
    typeof value === 'string' &&
    value.length >= min &&
    (value.length <= 63 || Buffer.byteLength(value) <= MAX_SHORT_STRING) &&
    // Half a character would come back as another one, and a return could not be matched with its message.
    value.isWellFormed()
  if (!fits)
    throw new MessageInvalid(
      field,
      `expected ${field} to be a well-formed string of ${min} to ${MAX_SHORT_STRING} bytes, got ${show(value)}`,
    )
}

/** @throws MessageInvalid */
export function checkReplyTo(replyTo: unknown): void {
  if (replyTo === DIRECT_REPLY_TO)
    throw new MessageInvalid(
      'replyTo',
      `expected replyTo to be the name of a queue, got "${DIRECT_REPLY_TO}": the broker closes a channel that sends it without waiting for answers there. Consume from a queue of your own and name that`,
    )
}

const REAL_TYPES: ReadonlySet<string> = new Set(['float', 'double', 'float64', 'number'])

/**
 * Is it told to be a float, a double or a number? amqplib writes that without a look: of a text comes no number, or an infinite one.
 * @throws MessageInvalid
 */
function isReal(name: string, table: { readonly '!'?: unknown; readonly value?: unknown }): boolean {
  const { '!': type, value } = table
  if (typeof type !== 'string' || !REAL_TYPES.has(type)) return false
  const real = typeof value !== 'number' ? Number.NaN : type === 'float' ? Math.fround(value) : value
  if (!Number.isFinite(real)) throw noHeader(name, `a finite ${type}`, value)
  return true
}

function userHeaders(headers: object): Record<string, unknown> {
  for (const [name, value] of Object.entries(headers)) {
    checkHeaderName(name)
    if (isCopyHeader(name) && value !== undefined && !Array.isArray(value))
      throw noHeader(name, 'a list of texts, or the broker closes the channel', value)
  }
  // Makes an own property of "__proto__", too.
  const out = Object.fromEntries(Object.entries(headers).filter(([, value]) => value !== undefined))
  const bytes = headerBytes(out)
  if (bytes > MAX_HEADER_BYTES)
    throw new MessageInvalid(
      'headers',
      `expected headers of at most ${MAX_HEADER_BYTES} bytes, got more: put large data into the body`,
    )
  return withDoubles(fieldTable(out), needsDouble)
}

/**
 * What amqplib would encode as an empty or numbered table is given its AMQP type.
 * @throws MessageInvalid for what AMQP has no value for; the broker would close the whole connection over an infinite number
 */
export function fieldTable(table: object): Record<string, unknown> {
  return Object.fromEntries(Object.entries(table).map(([name, value]) => [name, fieldValue(name, value)]))
}

function fieldValue(name: string, value: unknown): unknown {
  if (typeof value === 'number' && !Number.isFinite(value)) throw noHeader(name, 'a finite number', value)
  if (typeof value === 'bigint') return int64(name, value)
  if (value instanceof Date) return { '!': 'timestamp', value: seconds(name, value) }
  if (Buffer.isBuffer(value)) return value
  if (value instanceof Uint8Array) return Buffer.from(value.buffer, value.byteOffset, value.byteLength)
  if (Array.isArray(value)) return value.map((item) => fieldValue(name, item))
  if (typeof value !== 'object' || value === null) return value
  return isReal(name, value) ? { ...value } : fieldTable(value)
}

function int64(name: string, value: bigint): object {
  if (BigInt.asIntN(64, value) === value) return { '!': 'int64', value }
  throw noHeader(name, 'an integer of at most 64 bits', value)
}

function seconds(name: string, date: Date): number {
  const value = Math.floor(date.getTime() / 1_000)
  if (value >= 0) return value
  throw noHeader(name, 'a date since 1970', date)
}

function noHeader(name: string, expected: string, value: unknown): MessageInvalid {
  return new MessageInvalid(
    `headers.${name}`,
    `expected header "${name}" to be ${expected}, got ${value instanceof Date ? value : show(value)}`,
  )
}

function checkHeaderName(name: string): void {
  if (name === HEADER.transactionId)
    throw new MessageInvalid(`headers.${name}`, 'give the transaction id as transactionId, not as a header')
  if (name.startsWith(HEADER_PREFIX) || isBrokerHeader(name))
    throw new MessageInvalid(
      `headers.${name}`,
      `header "${name}" is reserved: names beginning with "${HEADER_PREFIX}" are ours, the x-death family is the broker's`,
    )
  if (Buffer.byteLength(name) > 128)
    throw new MessageInvalid('headers', `expected header names of at most 128 bytes, got ${show(name)}`)
}

/** How the size of headers is judged: numbers, booleans and nothings at so many bytes each, no further than a bound. */
export interface Count {
  readonly scalar: number
  readonly max: number
}

const GENEROUS: Count = { scalar: 9, max: MAX_HEADER_BYTES }

/** Roughly what a header value takes on the wire; exact for strings and buffers; stops counting beyond the bound. */
export function headerBytes(value: unknown, count = GENEROUS, depth = 0): number {
  if (depth > MAX_HEADER_DEPTH) return count.max + 1
  if (typeof value === 'string') return 5 + Buffer.byteLength(value)
  if (value instanceof Uint8Array) return 5 + value.length
  if (typeof value !== 'object' || value === null) return count.scalar
  let sum = 5
  for (const [name, item] of Object.entries(value)) {
    sum += (Array.isArray(value) ? 0 : 1 + Buffer.byteLength(name)) + headerBytes(item, count, depth + 1)
    if (sum > count.max) break
  }
  return sum
}

function tooLarge(bytes: number, max: number): MessageInvalid {
  return new MessageInvalid(
    'body',
    `body of ${bytes} bytes is larger than maxBodyBytes (${max}): RabbitMQ 4 refuses bodies over 16 MiB; store it elsewhere and send a reference`,
  )
}
