/**
 * Gathers the small messages that are published on one channel in one turn of the event loop into one piece of memory, and hands it to
 * the channel at once; amqplib hands each message over by itself, through two streams.
 * Promises: the same bytes in the same order on each channel, handed over before the loop waits again; no message that was
 * not handed over when its channel was closed is written afterwards.
 * A large message is written as amqplib does it. An amqplib that works in another way is left alone.
 */
import type { Writable } from 'node:stream'
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
  sendMessage(
    channel: number,
    method: number,
    fields: Fields,
    kind: number,
    properties: Fields,
    content: Buffer,
  ): boolean
}

const SLAB_BYTES = 65_536
/** A larger body is worth a buffer of its own. */
const MAX_BODY_BYTES = 16_384
/** Room for what stands around a body; where it is not enough, amqplib encodes the message. */
const AROUND_BYTES = 2_048
const FRAME_OVERHEAD = 8

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
    const [channel, , fields, , properties, content] = args
    const buffer = gathered.add(channel, { fields, properties, content })
    if (buffer) return !buffer.writableNeedDrain
    gathered.flush()
    return sendMessage.apply(connection, args)
  }
}

/** The messages of one channel that were not handed over yet. */
class Gathered {
  readonly #connection: GatherableConnection
  #slab = new Slab(0)
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
    if (this.#slab.room < length + AROUND_BYTES) this.#slab = new Slab(SLAB_BYTES)
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
    typeof sendMessage === 'function'
  )
}
