/**
 * Letters as lines of JSON, for files and pipes, and back: every property, header and byte of the body comes back as it was.
 * A body that is JSON in UTF-8, written as `JSON.stringify` writes it, is readable in the line; any other is base64. The
 * broker's own headers do not travel: what they alone told is written into the story. Pure.
 */
import { InvalidOption, MessageInvalid, textOf } from '../errors.ts'
import { forwardedProperties } from '../forward.ts'
import { HEADER, MAX_HEADER_DEPTH, newMessageId, type RawDelivery, type WireProperties } from '../message.ts'
import { checkReplyTo, type Encoded, fieldTable, headerBytes } from '../producer/encode.ts'
import { toldProperties } from './copies.ts'
import { readLetter } from './story.ts'

/** The form of a line. */
const VERSION = 1
const TEXT_PROPERTIES = [
  'messageId',
  'type',
  'appId',
  'contentType',
  'contentEncoding',
  'correlationId',
  'replyTo',
] as const
const NUMBER_PROPERTIES = ['timestamp', 'priority'] as const
const FIELDS: ReadonlySet<string> = new Set(['surehop', 'id', 'properties', 'headers', 'body', 'bodyBase64'])
/** The largest number below 2^64. Publishers that count in nanoseconds come near it. */
const MAX_TIMESTAMP = 2 ** 64 - 2_048
/** A letter was a message: its headers fitted into 64 KiB, with the least that each value can take. What is too much nevertheless, the sender refuses. */
const AT_LEAST = { scalar: 1, max: 65_536 }
/** RabbitMQ's default upper bound of a message, bytes. */
const MAX_BODY_BYTES = 128 * 1024 * 1024

/** One letter as one line, without its line feed. */
export function exportLine(raw: RawDelivery): string {
  const { headers, ...properties } = toldProperties(raw)
  const id = readLetter(raw).id
  const line = JSON.stringify({ surehop: VERSION, id, properties, headers: packed(headers), ...bodyOf(raw.content) })
  return line.replace(UNSEEN, escaped)
}

/** JSON escapes what is below a space; a terminal that shows a line also obeys these. */
const UNSEEN = /[\u007f-\u009f\p{Cf}\p{Zl}\p{Zp}]/gu

function escaped(character: string): string {
  return character
    .split('')
    .map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
    .join('')
}

/**
 * A line as a letter for `queue`.
 * @throws MessageInvalid naming the part that is wrong
 */
export function importLine(line: string, queue: string): Encoded {
  const value = objectOf('line', parsed(line))
  for (const name of Object.keys(value)) if (!FIELDS.has(name)) throw wrong(name, 'no field of a letter')
  if (value['surehop'] !== VERSION)
    throw wrong(
      'surehop',
      `expected ${VERSION} (a line written by "surehop dead export"), got ${textOf(value['surehop'], 60)}`,
    )
  const properties = propertiesOf(objectOf('properties', value['properties']))
  const headers = headersOf(objectOf('headers', value['headers'] ?? {}))
  return letterOf({ content: contentOf(value), properties, headers }, queue)
}

function letterOf(
  {
    content,
    properties,
    headers,
  }: { content: Buffer; properties: Record<string, unknown>; headers: Record<string, unknown> },
  queue: string,
): Encoded {
  const raw: RawDelivery = {
    content,
    fields: { deliveryTag: 0, redelivered: false, exchange: '', routingKey: '' },
    properties: { ...properties, headers },
  }
  const kept = { [HEADER.exchange]: headers[HEADER.exchange], [HEADER.routingKey]: headers[HEADER.routingKey] }
  const wire: WireProperties = forwardedProperties(raw, kept)
  const { messageId, transactionId } = readLetter(raw)
  const id = messageId ?? newMessageId()
  return {
    exchange: '',
    routingKey: queue,
    content,
    properties: wire,
    messageId: id,
    transactionId: transactionId ?? id,
  }
}

function bodyOf(content: Buffer): { body: unknown } | { bodyBase64: string } {
  try {
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(content)
    const body: unknown = JSON.parse(text)
    if (!isDeep(text) && JSON.stringify(body) === text) return { body }
  } catch {
    // not JSON in UTF-8
  }
  return { bodyBase64: content.toString('base64') }
}

/** JSON of some thousands of levels can be read, but only just be written: not inside a line. */
const MAX_DEPTH = 100

/** Of JSON: how deep it is nested. */
function isDeep(json: string): boolean {
  let depth = 0
  let inText = false
  for (let i = 0; i < json.length && depth <= MAX_DEPTH; i++) {
    const character = json[i]
    if (character === '"') inText = !inText
    else if (inText) i += character === '\\' ? 1 : 0
    else if (character === '[' || character === '{') depth++
    else if (character === ']' || character === '}') depth--
  }
  return depth > MAX_DEPTH
}

function written(body: unknown): Buffer {
  try {
    return Buffer.from(JSON.stringify(body))
  } catch {
    throw wrong('body', 'nested too deep to be written again: expected bodyBase64')
  }
}

function contentOf({ body, bodyBase64 }: Record<string, unknown>): Buffer {
  if ((body === undefined) === (bodyBase64 === undefined)) throw wrong('body', 'expected either body or bodyBase64')
  if (body !== undefined) return written(body)
  const fits =
    typeof bodyBase64 === 'string' && /^[A-Za-z0-9+/]*={0,2}$/.test(bodyBase64) && bodyBase64.length % 4 === 0
  if (!fits) throw wrong('bodyBase64', 'expected base64 text')
  const content = Buffer.from(bodyBase64 as string, 'base64')
  if (content.length > MAX_BODY_BYTES) throw wrong('bodyBase64', `expected at most ${MAX_BODY_BYTES} bytes`)
  return content
}

