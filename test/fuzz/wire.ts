// AMQP 0-9-1 by hand: a publisher that puts any bytes into the properties and the header table of a message.
//
// Promises: what it is given goes to the broker byte by byte; a publish resolves as the broker confirmed, returned or nacked
// it, and rejects with the broker's own words when it closed the channel or the connection over it. Does not promise anything
// about reading: it understands only the answers a publisher gets.

import { once } from 'node:events'
import { connect, type Socket } from 'node:net'

/** A value of a header table by its type on the wire. Texts may be bytes that are no text; lengths may lie. */
export type Field =
  | { readonly t: 'S' | 'x'; readonly v: Buffer; readonly length?: number }
  | { readonly t: 't' | 'b' | 'B' | 's' | 'u' | 'I' | 'i' | 'l' | 'L' | 'T'; readonly v: bigint }
  | { readonly t: 'f' | 'd'; readonly v: number }
  | { readonly t: 'D'; readonly places: number; readonly digits: number }
  | { readonly t: 'V' }
  | { readonly t: 'A'; readonly v: readonly Field[] }
  | { readonly t: 'F'; readonly v: Table }
  /** So many tables (or lists) inside one another. */
  | { readonly t: 'deep'; readonly of: 'A' | 'F'; readonly levels: number }
  /** Any bytes at all, its type included. */
  | { readonly t: 'bytes'; readonly v: Buffer }

/** Names may come twice, and need not be text. */
export type Table = readonly (readonly [Buffer, Field])[]

/** Basic properties as they go out; absent ones are not sent. */
export interface Properties {
  readonly contentType?: Buffer
  readonly contentEncoding?: Buffer
  readonly headers?: Table
  readonly deliveryMode?: number
  readonly priority?: number
  readonly correlationId?: Buffer
  readonly replyTo?: Buffer
  readonly expiration?: Buffer
  readonly messageId?: Buffer
  readonly timestamp?: bigint
  readonly type?: Buffer
  readonly userId?: Buffer
  readonly appId?: Buffer
  readonly clusterId?: Buffer
}

/** One message on its way. */
export interface RawMessage {
  readonly exchange: string
  readonly routingKey: Buffer
  readonly properties: Properties
  readonly body: Buffer
}

const WIDTHS = { b: 1, B: 1, s: 2, u: 2, I: 4, i: 4, l: 8, L: 8, T: 8 } as const

/** The bytes of a table, its length in front. */
export function tableBytes(table: Table): Buffer {
  return sized(Buffer.concat(table.flatMap(([name, field]) => [shortBytes(name), fieldBytes(field)])))
}

/** The bytes of a value, its type in front. */
export function fieldBytes(field: Field): Buffer {
  switch (field.t) {
    case 'S':
    case 'x':
      return tagged(field.t, sized(field.v, field.length))
    case 't':
      return tagged('t', Buffer.from([Number(BigInt.asUintN(8, field.v))]))
    case 'f':
    case 'd':
      return tagged(field.t, floatBytes(field.t, field.v))
    case 'D':
      return tagged('D', Buffer.concat([Buffer.from([field.places]), wholeBytes(4, BigInt(field.digits))]))
    case 'V':
      return Buffer.from('V')
    case 'A':
      return tagged('A', sized(Buffer.concat(field.v.map(fieldBytes))))
    case 'F':
      return tagged('F', tableBytes(field.v))
    case 'deep':
      return deepBytes(field.of, field.levels)
    case 'bytes':
      return field.v
    default:
      return tagged(field.t, wholeBytes(WIDTHS[field.t], field.v))
  }
}

/** From the inside out, without recursion: a table has a name of no characters, a list has none. */
function deepBytes(of: 'A' | 'F', levels: number): Buffer {
  const name = of === 'F' ? 1 : 0
  const step = 5 + name
  const out = Buffer.alloc(levels * step)
  for (let level = 0; level < levels; level++) {
    const at = level * step
    out.write(of, at, 'latin1')
    out.writeUInt32BE(Math.max(0, (levels - level - 1) * step), at + 1)
  }
  // The name of what is inside stands behind the length, and the innermost holds nothing.
  return out.subarray(0, levels * step - name)
}

function tagged(tag: string, bytes: Buffer): Buffer {
  return Buffer.concat([Buffer.from(tag, 'latin1'), bytes])
}

function sized(bytes: Buffer, length = bytes.length): Buffer {
  return Buffer.concat([wholeBytes(4, BigInt(length)), bytes])
}

