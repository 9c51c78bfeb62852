/**
 * A message as an outbox row, and back: bytes, headers of every AMQP type and all properties come back as they were. Pure.
 *
 * Headers are kept as JSON; what JSON lacks is a small object with a "!" (as amqplib itself writes typed values): bytes in base64,
 * integers of 64 bits as text. A table of the publisher's that looks like one of ours is kept as a list of its fields.
 */
import { createHash } from 'node:crypto'
import type { WireProperties } from '../message.ts'
import type { Encoded } from '../producer/encode.ts'

/** Relays divide so many shards among them. Fixed: a row keeps the shard it was written with. */
export const SHARDS = 64
/** The highest position there is to a relay: beyond it, numbers of JavaScript are taken for their neighbours. */
export const LAST_POSITION = Number.MAX_SAFE_INTEGER

/** The columns of a row that its writer gives it. */
export interface PackedMessage {
  readonly shard: number
  readonly messageId: string
  readonly transactionId: string
  readonly key: string | undefined
  readonly exchange: string
  readonly routingKey: string
  /** JSON. */
  readonly properties: string
  readonly body: Buffer
}

/** The columns of a row that the message is read from. */
export interface PackedColumns {
  readonly message_id: string
  readonly transaction_id: string
  readonly exchange: string
  readonly routing_key: string
  readonly properties: string
  readonly body: Uint8Array
}

export function packed(message: Encoded, key: string | undefined): PackedMessage {
  const { messageId, transactionId, exchange, routingKey, properties, content } = message
  const json = JSON.stringify(written(properties))
  return {
    shard: shardOf(key ?? messageId),
    messageId,
    transactionId,
    key,
    exchange,
    routingKey,
    properties: json,
    body: content,
  }
}

export function unpacked(row: PackedColumns): Encoded {
  const { message_id: messageId, transaction_id: transactionId, exchange, routing_key: routingKey, body } = row
  const json: unknown = JSON.parse(row.properties)
  const properties = (row.properties.includes(MARK) ? read(json) : json) as WireProperties
  const content = Buffer.from(body.buffer, body.byteOffset, body.byteLength)
  return { messageId, transactionId, exchange, routingKey, content, properties }
}

/** The share of the work that a key, or a message without one, belongs to. */
export function shardOf(text: string): number {
  return createHash('sha1').update(text).digest().readUInt16BE(0) % SHARDS
}

function written(value: unknown): unknown {
  if (typeof value === 'bigint') return { '!': 'integer', value: String(value) }
  if (value instanceof Uint8Array) return { '!': 'bytes', value: Buffer.from(value).toString('base64') }
  if (Array.isArray(value)) return value.map(written)
  if (typeof value !== 'object' || value === null) return value
  if (OURS.has((value as { '!'?: unknown })['!']))
    return { '!': 'fields', value: Object.entries(value).map(([name, item]) => [name, written(item)]) }
  return mapped(value, written)
}

/** What of ours is in the JSON says so; most have nothing, and are not gone through. */
const MARK = '"!"'
const OURS: ReadonlySet<unknown> = new Set(['bytes', 'integer', 'fields'])

function read(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(read)
  if (typeof value !== 'object' || value === null) return value
  const { '!': kind, value: text } = value as { '!'?: unknown; value?: unknown }
  if (kind === 'bytes') return Buffer.from(text as string, 'base64')
  if (kind === 'integer') return BigInt(text as string)
  if (kind === 'fields')
    return Object.fromEntries((text as [string, unknown][]).map(([name, item]) => [name, read(item)]))
  return mapped(value, read)
}

/** `Object.fromEntries` makes an own property of "__proto__", too. */
function mapped(value: object, change: (item: unknown) => unknown): object {
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, change(item)]))
}