function propertiesOf(given: Record<string, unknown>): Record<string, unknown> {
  const known: readonly string[] = [...TEXT_PROPERTIES, ...NUMBER_PROPERTIES]
  for (const name of Object.keys(given))
    if (!known.includes(name)) throw wrong(`properties.${name}`, 'no property of a letter')
  for (const name of TEXT_PROPERTIES) if (given[name] !== undefined) checkText(name, given[name])
  checkReplyTo(given['replyTo'])
  for (const name of NUMBER_PROPERTIES) if (given[name] !== undefined) checkNumber(name, given[name])
  return given
}

function checkText(name: string, value: unknown): void {
  if (typeof value === 'string' && Buffer.byteLength(value) <= 255) return
  throw wrong(`properties.${name}`, 'expected a text of at most 255 bytes')
}

function checkNumber(name: string, value: unknown): void {
  const max = name === 'priority' ? 255 : MAX_TIMESTAMP
  if (Number.isInteger(value) && (value as number) >= 0 && (value as number) <= max) return
  throw wrong(`properties.${name}`, `expected an integer from 0 to ${max}`)
}

function headersOf(given: Record<string, unknown>): Record<string, unknown> {
  const headers = unpacked(given, 0) as Record<string, unknown>
  for (const name of Object.keys(headers))
    if (Buffer.byteLength(name) > 255) throw wrong('headers', 'expected names of at most 255 bytes')
  if (headerBytes(headers, AT_LEAST) > AT_LEAST.max) throw wrong('headers', `expected at most ${AT_LEAST.max} bytes`)
  return fieldTable(headers)
}

/** What JSON has no word for: bytes and big integers; and tables that would pass for these. (amqplib's `{'!': type, value}` passes as it is.) */
function packed(value: unknown): unknown {
  if (value instanceof Uint8Array) return { $bytes: Buffer.from(value).toString('base64') }
  if (typeof value === 'bigint') return { $int: String(value) }
  if (Array.isArray(value)) return value.map(packed)
  if (typeof value !== 'object' || value === null) return value
  const table = Object.fromEntries(Object.entries(value).map(([name, item]) => [name, packed(item)]))
  return MARKS.some((mark) => Object.hasOwn(table, mark)) ? { $table: table } : table
}

const MARKS = ['$bytes', '$int', '$table'] as const

function unpacked(value: unknown, depth: number): unknown {
  if (depth > MAX_HEADER_DEPTH) throw wrong('headers', `expected at most ${MAX_HEADER_DEPTH} levels`)
  if (Array.isArray(value)) return value.map((item) => unpacked(item, depth + 1))
  if (typeof value !== 'object' || value === null) return value
  const { $bytes, $int, $table } = value as Record<string, unknown>
  if (typeof $bytes === 'string') return Buffer.from($bytes, 'base64')
  if (typeof $int === 'string' && /^-?\d{1,19}$/.test($int)) return BigInt($int)
  const table = typeof $table === 'object' && $table !== null ? $table : value
  return Object.fromEntries(Object.entries(table).map(([name, item]) => [name, unpacked(item, depth + 1)]))
}

function parsed(line: string): unknown {
  try {
    return JSON.parse(line)
  } catch (cause) {
    const at = /at position \d+/.exec(textOf(cause))?.[0] ?? 'at its end'
    throw new MessageInvalid('line', `no JSON: mistake ${at}`, { cause })
  }
}

function objectOf(path: string, value: unknown): Record<string, unknown> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>
  throw wrong(path, 'expected a JSON object')
}

function wrong(path: string, what: string): MessageInvalid {
  return new MessageInvalid(path, `${path}: ${what}`)
}

/** Bytes or text in pieces, as lines; a line that grows beyond the largest letter is refused, and one that is no UTF-8. */
export async function* linesOf(source: AsyncIterable<string | Uint8Array>): AsyncGenerator<string> {
  let open: (string | Uint8Array)[] = []
  let length = 0
  for await (const piece of source) {
    let from = 0
    for (let end = endOfLine(piece, 0); end >= 0; end = endOfLine(piece, from)) {
      yield lineOf([...open, piece.slice(from, end)])
      open = []
      length = 0
      from = end + 1
    }
    const rest = from === 0 ? piece : piece.slice(from)
    length += rest.length
    if (length > 2 * MAX_BODY_BYTES) throw new InvalidOption('expected one letter per line; this line does not end')
    // A stream may use its memory again.
    if (rest.length > 0) open.push(typeof rest === 'string' ? rest : Buffer.from(rest))
  }
  yield lineOf(open)
}

function endOfLine(piece: string | Uint8Array, from: number): number {
  return typeof piece === 'string' ? piece.indexOf('\n', from) : piece.indexOf(LINE_FEED, from)
}

const LINE_FEED = 0x0a

function lineOf(pieces: readonly (string | Uint8Array)[]): string {
  const decoder = new TextDecoder('utf-8', { fatal: true })
  const text = (piece: string | Uint8Array) =>
    typeof piece === 'string' ? piece : decoder.decode(piece, { stream: true })
  try {
    return pieces.map(text).join('') + decoder.decode()
  } catch (cause) {
    throw new MessageInvalid('line', 'expected text in UTF-8, got bytes that are not', { cause })
  }
}
