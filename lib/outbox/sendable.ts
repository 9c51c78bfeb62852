/**
 * Says of a row of the outbox, or of an item of a half message, whether it can be sent at all, and makes it ready to go. Pure.
 *
 * Anybody may have written it: by hand, in another language, with a defect. Promises: what cannot be read, encoded or sent without harm
 * to all that others publish on the same channel is refused before anything is sent, by an error that names the column or the header.
 * Does NOT promise that the broker takes what fits: its target may be missing, its headers together be too large for a frame.
 */
import { MessageInvalid } from '../errors.ts'
import { isBrokerHeader, isCopyHeader, MAX_HEADER_DEPTH, needsDouble, type WireProperties } from '../message.ts'
import { show } from '../options.ts'
import { checkReplyTo, type Encoded } from '../producer/encode.ts'
import { type PackedColumns, unpacked } from './packing.ts'

/** The columns that say what is sent. */
export interface SentColumns extends PackedColumns {
  readonly key?: string | undefined
}

const MAX_BYTES = 255
const TEXTS = ['messageId', 'type', 'appId', 'contentType', 'contentEncoding', 'correlationId', 'replyTo'] as const

/** @throws MessageInvalid naming the column or the header */
export function sendable(row: SentColumns): Encoded {
  shortText('message_id', row.message_id, 1)
  shortText('transaction_id', row.transaction_id)
  shortText('exchange', row.exchange)
  shortText('routing_key', row.routing_key)
  if (row.key !== undefined) shortText('key', row.key)
  const message = read(row)
  checkProperties(message.properties)
  return message
}

/** Is the key longer than any of ours? An index may not take it, so the row cannot be held. */
export function isLongKey(key: string | undefined): boolean {
  return key !== undefined && !isShort(key)
}

function read(row: PackedColumns): Encoded {
  let message: Encoded
  try {
    message = unpacked(row)
  } catch (cause) {
    // Without what the parser says: it quotes the text.
    throw new MessageInvalid('properties', 'expected properties to be JSON as an outbox writes it, and it is not', {
      cause,
    })
  }
  const { headers = {} } = table('properties', message.properties) as Partial<WireProperties>
  return headers === message.properties.headers
    ? message
    : { ...message, properties: { ...message.properties, headers } }
}

function checkProperties(properties: WireProperties): void {
  for (const name of TEXTS) if (properties[name] !== undefined) shortText(`properties.${name}`, properties[name])
  checkReplyTo(properties.replyTo)
  const { timestamp, priority } = properties
  if (timestamp !== undefined && !isCount(timestamp, UNSIGNED_64))
    throw wrong('properties.timestamp', 'seconds since 1970', timestamp)
  if (priority !== undefined && !isCount(priority, { bits: 8, signed: false }))
    throw wrong('properties.priority', 'an integer from 0 to 255', priority)
  for (const [name, value] of Object.entries(table('properties.headers', properties.headers))) checkHeader(name, value)
}

function checkHeader(name: string, value: unknown): void {
  if (!isShort(name)) throw wrong('properties.headers', `names of at most ${MAX_BYTES} bytes`, name)
  // Of a forged x-death RabbitMQ 3.10 dies, the whole node, when it dead-letters the message (measured).
  if (isBrokerHeader(name)) throw wrongHeader(name, "absent, since it is the broker's own", value)
  if (isCopyHeader(name) && !Array.isArray(value))
    throw wrongHeader(name, 'a list of texts, or the broker closes the channel', value)
  checkValue(name, value, 0)
}

function checkValue(name: string, value: unknown, depth: number): void {
  if (typeof value === 'number' && !isNumber(value))
    throw wrongHeader(name, 'a finite number of at most 64 bits', value)
  if (typeof value === 'bigint') throw wrongHeader(name, 'an integer with its AMQP type', value)
  if (typeof value !== 'object' || value === null || value instanceof Uint8Array) return
  if (depth > MAX_HEADER_DEPTH) throw wrongHeader(name, `nested at most ${MAX_HEADER_DEPTH} levels deep`, value)
  if (Object.hasOwn(value, '!')) checkTyped(name, value, depth)
  else checkItems(name, value, depth)
}

