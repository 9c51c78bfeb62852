/**
 * Keeps messages with headers that amqplib cannot read from ending the connection, with all its deliveries, again and again, since
 * such a message stays in its queue. The broker takes them: tables nested thousands of levels deep, which fit into one frame and
 * overflow the stack; numbers of type `L`; a field `__proto__`, which makes of a table something that nobody can look at; and headers that with the broker's own added no longer fit into an agreed frame.
 *
 * Promises: an `L` is read as what it is; a header nested deeper than 32 levels (the most a producer here may send) is left out before amqplib sees it, as is one with a prototype to set, and named
 * in the header `surehop-unreadable`; every other header and property comes through byte by byte. Such a message is refused,
 * and never sent on, since its copy would not be the same: the broker moves and keeps it as it is. Not so where only headers of the
 * broker's own bookkeeping were forged, which are never sent on: those are left out, and the message is handled.
 */
import { HEADER, isBrokerHeader, MAX_HEADER_DEPTH } from '../message.ts'

/** What is needed of amqplib's connection: the bytes that came and were not read yet, and the reader of one frame. */
export interface FrameReader {
  rest: Buffer
  /** The largest payload of a frame, bytes, that is read; 0: any. */
  maxFrameSize: number
  recvFrame(): unknown
}

const HEADER_FRAME = 2
const FRAME_OVERHEAD = 8
/**
 * The broker adds headers of its own to a message (how often it was delivered, how it died) and sends the frame however large that
 * makes it: one that came in a frame as large as was agreed would end every connection that reads it again.
 */
const MAX_FRAME_BYTES = 1_048_576
const PAYLOAD_AT = 7
/** Of the payload: class, weight and size of the body come first. */
const FLAGS_AT = PAYLOAD_AT + 12
const [HAS_CONTENT_TYPE, HAS_CONTENT_ENCODING, HAS_HEADERS] = [0x8000, 0x4000, 0x2000]
/** A level takes at least its type and length: nothing shorter can be too deep. */
const LEVEL_BYTES = 5
const MAX_NAMED = 20
/** Two types of one meaning, a signed number of 64 bits: the broker takes both and hands out both, amqplib stumbles over the first. */
const [UNKNOWN_64, SIGNED_64] = [0x4c, 0x6c]

/** amqplib sets a field of this name like any other, and that replaces the prototype of the table, unless it is a number, a text or a truth value. */
const PROTOTYPE = Buffer.from('__proto__')
const HARMLESS = 'tbBsuIifldLS'

/** Changes what this connection reads from now on. An amqplib that reads in another way is left alone. */
export function withoutDeepHeaders(connection: Partial<FrameReader>): void {
  const { recvFrame } = connection
  if (typeof recvFrame !== 'function' || !Buffer.isBuffer(connection.rest)) return
  const { maxFrameSize = 0 } = connection
  if (maxFrameSize > 0) connection.maxFrameSize = Math.max(maxFrameSize, MAX_FRAME_BYTES)
  connection.recvFrame = function (this: FrameReader) {
    if (this.rest[0] === HEADER_FRAME) this.rest = shallow(this.rest)
    return recvFrame.call(this)
  }
}

/** The bytes, their first frame (of properties) without headers that amqplib cannot read. */
export function shallow(bytes: Buffer): Buffer {
  if (bytes.length < FLAGS_AT) return bytes
  const size = bytes.readUInt32BE(3)
  const frameEnd = size + FRAME_OVERHEAD
  if (bytes.length < frameEnd) return bytes
  const at = tableAt(bytes)
  if (at === undefined) return bytes
  const table = bytes.subarray(at + 4, at + 4 + bytes.readUInt32BE(at))
  if (table.length <= MAX_HEADER_DEPTH * LEVEL_BYTES && !table.includes(UNKNOWN_64) && !table.includes(PROTOTYPE))
    return bytes
  const kept = shallowTable(table)
  if (kept === table) return bytes
  const grown = kept.length - table.length
  const out = Buffer.concat([bytes.subarray(0, at), sized(kept), bytes.subarray(at + 4 + table.length)])
  out.writeUInt32BE(size + grown, 3)
  return out
}

function tableAt(bytes: Buffer): number | undefined {
  const flags = bytes.readUInt16BE(FLAGS_AT)
  if ((flags & HAS_HEADERS) === 0) return undefined
  let at = FLAGS_AT + 2
  if (flags & HAS_CONTENT_TYPE) at += 1 + bytes.readUInt8(at)
  if (flags & HAS_CONTENT_ENCODING) at += 1 + bytes.readUInt8(at)
  return at
}

