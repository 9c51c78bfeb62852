// Between this process and the broker, in this process: every frame of AMQP is passed on by itself, and those that matter are steps.
//
//   to the broker: before (not passed on), sent (passed on to its last byte; the answer is unknown)
//   from the broker: arrived (this process has it, its client library does not)
//
// Promises: frames are whole and in order, so that of three messages written in one go the broker may get one or two.
// Does not promise back-pressure: for the small flows of tests.

import { connect, createServer, type Socket } from 'node:net'
import {
  contentsOf,
  FRAME,
  FrameCutter,
  type Method,
  methodOf,
  PROTOCOL_HEADER_BYTES,
} from '../../support/amqp-frames.ts'
import type { Steps } from './steps.ts'

/** Starts the tap; @returns the URL to connect to instead. `nameOf` shortens names of queues and exchanges. */
export async function startTap(url: string, steps: Steps, nameOf: (name: string) => string): Promise<string> {
  const target = new URL(url)
  const broker = { host: target.hostname, port: Number(target.port || 5672) }
  const listener = createServer((client) => {
    const server = connect({ ...broker, noDelay: true })
    client.setNoDelay(true)
    for (const socket of [client, server]) socket.on('error', () => {})
    client.on('close', () => server.destroy())
    server.on('close', () => client.destroy())
    const up = new Way(server, new ToBroker(steps, nameOf), PROTOCOL_HEADER_BYTES)
    const down = new Way(client, new FromBroker(steps, nameOf), 0)
    client.on('data', (bytes) => up.take(bytes))
    server.on('data', (bytes) => down.take(bytes))
  })
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve))
  listener.unref()
  target.hostname = '127.0.0.1'
  target.port = String((listener.address() as { port: number }).port)
  return target.href
}

/** What is told of a method before and after it was passed on, its content included. */
interface Watcher {
  before(method: Method): void
  after(method: Method): void
}

const WITH_CONTENT = new Set(['60,40', '60,50', '60,60', '60,71'])

/** One direction of one connection. */
class Way {
  readonly #to: Socket
  readonly #watcher: Watcher
  readonly #frames: FrameCutter
  /** Channel -> the method whose content is on its way, and how many bytes are still to come. */
  readonly #open = new Map<number, { readonly method: Method; left: number }>()

  constructor(to: Socket, watcher: Watcher, unframed: number) {
    this.#to = to
    this.#watcher = watcher
    this.#frames = new FrameCutter(unframed)
  }

  take(bytes: Buffer): void {
    for (const frame of this.#frames.take(bytes)) this.#pass(frame)
  }

  #pass(frame: Buffer): void {
    const method = methodOf(frame)
    if (method) this.#passMethod(frame, method)
    else if (frame[0] === FRAME.header || frame[0] === FRAME.body) this.#passContent(frame)
    else this.#to.write(frame)
  }

  #passMethod(frame: Buffer, method: Method): void {
    this.#watcher.before(method)
    this.#to.write(frame)
    if (WITH_CONTENT.has(method.id)) this.#open.set(contentsOf(frame).channel, { method, left: Number.NaN })
    else this.#watcher.after(method)
  }

  #passContent(frame: Buffer): void {
    const { channel, payload } = contentsOf(frame)
    this.#to.write(frame)
    const open = this.#open.get(channel)
    if (!open) return
    open.left = frame[0] === FRAME.header ? Number(payload.readBigUInt64BE(4)) : open.left - payload.length
    if (open.left > 0) return
    this.#open.delete(channel)
    this.#watcher.after(open.method)
  }
}

/** A short string of the protocol. */
function shortText(payload: Buffer, at: number): { readonly text: string; readonly next: number } {
  const next = at + 1 + payload.readUInt8(at)
  return { text: payload.toString('utf8', at + 1, next), next }
}

class ToBroker implements Watcher {
  readonly #steps: Steps
  readonly #nameOf: (name: string) => string

  constructor(steps: Steps, nameOf: (name: string) => string) {
    this.#steps = steps
    this.#nameOf = nameOf
  }

  before(method: Method): void {
    const name = this.#name(method)
    if (name) this.#steps.reach(name, 'before')
  }

  after(method: Method): void {
    const name = this.#name(method)
    if (name) this.#steps.reach(name, 'sent')
  }

  #name({ id, payload }: Method): string | undefined {
    const plain = { '60,80': 'ack', '60,120': 'nack', '60,90': 'reject', '60,70': 'get', '60,20': 'consume' }[id]
    const declares = { '40,10': 'declare exchange', '50,10': 'declare queue', '50,20': 'bind queue' }[id]
    if (id !== '60,40') return plain ?? declares
    const exchange = shortText(payload, 6)
    return `publish ${this.#nameOf(exchange.text || shortText(payload, exchange.next).text)}`
  }
}

class FromBroker implements Watcher {
  readonly #steps: Steps
  readonly #nameOf: (name: string) => string

  constructor(steps: Steps, nameOf: (name: string) => string) {
    this.#steps = steps
    this.#nameOf = nameOf
  }

  before(method: Method): void {
    const name = this.#name(method)
    if (name) this.#steps.reach(name, 'arrived')
  }

  after(): void {}

  #name({ id, payload }: Method): string | undefined {
    if (id !== '60,60') return { '60,80': 'confirm', '60,120': 'nacked', '60,50': 'returned', '60,71': 'got' }[id]
    // Consumer tag, delivery tag, redelivered, exchange, routing key.
    const exchange = shortText(payload, shortText(payload, 4).next + 9)
    return `delivery ${this.#nameOf(exchange.text || shortText(payload, exchange.next).text)}`
  }
}
