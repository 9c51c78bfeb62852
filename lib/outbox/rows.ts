/** Rows of the outbox as people and programs see them. Pure. */
import { textOf } from '../errors.ts'
import type { Headers } from '../message.ts'
import type { SqlRow } from '../sql/client.ts'
import type { PackedColumns } from './packing.ts'
import { type SentColumns, sendable } from './sendable.ts'

/** `ready`: to be sent. `held`: waits for its next attempt, or behind another row of its key. `parked`: given up on. `sent`: kept for a while. */
export type OutboxState = 'ready' | 'held' | 'parked' | 'sent'

export const STATES: readonly OutboxState[] = ['ready', 'held', 'parked', 'sent']

/** A row of the outbox. */
export interface OutboxRow {
  /** Its place in the order of its key. It may change until its transaction commits, never afterwards. */
  readonly position: string
  readonly outbox: string
  readonly state: OutboxState
  readonly messageId: string
  readonly transactionId: string
  readonly type: string | undefined
  readonly key: string | undefined
  /** `''`: straight to the queue that the routing key names. */
  readonly exchange: string
  readonly routingKey: string
  readonly createdAt: Date
  /** Not to be delivered before. */
  readonly deliverAt: Date | undefined
  /** How often it was tried in vain. */
  readonly attempts: number
  /** When it will be tried again; undefined where it waits behind another row. */
  readonly nextAttemptAt: Date | undefined
  /** Held behind another row of its key. */
  readonly waits: boolean
  readonly lastError: string | undefined
  /** When it was sent or parked. */
  readonly endedAt: Date | undefined
  readonly bodyBytes: number
}

/** A row with all of it. */
export interface FullOutboxRow extends OutboxRow {
  readonly body: Buffer
  /** As they will be sent, ours included. */
  readonly headers: Headers
  readonly contentType: string | undefined
  readonly correlationId: string | undefined
  readonly replyTo: string | undefined
  /** The service that wrote it. */
  readonly appId: string | undefined
  /** Why it cannot be sent, where somebody wrote it by hand so; its headers and the four above are then not told. */
  readonly unreadable: string | undefined
}

/** The columns that {@link rowOf} reads. A database may say `infinity`, which no Date can. */
export const COLUMNS = `position, name, state, message_id, transaction_id, key, exchange, routing_key, properties, created_at,
  deliver_at, attempts, nullif(not_before, 'infinity') AS next_at, coalesce(not_before = 'infinity', false) AS waits,
  last_error, ended_at, octet_length(body) AS body_bytes`

export function rowOf(row: SqlRow): OutboxRow {
  const state = row['state'] as OutboxState
  return {
    position: String(row['position']),
    outbox: row['name'] as string,
    state,
    messageId: row['message_id'] as string,
    transactionId: row['transaction_id'] as string,
    type: typeOf(row['properties'] as string),
    key: textOr(row['key']),
    exchange: row['exchange'] as string,
    routingKey: row['routing_key'] as string,
    createdAt: new Date(row['created_at'] as Date),
    deliverAt: dateOr(row['deliver_at']),
    attempts: Number(row['attempts']),
    nextAttemptAt: state === 'held' ? dateOr(row['next_at']) : undefined,
    waits: state === 'held' && row['waits'] === true,
    lastError: textOr(row['last_error']),
    endedAt: dateOr(row['ended_at']),
    bodyBytes: Number(row['body_bytes']),
  }
}

/** Needs the column `body`, too. */
export function fullRowOf(row: SqlRow): FullOutboxRow {
  const { body } = row as unknown as PackedColumns
  const common = { ...rowOf(row), body: Buffer.from(body.buffer, body.byteOffset, body.byteLength) }
  try {
    const { contentType, correlationId, replyTo, appId, headers } = sendable(columnsOf(row)).properties
    return {
      ...common,
      headers: plain(headers) as Headers,
      contentType,
      correlationId,
      replyTo,
      appId,
      unreadable: undefined,
    }
  } catch (error) {
    const nothing = { contentType: undefined, correlationId: undefined, replyTo: undefined, appId: undefined }
    return { ...common, ...nothing, headers: {}, unreadable: textOf(error) }
  }
}

function columnsOf(row: SqlRow): SentColumns {
  return { ...(row as unknown as PackedColumns), key: textOr(row['key']) }
}

/** Values that were given their AMQP type, as they were given. */
export function plain(value: unknown): unknown {
  if (typeof value !== 'object' || value === null || value instanceof Uint8Array) return value
  if (Array.isArray(value)) return value.map(plain)
  const { '!': type, value: inner } = value as { '!'?: unknown; value?: unknown }
  if (type === 'int64' && typeof inner === 'bigint') return inner
  if (type === 'double' && typeof inner === 'number') return inner
  if (type === 'timestamp' && typeof inner === 'number') return new Date(inner * 1_000)
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, plain(item)]))
}

/** Undefined also where it cannot be read: a look must show the others. */
function typeOf(properties: string): string | undefined {
  try {
    const { type } = JSON.parse(properties) as { type?: unknown }
    return typeof type === 'string' ? type : undefined
  } catch {
    return undefined
  }
}

function textOr(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined
}

function dateOr(value: unknown): Date | undefined {
  return value === null || value === undefined ? undefined : new Date(value as Date)
}
