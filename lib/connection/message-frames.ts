/**
 * Encodes a message (AMQP 0-9-1: the frames of basic.publish, its properties and its body) straight into memory that is there already;
 * amqplib makes four buffers of each message, one of them zeroed, and copies between them.
 *
 * Promises: byte for byte what amqplib writes. What is not plain (a header that is neither a string, a boolean nor a whole number, a field
 * of the wrong type, too long for its field or the frame) is left to amqplib, which encodes or refuses it: then nothing was written.
 * Does NOT split a body: it must fit into one frame.
 */

/** What amqplib's connection is told of a message; the names are amqplib's. */
export interface MessageParts {
  readonly fields: Readonly<Record<string, unknown>>
  readonly properties: Readonly<Record<string, unknown>>
  readonly content: Buffer
}

const [METHOD, HEADER, BODY, FRAME_END] = [1, 2, 3, 0xce]
const FRAME_HEADER_BYTES = 7
const SHORT_TEXT = 128
const BASIC = 60
const BASIC_PUBLISH = 40
/** Types of header values. */
const [LONG_STRING, BOOLEAN, INT8, INT16, INT32, INT64] = [...'StbsIl'].map((type) => type.charCodeAt(0))

/** Memory that messages are written into, one behind the other. */
export class Slab {
  readonly bytes: Buffer
  /** Where the next message begins. */
  at = 0
  readonly #maxFrameBytes: number
  /** False once a message turned out not to be plain. */
  #plain = true

  constructor(bytes: number, maxFrameBytes: number) {
    this.bytes = Buffer.allocUnsafeSlow(bytes)
    this.#maxFrameBytes = maxFrameBytes
  }

  get room(): number {
    return this.bytes.length - this.at
  }

  /** @returns false where the message is not plain, or does not fit: nothing was written */
  write(channel: number, message: MessageParts): boolean {
    const from = this.at
    // A typed array ignores what is written beyond its end.
    if (this.#tryAll(channel, message) && this.at <= this.bytes.length) return true
    this.at = from
    return false
  }

  #tryAll(channel: number, { fields, properties, content }: MessageParts): boolean {
    try {
      this.#plain = fields['ticket'] === undefined
      this.#method(channel, fields)
      this.#header(channel, properties, content.length)
      if (content.length > 0) this.#body(channel, content)
      return this.#plain
    } catch {
      // A getter of the user's: half a frame would make the broker close the connection.
      return false
    }
  }

