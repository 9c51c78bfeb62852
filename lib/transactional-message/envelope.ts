/**
 * The half message: all messages of one transaction in one AMQP message, and back. Pure.
 *
 *     length of the head (4 bytes, big-endian) | head (JSON) | body 1 | body 2 ...
 *
 * One message, since one is stored or not stored: there is no prepare that the broker took by half. Bodies stand as they are, so
 * that no size is lost to base64. Everything is fixed here: ids, timestamps, headers with their AMQP types, and the time that
 * delays count from. What is read is checked: anybody may publish to the queue.
 */
import { MAX_DELAY_MS } from '../backoff.ts'
import { MessageInvalid } from '../errors.ts'
import { HEADER, newMessageId, type RawDelivery, type WireProperties } from '../message.ts'
import { packed } from '../outbox/packing.ts'
import type { ReadyMessage } from '../outbox/prepare.ts'
import { sendable } from '../outbox/sendable.ts'
import type { Encoded } from '../producer/encode.ts'
import { halfQueueOf } from './half-queues.ts'
import { TRANSACTION_ID } from './options.ts'

/** The largest half message, bytes: RabbitMQ 4 takes 16 MiB. */
export const MAX_HALF_BYTES = 16 * 1024 * 1024
/** The most messages of one transaction. */
export const MAX_MESSAGES = 1_000

const VERSION = 1
const TYPE = 'surehop.half'
/** Of a clock that somebody made up. */
const LAST_SECOND = Number.MAX_SAFE_INTEGER

/** One of the messages, ready to go. */
export type HalfItem = ReadyMessage

/** All messages of one prepare. */
export interface HalfMessage {
  /** Of this half message itself: of two under one transaction id, each has its own. */
  readonly halfId: string
  readonly transactionId: string
  /** Epoch ms, by the clock of the process that prepared it. */
  readonly preparedAt: number
  readonly service: string
  readonly messages: readonly HalfItem[]
}

interface Head {
  readonly v: number
  readonly transactionId: string
  readonly preparedAt: number
  readonly service: string
  readonly messages: readonly HeadItem[]
}

interface HeadItem {
  readonly id: string
  readonly exchange: string
  readonly routingKey: string
  readonly key?: string
  readonly delayMs?: number
  /** Packed as in the outbox. */
  readonly properties: string
  readonly bytes: number
}

/** @throws MessageInvalid when it is larger than the broker takes */
export function encodeHalf(name: string, half: HalfMessage): Encoded {
  const { halfId, transactionId, preparedAt, service, messages } = half
  const head: Head = { v: VERSION, transactionId, preparedAt, service, messages: messages.map(headItem) }
  const json = Buffer.from(JSON.stringify(head))
  const length = Buffer.alloc(4)
  length.writeUInt32BE(json.length)
  const content = Buffer.concat([length, json, ...messages.map(({ encoded }) => encoded.content)])
  if (content.length > MAX_HALF_BYTES) throw tooLarge(content.length)
  const properties = halfProperties(half)
  return { messageId: halfId, transactionId, exchange: '', routingKey: halfQueueOf(name), content, properties }
}

/** The properties of the AMQP message that carries it. */
export function halfProperties({ halfId, transactionId, preparedAt, service }: HalfMessage): WireProperties {
  return {
    messageId: halfId,
    type: TYPE,
    timestamp: Math.min(Math.floor(preparedAt / 1_000), LAST_SECOND),
    appId: service,
    contentType: 'application/vnd.surehop.half',
    headers: { [HEADER.transactionId]: transactionId },
  }
}

/** Messages as a new half message of their own. */
export function newHalf(of: Omit<HalfMessage, 'halfId'>): HalfMessage {
  return { halfId: newMessageId(), ...of }
}

function headItem({ encoded, key, delayMs }: HalfItem): HeadItem {
  const { messageId: id, exchange, routingKey, content } = encoded
  const { properties } = packed(encoded, undefined)
  const rest = { ...(key === undefined ? {} : { key }), ...(delayMs ? { delayMs } : {}) }
  return { id, exchange, routingKey, ...rest, properties, bytes: content.length }
}