function shortBytes(bytes: Buffer): Buffer {
  return Buffer.concat([Buffer.from([bytes.length]), bytes])
}

function wholeBytes(width: number, value: bigint): Buffer {
  const hex = BigInt.asUintN(8 * width, value).toString(16)
  return Buffer.from(hex.padStart(2 * width, '0'), 'hex')
}

function floatBytes(tag: 'f' | 'd', value: number): Buffer {
  const out = Buffer.alloc(tag === 'f' ? 4 : 8)
  if (tag === 'f') out.writeFloatBE(value)
  else out.writeDoubleBE(value)
  return out
}

/** In the order of the specification; the first has the highest bit. */
const ORDER = [
  'contentType',
  'contentEncoding',
  'headers',
  'deliveryMode',
  'priority',
  'correlationId',
  'replyTo',
  'expiration',
  'messageId',
  'timestamp',
  'type',
  'userId',
  'appId',
  'clusterId',
] as const

function propertyBytes(properties: Properties): Buffer {
  let flags = 0
  const parts: Buffer[] = []
  ORDER.forEach((name, i) => {
    const value = properties[name]
    if (value === undefined) return
    flags |= 1 << (15 - i)
    if (typeof value === 'bigint') parts.push(wholeBytes(8, value))
    else if (typeof value === 'number') parts.push(Buffer.from([value]))
    else parts.push(Buffer.isBuffer(value) ? shortBytes(value) : tableBytes(value as Table))
  })
  return Buffer.concat([wholeBytes(2, BigInt(flags)), ...parts])
}

const [METHOD, HEADER, BODY, HEARTBEAT, END] = [1, 2, 3, 8, 0xce]
const FRAME_MAX = 131_072
const OVERHEAD = 8
const CHANNELS = 16n

function frame(type: number, channel: number, payload: Buffer): Buffer {
  const head = Buffer.alloc(7)
  head.writeUInt8(type, 0)
  head.writeUInt16BE(channel, 1)
  head.writeUInt32BE(payload.length, 3)
  return Buffer.concat([head, payload, Buffer.from([END])])
}

/** Bytes of the header frame of a message: the broker takes no larger one than {@link FRAME_MAX}. */
export function headerFrameBytes({ properties }: RawMessage): number {
  return propertyBytes(properties).length + 12 + OVERHEAD
}

/** The largest frame the publisher and the broker agree on. */
export { FRAME_MAX }

/** How a publish ended. */
export type Outcome = 'acked' | 'returned' | 'nacked'

interface Waiting {
  returned: boolean
  readonly resolve: (outcome: Outcome) => void
  readonly reject: (error: Error) => void
}

const name = (classId: number, methodId: number) => `${classId}.${methodId}`

/** One connection with one confirming channel. */
export class RawPublisher {
  readonly #socket: Socket
  readonly #waiting = new Map<bigint, Waiting>()
  #input: Buffer = Buffer.alloc(0)
  #tag = 0n
  #lastReturned: Waiting | undefined
  #method: ((method: string, args: Buffer) => void) | undefined
  /** Why it is of no use any more. */
  broken: Error | undefined

