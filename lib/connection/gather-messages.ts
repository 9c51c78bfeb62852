/**
 * Gathers the small messages that are published on one channel in one turn of the event loop into one piece of memory, and hands it to
 * the channel at once; amqplib hands each message over by itself, through two streams.
 * Promises: the same bytes in the same order on each channel, handed over before the loop waits again; no message that was
 * not handed over when its channel was closed is written afterwards.
 * A large message is written as amqplib does it. An amqplib that works in another way, or writes other bytes, is left alone.
 */
import type { Writable } from 'node:stream'
import { BASIC_PROPERTIES, BASIC_PUBLISH, framesOf, headerFrameBytes, type SendMessage } from './amqplib-frames.ts'
import { type MessageParts, Slab } from './message-frames.ts'

type Fields = MessageParts['fields']

/** What is needed of amqplib's connection. */
export interface GatherableConnection {
  readonly channels: readonly ({ readonly buffer: Writable } | null)[]
  /** The largest frame that the broker takes, bytes. */
  readonly frameMax: number
  /** Read by the heartbeat. */
  sentSinceLastCheck: boolean
  sendMethod(channel: number, method: number, fields: Fields): boolean
  sendMessage: SendMessage
}

const SLAB_BYTES = 65_536
/** A larger body is worth a buffer of its own. */
const MAX_BODY_BYTES = 16_384
/** Room for what stands around a body; where it is not enough, amqplib encodes the message. */
const AROUND_BYTES = 2_048
const FRAME_OVERHEAD = 8
/** amqplib encodes the properties into so many bytes at most. */
const MAX_HEADER_FRAME_BYTES = 65_536

/** Changes how this connection sends messages from now on. */
export function gatherMessages(connection: Partial<GatherableConnection>): void {
  if (!isGatherable(connection)) return
  const { sendMethod, sendMessage } = connection
  const gathered = new Gathered(connection)
  connection.sendMethod = (...args) => {
    gathered.flush()
    return sendMethod.apply(connection, args)
  }
  connection.sendMessage = (...args) => {
    const [channel, method, fields, kind, properties, content] = args
    const known = method === BASIC_PUBLISH && kind === BASIC_PROPERTIES
    const buffer = known ? gathered.add(channel, { fields, properties, content }) : undefined
    if (buffer) return !buffer.writableNeedDrain
    gathered.flush()
    if (!known) return sendMessage.apply(connection, args)
    try {
      checkHeaderFrame(sendMessage, connection.frameMax, { fields, properties, content })
      return sendMessage.apply(connection, args)
    } catch (error) {
      throw inOurWords(error)
    }
  }
}

/** amqplib encodes headers in a buffer of a fixed size, and speaks of that. */
function inOurWords(error: unknown): unknown {
  const most = /^Encoded field table .* exceeds the (\d+) byte/.exec((error as Error).message)?.[1]
  if (most === undefined) return error
  const what = `expected headers of at most ${most} bytes together, got more: put large data into the body`
  return new RangeError(what, { cause: error })
}

/** amqplib writes the properties in one frame however large it is, and the broker closes the whole connection over it, again with each try. */
function checkHeaderFrame(sendMessage: SendMessage, frameMax: number, message: MessageParts): void {
  if (frameMax >= MAX_HEADER_FRAME_BYTES) return
  const bytes = headerFrameBytes(sendMessage, message)
  if (bytes > frameMax)
    throw new RangeError(
      `expected properties and headers of at most ${frameMax} bytes (frame_max of this broker), got ${bytes}: put large data into the body, or raise frame_max`,
    )
}

/** The messages of one channel that were not handed over yet. */
class Gathered {
  readonly #connection: GatherableConnection
  #slab = new Slab(0, 0)
  /** Where in the slab they begin. */
  #from = 0
  #buffer: Writable | undefined

  constructor(connection: GatherableConnection) {
    this.#connection = connection
  }

  /** @returns the stream that it will be handed to; undefined where it cannot be gathered */
  add(channel: number, message: MessageParts): Writable | undefined {
    const { channels, frameMax } = this.#connection
    const buffer = channels[channel]?.buffer
    if (!buffer || !Buffer.isBuffer(message.content)) return undefined
    const { length } = message.content
    if (length > MAX_BODY_BYTES || length + FRAME_OVERHEAD > frameMax) return undefined
    if (buffer !== this.#buffer || this.#slab.room < length + AROUND_BYTES) this.#begin(buffer, length)
    return this.#slab.write(channel, message) ? buffer : undefined
  }

  #begin(buffer: Writable, length: number): void {
    this.flush()
    if (this.#slab.room < length + AROUND_BYTES) this.#slab = new Slab(SLAB_BYTES, this.#connection.frameMax)
    this.#from = this.#slab.at
    this.#buffer = buffer
    process.nextTick(this.flush)
  }

  readonly flush = (): void => {
    const buffer = this.#buffer
    if (!buffer) return
    const { bytes, at } = this.#slab
    const from = this.#from
    this.#buffer = undefined
    // amqplib ends the stream of a channel that is closed; its number may be another's by now.
    if (at === from || buffer.writableEnded) return
    this.#connection.sentSinceLastCheck = true
    buffer.write(bytes.subarray(from, at))
  }
}

function isGatherable(connection: Partial<GatherableConnection>): connection is GatherableConnection {
  const { channels, frameMax, sendMethod, sendMessage } = connection
  return (
    Array.isArray(channels) &&
    typeof frameMax === 'number' &&
    typeof sendMethod === 'function' &&
    typeof sendMessage === 'function' &&
    agrees(sendMessage)
  )
}

/** One message with all that is plain: a later amqplib may encode it in another way, or need more than this to encode it. */
function agrees(sendMessage: SendMessage): boolean {
  const text = (name: string) => [name, `${name} é`] as const
  const message = {
    fields: { exchange: 'exchange', routingKey: 'é', mandatory: true, immediate: false },
    properties: {
      ...Object.fromEntries(TEXT_PROPERTIES.map(text)),
      headers: { text: 'é', yes: true, no: false, none: undefined, ...WHOLE_NUMBERS },
      deliveryMode: 2,
      priority: 0,
      timestamp: 0x1_2345_6789,
    },
    content: Buffer.from('body'),
  }
  const slab = new Slab(1_024, 1_024)
  try {
    return slab.write(1, message) && framesOf(sendMessage, 1, message).equals(slab.bytes.subarray(0, slab.at))
  } catch {
    return false
  }
}

/** Around the bounds of each width. */
const WHOLE_NUMBERS = Object.fromEntries(
  [0, 7, 15, 31, 52].flatMap((bits) => [2 ** bits - 1, 2 ** bits, -(2 ** bits), -(2 ** bits) - 1].map((n) => [n, n])),
)

const TEXT_PROPERTIES = [
  'contentType',
  'contentEncoding',
  'correlationId',
  'replyTo',
  'expiration',
  'messageId',
  'type',
  'userId',
  'appId',
  'clusterId',
]