/** @throws MessageInvalid naming what is wrong with it */
export function decodeHalf(raw: RawDelivery): HalfMessage {
  try {
    return decoded(raw)
  } catch (cause) {
    if (cause instanceof MessageInvalid) throw cause
    // Without what the parser says: it quotes the text.
    throw new MessageInvalid(
      'body',
      'it is no half message: expected the length of a head, the head as JSON, and bodies',
      {
        cause,
      },
    )
  }
}

function decoded({ content, properties }: RawDelivery): HalfMessage {
  const bodiesAt = 4 + content.readUInt32BE(0)
  const head = checked(JSON.parse(content.toString('utf8', 4, bodiesAt)))
  const { transactionId, preparedAt, service } = head
  let at = bodiesAt
  const messages = head.messages.map((item) => {
    const body = content.subarray(at, at + item.bytes)
    at += item.bytes
    return itemOf(item, transactionId, body)
  })
  if (at !== content.length)
    throw new MessageInvalid('body', `expected a half message of ${at} bytes, got ${content.length}`)
  return { halfId: idOf(properties.messageId, transactionId), transactionId, preparedAt, service, messages }
}

function itemOf(item: HeadItem, transactionId: string, body: Buffer): HalfItem {
  const { id, exchange, routingKey, key, delayMs, properties } = item
  const columns = { message_id: id, transaction_id: transactionId, exchange, routing_key: routingKey }
  const encoded = sendable({ ...columns, key, properties, body })
  const own = encoded.properties.headers[HEADER.transactionId]
  return { encoded: typeof own === 'string' ? { ...encoded, transactionId: own } : encoded, key, delayMs }
}

function idOf(messageId: unknown, transactionId: string): string {
  return shortText(messageId) && messageId !== '' ? messageId : transactionId
}

function checked(value: unknown): Head {
  const head = (value ?? {}) as Partial<Head>
  expected('version', head.v === VERSION, VERSION)
  // What a store cannot keep or index would hinder all that are looked up with it.
  expected(
    'transactionId',
    head.transactionId !== undefined && TRANSACTION_ID(head.transactionId) === undefined,
    'an id',
  )
  expected('preparedAt', count(head.preparedAt), 'epoch ms')
  expected('service', shortText(head.service), 'a name')
  const { messages } = head
  // Of shortest messages 16 MiB hold 200,000: all else stood still for seconds.
  expected(
    'messages',
    Array.isArray(messages) && messages.length <= MAX_MESSAGES,
    `an array of at most ${MAX_MESSAGES}`,
  )
  for (const item of messages!) checkItem((item ?? {}) as Partial<HeadItem>)
  return head as Head
}

function checkItem({ id, exchange, routingKey, key, delayMs, properties, bytes }: Partial<HeadItem>): void {
  expected('id', shortText(id) && id !== '', 'an id')
  expected('exchange', shortText(exchange), 'a name')
  expected('routingKey', shortText(routingKey), 'a routing key')
  expected('key', key === undefined || shortText(key), 'a key')
  expected('delayMs', delayMs === undefined || (count(delayMs) && delayMs! <= MAX_DELAY_MS), 'ms')
  expected('properties', typeof properties === 'string', 'packed properties')
  expected('bytes', count(bytes) && Number.isInteger(bytes), 'a size')
}

function expected(field: string, fits: boolean, what: unknown): void {
  if (!fits) throw new MessageInvalid(field, `expected ${field} of a half message to be ${what}`)
}

function shortText(value: unknown): value is string {
  return typeof value === 'string' && Buffer.byteLength(value) <= 255 && value.isWellFormed()
}

function count(value: unknown): boolean {
  return typeof value === 'number' && Number.isFinite(value) && value >= 0
}

function tooLarge(bytes: number): MessageInvalid {
  return new MessageInvalid(
    'messages',
    `the messages of one transaction take ${bytes} bytes together, and ${MAX_HALF_BYTES} (16 MiB) is the most: store large data elsewhere and send a reference`,
  )
}