  #method(channel: number, fields: MessageParts['fields']): void {
    const from = this.#beginFrame(METHOD, channel)
    this.#uint16(BASIC)
    this.#uint16(BASIC_PUBLISH)
    this.#uint16(0)
    this.#shortText(fields['exchange'])
    this.#shortText(fields['routingKey'])
    this.#uint8((fields['mandatory'] ? 1 : 0) | (fields['immediate'] ? 2 : 0))
    this.#endFrame(from)
  }

  #header(channel: number, of: MessageParts['properties'], bodyBytes: number): void {
    const from = this.#beginFrame(HEADER, channel)
    this.#uint16(BASIC)
    this.#uint16(0)
    this.#uint64(bodyBytes)
    const flagsAt = this.at
    this.at += 2
    // Each writes its property, where there is one, and answers its flag: the order is that of the protocol.
    const flags =
      this.#textProperty(0x8000, of['contentType']) |
      this.#textProperty(0x4000, of['contentEncoding']) |
      this.#tableProperty(0x2000, of['headers']) |
      this.#byteProperty(0x1000, of['deliveryMode']) |
      this.#byteProperty(0x0800, of['priority']) |
      this.#textProperty(0x0400, of['correlationId']) |
      this.#textProperty(0x0200, of['replyTo']) |
      this.#textProperty(0x0100, of['expiration']) |
      this.#textProperty(0x0080, of['messageId']) |
      this.#timeProperty(0x0040, of['timestamp']) |
      this.#textProperty(0x0020, of['type']) |
      this.#textProperty(0x0010, of['userId']) |
      this.#textProperty(0x0008, of['appId']) |
      this.#textProperty(0x0004, of['clusterId'])
    this.bytes[flagsAt] = flags >>> 8
    this.bytes[flagsAt + 1] = flags
    this.#endFrame(from)
  }

  #body(channel: number, content: Buffer): void {
    const from = this.#beginFrame(BODY, channel)
    if (this.room >= content.length) this.bytes.set(content, this.at)
    this.at += content.length
    this.#endFrame(from)
  }

  #beginFrame(type: number, channel: number): number {
    const from = this.at
    this.#uint8(type)
    this.#uint16(channel)
    this.at = from + FRAME_HEADER_BYTES
    return from
  }

  #endFrame(from: number): void {
    this.#setUint32(from + 3, this.at - from - FRAME_HEADER_BYTES)
    this.#uint8(FRAME_END)
    if (this.at - from > this.#maxFrameBytes) this.#plain = false
  }

  #textProperty(flag: number, value: unknown): number {
    if (value === undefined || value === null) return 0
    this.#shortText(value)
    return flag
  }

  #byteProperty(flag: number, value: unknown): number {
    if (value === undefined || value === null) return 0
    if (!isInteger(value, 0xff)) this.#plain = false
    this.#uint8(value as number)
    return flag
  }

  #timeProperty(flag: number, value: unknown): number {
    if (value === undefined || value === null) return 0
    if (isInteger(value, Number.MAX_SAFE_INTEGER)) this.#uint64(value)
    else this.#plain = false
    return flag
  }

  #tableProperty(flag: number, table: unknown): number {
    if (table === undefined || table === null) return 0
    if (typeof table !== 'object') this.#plain = false
    const from = this.at
    this.at += 4
    // Inherited ones, too: amqplib's own publish() makes the headers that it is given a prototype.
    for (const name in table as Record<string, unknown>) this.#entry(name, (table as Record<string, unknown>)[name])
    this.#setUint32(from, this.at - from - 4)
    return flag
  }

  #entry(name: string, value: unknown): void {
    if (value === undefined) return
    this.#shortText(name)
    if (typeof value === 'string') {
      this.#uint8(LONG_STRING!)
      const from = this.at
      this.at += 4
      this.#text(value)
      this.#setUint32(from, this.at - from - 4)
    } else if (typeof value === 'boolean') {
      this.#uint8(BOOLEAN!)
      this.#uint8(value ? 1 : 0)
    } else if (typeof value === 'number') this.#integer(value)
    else this.#plain = false
  }

  /** In the shortest type that holds it. */
  #integer(value: number): void {
    if (!Number.isSafeInteger(value)) this.#plain = false
    const bits = value < 0 ? -1 - value : value
    if (bits < 0x80) {
      this.#uint8(INT8!)
      this.#uint8(value)
    } else if (bits < 0x8000) {
      this.#uint8(INT16!)
      this.#uint16(value)
    } else if (bits < 0x8000_0000) {
      this.#uint8(INT32!)
      this.#setUint32(this.at, value)
      this.at += 4
    } else {
      this.#uint8(INT64!)
      this.#uint64(value)
    }
  }

  #shortText(value: unknown): void {
    const from = this.at++
    if (typeof value === 'string') this.#text(value)
    else this.#plain = false
    const length = this.at - from - 1
    if (length > 0xff) this.#plain = false
    this.bytes[from] = length
  }

  /** Most texts are short and ASCII: to call the system's encoder would cost more than to write them. */
  #text(text: string): void {
    if (text.length > SHORT_TEXT) {
      this.#utf8(text)
      return
    }
    const { bytes, at } = this
    for (let i = 0; i < text.length; i++) {
      const unit = text.charCodeAt(i)
      if (unit > 0x7f) {
        this.#utf8(text)
        return
      }
      bytes[at + i] = unit
    }
    this.at = at + text.length
  }

  #utf8(text: string): void {
    this.at += Buffer.byteLength(text) <= this.room ? this.bytes.write(text, this.at) : this.bytes.length
  }

  #uint8(value: number): void {
    this.bytes[this.at++] = value
  }

  #uint16(value: number): void {
    this.bytes[this.at++] = value >>> 8
    this.bytes[this.at++] = value
  }

  #uint64(value: number): void {
    this.#setUint32(this.at, Math.floor(value / 0x1_0000_0000))
    this.#setUint32(this.at + 4, value >>> 0)
    this.at += 8
  }

  #setUint32(at: number, value: number): void {
    const { bytes } = this
    bytes[at] = value >>> 24
    bytes[at + 1] = value >>> 16
    bytes[at + 2] = value >>> 8
    bytes[at + 3] = value
  }
}

function isInteger(value: unknown, most: number): value is number {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) <= most
}