  private constructor(socket: Socket) {
    this.#socket = socket
    socket.on('data', (data) => this.#read(data))
    socket.on('error', (error) => this.#fail(error))
    socket.on('close', () => this.#fail(new Error('the broker closed the socket')))
  }

  /** Connects, opens a channel and switches confirms on. */
  static async open(url: string): Promise<RawPublisher> {
    const { hostname, port, username, password } = new URL(url)
    const socket = connect({ host: hostname, port: Number(port || 5672), noDelay: true })
    const publisher = new RawPublisher(socket)
    await once(socket, 'connect')
    socket.write(Buffer.from('AMQP\x00\x00\x09\x01', 'latin1'))
    await publisher.#awaits('10.10')
    await publisher.#handshake(decodeURIComponent(username), decodeURIComponent(password))
    return publisher
  }

  async #handshake(user: string, password: string): Promise<void> {
    const login = Buffer.from(`\0${user}\0${password}`)
    const startOk = [tableBytes([]), shortBytes(Buffer.from('PLAIN')), sized(login), shortBytes(Buffer.from('en_US'))]
    await this.#call(0, 10, 11, Buffer.concat(startOk), '10.30')
    const tuneOk = Buffer.concat([wholeBytes(2, CHANNELS), wholeBytes(4, BigInt(FRAME_MAX)), wholeBytes(2, 0n)])
    this.#send(0, 10, 31, tuneOk)
    await this.#call(0, 10, 40, Buffer.concat([shortBytes(Buffer.from('/')), Buffer.from([0, 0])]), '10.41')
    await this.#call(1, 20, 10, Buffer.from([0]), '20.11')
    await this.#call(1, 85, 10, Buffer.from([0]), '85.11')
  }

  /** Sends a message, mandatory. */
  publish(message: RawMessage): Promise<Outcome> {
    if (this.broken) return Promise.reject(this.broken)
    const { exchange, routingKey, properties, body } = message
    const args = [wholeBytes(2, 0n), shortBytes(Buffer.from(exchange)), shortBytes(routingKey), Buffer.from([1])]
    const method = Buffer.concat([wholeBytes(2, 60n), wholeBytes(2, 40n), ...args])
    const size = wholeBytes(8, BigInt(body.length))
    const head = Buffer.concat([wholeBytes(2, 60n), wholeBytes(2, 0n), size, propertyBytes(properties)])
    const frames = [frame(METHOD, 1, method), frame(HEADER, 1, head)]
    for (let at = 0; at < body.length; at += FRAME_MAX - OVERHEAD)
      frames.push(frame(BODY, 1, body.subarray(at, at + FRAME_MAX - OVERHEAD)))
    const tag = ++this.#tag
    return new Promise((resolve, reject) => {
      this.#waiting.set(tag, { returned: false, resolve, reject })
      this.#socket.write(Buffer.concat(frames))
    })
  }

  close(): void {
    this.#socket.destroy()
  }

  #send(channel: number, classId: number, methodId: number, args: Buffer): void {
    this.#socket.write(
      frame(METHOD, channel, Buffer.concat([wholeBytes(2, BigInt(classId)), wholeBytes(2, BigInt(methodId)), args])),
    )
  }

  async #call(channel: number, classId: number, methodId: number, args: Buffer, answer: string): Promise<void> {
    const answered = this.#awaits(answer)
    this.#send(channel, classId, methodId, args)
    await answered
  }

  #awaits(wanted: string): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#method = (method) => {
        if (method === wanted) resolve()
        else if (method === 'failed') reject(this.broken)
      }
    })
  }

  #read(data: Buffer): void {
    this.#input = Buffer.concat([this.#input, data])
    while (this.#input.length >= OVERHEAD) {
      const size = this.#input.readUInt32BE(3)
      if (this.#input.length < size + OVERHEAD) return
      const type = this.#input.readUInt8(0)
      const payload = this.#input.subarray(7, 7 + size)
      this.#input = this.#input.subarray(size + OVERHEAD)
      if (type === METHOD) this.#answered(name(payload.readUInt16BE(0), payload.readUInt16BE(2)), payload.subarray(4))
      if (type === HEARTBEAT) this.#socket.write(frame(HEARTBEAT, 0, Buffer.alloc(0)))
    }
  }

  #answered(method: string, args: Buffer): void {
    if (method === '60.80' || method === '60.120') this.#confirmed(args, method === '60.80' ? 'acked' : 'nacked')
    else if (method === '60.50') this.#returned()
    else if (method === '20.40' || method === '10.50') this.#closed(args)
    else this.#method?.(method, args)
  }

  /** A return comes before its confirm, and names no tag. */
  #returned(): void {
    const [only, ...others] = this.#waiting.values()
    if (others.length > 0) this.#fail(new Error('a message was returned while several were under way'))
    else this.#lastReturned = only
  }

  #confirmed(args: Buffer, outcome: Outcome): void {
    const tag = args.readBigUInt64BE(0)
    const multiple = args.readUInt8(8) === 1
    for (const [own, waiting] of this.#waiting) {
      if (own > tag) break
      if (own !== tag && !multiple) continue
      this.#waiting.delete(own)
      waiting.resolve(waiting === this.#lastReturned ? 'returned' : outcome)
    }
  }

  #closed(args: Buffer): void {
    const text = args.toString('utf8', 3, 3 + args.readUInt8(2))
    this.#fail(new Error(`the broker closed: ${args.readUInt16BE(0)} ${text}`))
  }

  #fail(error: Error): void {
    if (this.broken) return
    this.broken = error
    this.#method?.('failed', Buffer.alloc(0))
    for (const { reject } of this.#waiting.values()) reject(error)
    this.#waiting.clear()
    this.#socket.destroy()
  }
}
