// Between this process and the broker, in this process: every frame of AMQP is passed on by itself, and those that matter are steps.
//
//   to the broker: before (not passed on), sent (passed on to its last byte; the answer is unknown)
//   from the broker: arrived (this process has it, its client library does not)
//
// Promises: frames are whole and in order, so that of three messages written in one go the broker may get one or two.
// Does not promise back-pressure: for the small flows of tests.

import { connect, createServer, type Socket } from 'node:net'
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

interface Method {
  /** Class and method, as `60,40`. */
  readonly id: string
  readonly payload: Buffer
}

const PROTOCOL_HEADER_BYTES = 8
const FRAME = { method: 1, header: 2, body: 3 } as const
const WITH_CONTENT = new Set(['60,40', '60,50', '60,60', '60,71'])

/** One direction of one connection. */
class Way {
  readonly #to: Socket
  readonly #watcher: Watcher
  #unframed: number
  #rest: Buffer = Buffer.alloc(0)
  /** Channel -> the method whose content is on its way, and how many bytes are still to come. */
  readonly #open = new Map<number, { readonly method: Method; left: number }>()

  constructor(to: Socket, watcher: Watcher, unframed: number) {
    this.#to = to
    this.#watcher = watcher
    this.#unframed = unframed
  }

  take(bytes: Buffer): void {
    this.#rest = this.#rest.length > 0 ? Buffer.concat([this.#rest, bytes]) : bytes
    for (let length = this.#nextLength(); length <= this.#rest.length; length = this.#nextLength()) {
      const frame = this.#rest.subarray(0, length)
      this.#rest = this.#rest.subarray(length)
      if (this.#unframed > 0) this.#to.write(frame)
      else this.#pass(frame)
      this.#unframed = 0
    }
  }

  /** Type, channel, size, payload, end. */
  #nextLength(): number {
    if (this.#unframed > 0) return this.#unframed
    return this.#rest.length < 7 ? Number.POSITIVE_INFINITY : 8 + this.#rest.readUInt32BE(3)
  }

  #pass(frame: Buffer): void {
    const [type, channel, payload] = [frame[0], frame.readUInt16BE(1), frame.subarray(7, -1)]
    if (type === FRAME.method) this.#passMethod(frame, channel, payload)
    else if (type === FRAME.header || type === FRAME.body) this.#passContent(frame, channel, payload)
    else this.#to.write(frame)
  }

  #passMethod(frame: Buffer, channel: number, payload: Buffer): void {
    const method = { id: `${payload.readUInt16BE(0)},${payload.readUInt16BE(2)}`, payload }
    this.#watcher.before(method)
    this.#to.write(frame)
    if (WITH_CONTENT.has(method.id)) this.#open.set(channel, { method, left: Number.NaN })
    else this.#watcher.after(method)
  }

  #passContent(frame: Buffer, channel: number, payload: Buffer): void {
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