function checkItems(name: string, value: object, depth: number): void {
  for (const [inner, item] of Object.entries(value)) {
    if (!Array.isArray(value) && !isShort(inner))
      throw wrongHeader(name, `a table with names of at most ${MAX_BYTES} bytes`, value)
    checkValue(name, item, depth + 1)
  }
}

interface Width {
  readonly bits: number
  readonly signed: boolean
}

const DIGITS = /^-?\d{1,20}$/
const UNSIGNED_64: Width = { bits: 64, signed: false }
/** The types by which amqplib lets a value be named, but for those below. */
const INTEGERS: Readonly<Record<string, Width>> = {
  byte: { bits: 8, signed: true },
  int8: { bits: 8, signed: true },
  unsignedbyte: { bits: 8, signed: false },
  uint8: { bits: 8, signed: false },
  short: { bits: 16, signed: true },
  int16: { bits: 16, signed: true },
  unsignedshort: { bits: 16, signed: false },
  uint16: { bits: 16, signed: false },
  int: { bits: 32, signed: true },
  int32: { bits: 32, signed: true },
  unsignedint: { bits: 32, signed: false },
  uint32: { bits: 32, signed: false },
  long: { bits: 64, signed: true },
  int64: { bits: 64, signed: true },
  timestamp: UNSIGNED_64,
}

/** amqplib writes what it is told to write without a look: of a text comes no number, of a large one an infinite. */
function checkTyped(name: string, typed: object, depth: number): void {
  const { '!': type, value } = typed as { '!'?: unknown; value?: unknown }
  const width = typeof type === 'string' && Object.hasOwn(INTEGERS, type) ? INTEGERS[type] : undefined
  const fits = width ? isInteger(value, width) : isOfType(type, value)
  if (!fits)
    throw wrongHeader(name, typeof type === 'string' && type in KINDS ? `a finite ${type}` : 'of an AMQP type', value)
  if (type === 'object') checkValue(name, value, depth + 1)
}

const KINDS = { double: 1, float64: 1, float: 1 } as const

function isOfType(type: unknown, value: unknown): boolean {
  if (type === 'double' || type === 'float64') return typeof value === 'number' && Number.isFinite(value)
  if (type === 'float') return typeof value === 'number' && Number.isFinite(Math.fround(value))
  if (type === 'string') return typeof value === 'string'
  if (type === 'number') return isNumber(value)
  if (type === 'object') return typeof value === 'object'
  if (type === 'boolean') return true
  return type === 'decimal' && isDecimal(value)
}

function isDecimal(value: unknown): boolean {
  const { places, digits } = (value ?? {}) as { places?: unknown; digits?: unknown }
  return isCount(places, { bits: 8, signed: false }) && isCount(digits, { bits: 32, signed: false })
}

/** One that is given no type: large ones become integers of 64 bits, unless they are too large for that. */
function isNumber(value: unknown): boolean {
  return typeof value === 'number' && Number.isFinite(value) && !needsDouble(value)
}

function isInteger(value: unknown, { bits, signed }: Width): boolean {
  const told = typeof value === 'bigint' || Number.isInteger(value) || (typeof value === 'string' && DIGITS.test(value))
  if (!told) return false
  const whole = BigInt(value as number | bigint | string)
  return (signed ? BigInt.asIntN(bits, whole) : BigInt.asUintN(bits, whole)) === whole
}

/** Of properties, which have no types to choose from. */
function isCount(value: unknown, width: Width): boolean {
  return typeof value === 'number' && isInteger(value, width)
}

function table(field: string, value: unknown): object {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value
  throw wrong(field, 'a JSON object', value)
}

function shortText(field: string, value: unknown, min = 0): void {
  if (typeof value === 'string' && value.length >= min && isShort(value) && value.isWellFormed()) return
  throw wrong(field, `a well-formed text of ${min} to ${MAX_BYTES} bytes`, value)
}

function isShort(value: string): boolean {
  return value.length <= MAX_BYTES / 4 || (value.length <= MAX_BYTES && Buffer.byteLength(value) <= MAX_BYTES)
}

function wrong(field: string, expected: string, value: unknown): MessageInvalid {
  return new MessageInvalid(field, `expected ${field} to be ${expected}, got ${show(value)}`)
}

function wrongHeader(name: string, expected: string, value: unknown): MessageInvalid {
  return new MessageInvalid(`headers.${name}`, `expected header "${name}" to be ${expected}, got ${show(value)}`)
}
