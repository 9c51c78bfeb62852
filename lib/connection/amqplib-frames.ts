/**
 * What amqplib itself would write of a message, without a connection. For the check, once per connection, that our own encoding is
 * still amqplib's; and for messages that amqplib encodes, where the broker takes only small frames.
 */
import type { MessageParts } from './message-frames.ts'

/** `sendMessage` of amqplib's connection. */
export type SendMessage = (
  channel: number,
  method: number,
  fields: MessageParts['fields'],
  kind: number,
  properties: MessageParts['properties'],
  content: Buffer,
) => boolean

/** Class 60, method 40: basic.publish, as amqplib numbers it. */
export const BASIC_PUBLISH = 0x3c_0028
/** The class of its properties. */
export const BASIC_PROPERTIES = 60

/**
 * The body must be small enough for one frame.
 * @throws what amqplib throws when it cannot encode a message
 */
export function framesOf(
  sendMessage: SendMessage,
  channel: number,
  { fields, properties, content }: MessageParts,
): Buffer {
  const chunks: Buffer[] = []
  const buffer = { write: (chunk: Buffer) => chunks.push(chunk) > 0 }
  const sendContent = () => true
  const connection = { channels: { [channel]: { buffer } }, frameMax: 0xffff_ffff, sendContent }
  sendMessage.call(connection, channel, BASIC_PUBLISH, fields, BASIC_PROPERTIES, properties, content)
  return Buffer.concat(chunks)
}

/** The frame of the properties, headers among them, in bytes. @throws as {@link framesOf} */
export function headerFrameBytes(sendMessage: SendMessage, parts: MessageParts): number {
  const frames = framesOf(sendMessage, 1, { ...parts, content: Buffer.alloc(0) })
  const methodFrame = frames.readUInt32BE(3) + 8
  return frames.length - methodFrame
}
