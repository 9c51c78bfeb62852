// A TCP proxy on loopback in front of a broker, Redis or database: the faults of a network, on command.
//
//   passing <-> stalled | swallowing | swallowing acks | delayed | narrow (per direction);  accepting <-> refusing
//
// Promises: bytes keep their order; `stall` fills the real socket buffers, as a dead peer would; swallowing one direction leaves
// the other alone, as a half-open connection would; `refuse` gives ECONNREFUSED; `close` ends all connections. What is swallowed
// is lost for good: cut the connections afterwards. One fault per direction: the last one counts.
//
// Events: `connection` (one more came), `disconnection` (one ended), `data` (direction, bytes), told before the bytes are
// passed on, so that a listener can cut, stall or swallow at exactly these bytes.

import { EventEmitter } from 'node:events'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { AckSieve } from './ack-sieve.ts'
import { Bandwidth } from './bandwidth.ts'
import { freePort } from './ports.ts'
import { Pump } from './pump.ts'

/** Which way bytes go. */
export type Direction = 'to-server' | 'to-client'

const BOTH: readonly Direction[] = ['to-server', 'to-client']

interface Link {
  readonly client: Socket
  readonly server: Socket
  readonly pumps: Readonly<Record<Direction, Pump>>
}

/** Starts a proxy in front of the server of `url`, such as `process.env.AMQP_URL`. */
export async function startProxy(url: string): Promise<TcpProxy> {
  const proxy = new TcpProxy(url, await freePort())
  await proxy.accept()
  return proxy
}

/** See the head of this file. */
export class TcpProxy extends EventEmitter<{ connection: []; disconnection: []; data: [Direction, Buffer] }> {
  /** The URL to give to the client. */
  readonly url: string
  readonly port: number
  /** How many connections were accepted in all. */
  accepted = 0
  /** How many acks were swallowed in all. */
  acksSwallowed = 0
  readonly #target: { readonly host: string; readonly port: number }
  readonly #isAmqp: boolean
  readonly #links = new Set<Link>()
  readonly #faults: Record<Direction, Fault> = { 'to-server': { kind: 'pass' }, 'to-client': { kind: 'pass' } }
  #listener: Server | undefined

  constructor(url: string, port: number) {
    super()
    const target = new URL(url)
    this.#target = { host: target.hostname, port: Number(target.port || USUAL_PORTS[target.protocol]) }
    this.#isAmqp = target.protocol === 'amqp:'
    target.hostname = '127.0.0.1'
    target.port = `${port}`
    this.url = target.toString()
    this.port = port
  }

  /** How many connections are open now. */
  get connections(): number {
    return this.#links.size
  }

  /**
   * Ends all connections: `rst` as a crash would, `fin` as an orderly end would. New ones are welcome.
   * @param from only those that come from one of these ports of the clients
   */
  cut(how: 'rst' | 'fin' = 'rst', from?: readonly number[]): void {
    for (const { client, server } of this.#links) {
      if (from && !from.includes(client.remotePort ?? 0)) continue
      if (how === 'rst') client.resetAndDestroy()
      else client.end().resume()
      server.destroy()
    }
  }

  /** New connections get ECONNREFUSED; those that are open stay. */
  async refuse(): Promise<void> {
    this.#listener?.close()
    this.#listener = undefined
  }

  /** Welcomes new connections again. */
  async accept(): Promise<void> {
    if (this.#listener) return
    const listener = createServer({ allowHalfOpen: true }, (client) => this.#link(client))
    this.#listener = listener
    await new Promise<void>((resolve, reject) => {
      listener.once('error', reject).listen({ port: this.port, host: '127.0.0.1' }, resolve)
    })
  }

  /** Bytes stay where they are, on new connections too, until `resume`. */
  stall(direction?: Direction): void {
    this.#apply({ kind: 'stall' }, direction)
  }

  /** Bytes are read and thrown away until `resume`. */
  swallow(direction?: Direction): void {
    this.#apply({ kind: 'swallow' }, direction)
  }

  /** Bytes arrive this many ms later until `resume`. */
  delay(delayMs: number, direction?: Direction): void {
    this.#apply({ kind: 'delay', delayMs }, direction)
  }

  /**
   * All goes on but acks, which are thrown away until `resume`: to the client, publisher confirms, nacks included; to the
   * server, what consumers settle. For a proxy of an `amqp:` URL.
   */
  swallowAcks(direction?: Direction): void {
    if (!this.#isAmqp) throw new Error(`expected a proxy of an amqp: URL, the only one with acks, got ${this.url}`)
    this.#apply({ kind: 'swallow-acks' }, direction)
  }

  /** So many bytes per second in all, for each direction by itself, until `resume`. */
  throttle(bytesPerSecond: number, direction?: Direction): void {
    for (const way of direction ? [direction] : BOTH) {
      this.#apply({ kind: 'throttle', bandwidth: new Bandwidth(bytesPerSecond) }, way)
    }
  }

  /** Back to normal: passes on what was stalled, and welcomes new connections. */
  async resume(): Promise<void> {
    this.#apply({ kind: 'pass' })
    await this.accept()
  }

  /** Ends all connections and stops listening. */
  async close(): Promise<void> {
    await this.refuse()
    for (const { client, server } of this.#links) {
      client.destroy()
      server.destroy()
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  #apply(fault: Fault, direction?: Direction): void {
    for (const way of direction ? [direction] : BOTH) {
      this.#faults[way] = fault
      for (const { pumps } of this.#links) pumps[way].turn(fault)
    }
  }

  #link(client: Socket): void {
    const server = connect({ ...this.#target, noDelay: true, allowHalfOpen: true })
    client.setNoDelay(true)
    const pump = (way: Direction, from: Socket, to: Socket) => {
      const sieve = this.#isAmqp ? new AckSieve(way, () => this.acksSwallowed++) : undefined
      return new Pump({ from, to, sieve, tell: (bytes) => this.emit('data', way, bytes) }, this.#faults[way])
    }
    const pumps = { 'to-server': pump('to-server', client, server), 'to-client': pump('to-client', server, client) }
    const link = { client, server, pumps }
    this.#links.add(link)
    this.accepted++
    client.once('close', () => this.#unlink(link))
    server.once('error', () => client.resetAndDestroy())
    this.emit('connection')
  }

  #unlink(link: Link): void {
    link.server.destroy()
    if (this.#links.delete(link)) this.emit('disconnection')
  }
}

/** What happens to the bytes of one direction. */
export type Fault =
  | { readonly kind: 'pass' | 'stall' | 'swallow' | 'swallow-acks' }
  | { readonly kind: 'delay'; readonly delayMs: number }
  | { readonly kind: 'throttle'; readonly bandwidth: Bandwidth }

const USUAL_PORTS: Readonly<Record<string, number>> = {
  'amqp:': 5672,
  'redis:': 6379,
  'postgres:': 5432,
  'postgresql:': 5432,
}