function shallowTable(table: Buffer): Buffer {
  return everyReadable(table) ? table : withoutUnreadable(table)
}

/** Nearly always: then nothing needs to be made. */
function everyReadable(table: Buffer): boolean {
  for (let at = 0; at < table.length; ) {
    const valueAt = at + 1 + table.readUInt8(at)
    if (isPrototype(table, at) || !readable(table, valueAt)) return false
    at = endOf(table, valueAt)
  }
  return true
}

function withoutUnreadable(table: Buffer): Buffer {
  const kept: Buffer[] = []
  const names: string[] = []
  for (let at = 0; at < table.length; ) {
    const valueAt = at + 1 + table.readUInt8(at)
    const end = endOf(table, valueAt)
    if (isPrototype(table, at) || !readable(table, valueAt)) {
      const name = table.toString('utf8', at + 1, valueAt)
      if (names.length < MAX_NAMED && !isBrokerHeader(name)) names.push(name)
    } else kept.push(table.subarray(at, end))
    at = end
  }
  if (names.length === 0) return Buffer.concat(kept)
  const text = Buffer.from(names.join(', '))
  const name = Buffer.from(HEADER.unreadable)
  return Buffer.concat([...kept, Buffer.from([name.length]), name, Buffer.from('S'), sized(text)])
}

const [TABLE, ARRAY, TEXT, BYTES] = codes('FASx')

/** Bytes of the values whose size does not vary, by type. */
const WIDTH: ReadonlyMap<number, number> = new Map(
  Object.entries({ V: 0, tbB: 1, su: 2, Iif: 4, D: 5, lLdT: 8 }).flatMap(([types, width]) =>
    codes(types).map((type) => [type, width] as const),
  ),
)

function codes(types: string): number[] {
  return [...types].map((type) => type.charCodeAt(0))
}

/** Where a value ends. The broker has checked the lengths. @throws TypeError for a type it should not have let through */
function endOf(bytes: Buffer, at: number): number {
  const type = bytes.readUInt8(at)
  if (type === TEXT || type === BYTES || type === ARRAY || type === TABLE) return at + 5 + bytes.readUInt32BE(at + 1)
  const width = WIDTH.get(type)
  if (width === undefined) throw new TypeError(`unexpected type "${String.fromCharCode(type)}" in a header`)
  return at + 1 + width
}

/** Is the field at this place one that would replace the prototype of its table? */
function isPrototype(table: Buffer, at: number): boolean {
  const valueAt = at + 1 + table.readUInt8(at)
  if (valueAt - at !== 1 + PROTOTYPE.length || !table.subarray(at + 1, valueAt).equals(PROTOTYPE)) return false
  return !HARMLESS.includes(String.fromCharCode(table[valueAt]!))
}

/** Gives numbers of 64 bits the one type that amqplib knows. @returns false when it is nested too deep, or has a prototype to set */
function readable(bytes: Buffer, from: number): boolean {
  if (bytes[from] === UNKNOWN_64) bytes[from] = SIGNED_64
  return !isNested(bytes[from]) || nestedReadable(bytes, from)
}

function isNested(type: number | undefined): boolean {
  return type === TABLE || type === ARRAY
}

/** Without recursion. */
function nestedReadable(bytes: Buffer, from: number): boolean {
  const open: { readonly end: number; readonly named: boolean }[] = []
  const end = endOf(bytes, from)
  for (let at = from; at < end; ) {
    while (open.length > 0 && at >= open.at(-1)!.end) open.pop()
    if (open.at(-1)?.named) {
      if (isPrototype(bytes, at)) return false
      at += 1 + bytes.readUInt8(at)
    }
    const type = bytes[at]
    const after = endOf(bytes, at)
    const nested = isNested(type)
    if (type === UNKNOWN_64) bytes[at] = SIGNED_64
    if (nested) open.push({ end: after, named: type === TABLE })
    if (open.length > MAX_HEADER_DEPTH) return false
    at = nested ? at + 5 : after
  }
  return true
}

function sized(bytes: Buffer): Buffer {
  const length = Buffer.alloc(4)
  length.writeUInt32BE(bytes.length)
  return Buffer.concat([length, bytes])
}
