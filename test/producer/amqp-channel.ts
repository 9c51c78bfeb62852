// A confirm channel of amqplib itself, with its own bookkeeping of confirms, but without a connection: what it hears from the broker,
// the test says. Its class is not exported, and so is taken from its file; only real channels turn one `multiple` into many answers.

import type { EventEmitter } from 'node:events'
import type { ConfirmChannel } from 'amqplib'

/** What the broker can say. */
export interface Words {
  readonly ack: { readonly deliveryTag: number; readonly multiple: boolean }
  readonly nack: { readonly deliveryTag: number; readonly multiple: boolean }
  readonly return: { readonly messageId: string }
  readonly close: { readonly replyCode: number; readonly replyText: string; classId: number; methodId: number }
}

/** The channel, and the broker's side of it. */
export interface AmqpChannel extends ConfirmChannel {
  hear<W extends keyof Words>(what: W, fields: Words[W]): void
  /** The connection is gone. */
  lose(): void
}

/** Called with the properties and the body of what is published; may throw as amqplib's encoder does. */
export type Written = (properties: object, content: Buffer) => void

type Frame = { readonly id: number; readonly fields: object; readonly size?: number }
type Bare = EventEmitter & {
  accept(frame: Frame): void
  toClosed(why: string): void
  setOptions(options: object): void
  open(): Promise<unknown>
  rpc(method: number, fields: object, expected: number): Promise<unknown>
}
type Definitions = Readonly<Record<string, number>>

const amqplib = new URL('lib/', import.meta.resolve('amqplib'))
const load = async (file: string) => (await import(new URL(file, amqplib).href)).default
const { ConfirmChannel: Made } = (await load('channel_model.js')) as { ConfirmChannel: new (line: object) => Bare }
const defs = (await load('defs.js')) as Definitions

/** Opens one, as amqplib does. */
export async function openChannel(written: Written): Promise<AmqpChannel> {
  const answers = new Map([
    [defs['ChannelOpen'], defs['ChannelOpenOk']],
    [defs['ConfirmSelect'], defs['ConfirmSelectOk']],
    [defs['ChannelClose'], defs['ChannelCloseOk']],
  ])
  const line = {
    freshChannel: () => 1,
    releaseChannel: () => {},
    sendMethod: (_: number, method: number) => {
      const id = answers.get(method)
      if (id !== undefined) queueMicrotask(() => closed || bare.accept({ id, fields: {} }))
    },
    sendMessage: (_n: number, _m: number, _f: object, _p: number, properties: object, content: Buffer) => {
      written(properties, content)
      return true
    },
  }
  // A connection drops what is for a channel that is no more.
  let closed = false
  const bare = new Made(line)
  bare.on('close', () => {
    closed = true
  })
  bare.setOptions({})
  await bare.open()
  await bare.rpc(defs['ConfirmSelect']!, { nowait: false }, defs['ConfirmSelectOk']!)
  const hear = (what: keyof Words, fields: Words[keyof Words]) => {
    for (const frame of framesOf(what, fields)) bare.accept(frame)
  }
  return Object.assign(bare, { hear, lose: () => bare.toClosed('lost') }) as unknown as AmqpChannel
}

function framesOf(what: keyof Words, fields: Words[keyof Words]): Frame[] {
  if (what === 'ack') return [{ id: defs['BasicAck']!, fields }]
  if (what === 'nack') return [{ id: defs['BasicNack']!, fields }]
  if (what === 'close') return [{ id: defs['ChannelClose']!, fields }]
  const { messageId } = fields as Words['return']
  const reason = { replyCode: 312, replyText: 'NO_ROUTE', exchange: '', routingKey: 'q' }
  return [
    { id: defs['BasicReturn']!, fields: reason },
    { id: defs['BasicProperties']!, fields: { messageId, headers: {} }, size: 0 },
  ]
}
