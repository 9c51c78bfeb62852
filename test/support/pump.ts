// Moves the bytes of one direction of one proxied connection, or does not: see `tcp-proxy.ts`.
//
// Promises: order is kept when a fault is turned on or off; the end of a stream is passed on after its last byte.

import type { Socket } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import type { AckSieve } from './ack-sieve.ts'
import type { Bandwidth } from './bandwidth.ts'
import type { Fault } from './tcp-proxy.ts'

/** Which connection a pump serves. */
export interface Line {
  readonly from: Socket
  readonly to: Socket
  /** For AMQP only: other protocols have no acks to swallow. */
  readonly sieve: AckSieve | undefined
  /** Hears the bytes before anything is done with them. */
  tell(bytes: Buffer): void
}

export class Pump {
  readonly #line: Line
  #fault: Fault
  #queue: Promise<void> = Promise.resolve()
  #queued = 0

  constructor(line: Line, fault: Fault) {
    this.#line = line
    this.#fault = fault
    const { from, to } = line
    from.on('error', () => {})
    from.on('end', () => this.#later(0, () => to.end()))
    from.on('data', (bytes: Buffer) => {
      line.tell(bytes)
      this.#take(bytes)
    })
    this.turn(fault)
  }

  turn(fault: Fault): void {
    this.#fault = fault
    if (fault.kind === 'stall') this.#line.from.pause()
    else this.#line.from.resume()
  }

  #take(bytes: Buffer): void {
    const { from, sieve } = this.#line
    const { kind } = this.#fault
    if (kind === 'swallow') return
    // Stalled by a listener of `data` at just these bytes: they go back to where they came from.
    if (kind === 'stall') from.unshift(bytes)
    else this.#move(sieve ? sieve.sift(bytes, kind === 'swallow-acks') : bytes)
  }

  #move(bytes: Buffer): void {
    const fault = this.#fault
    if (fault.kind === 'throttle') this.#squeeze(bytes, fault.bandwidth)
    else if (fault.kind === 'delay') this.#later(fault.delayMs, () => this.#write(bytes))
    else if (this.#queued > 0) this.#later(0, () => this.#write(bytes))
    else this.#write(bytes)
  }

  /** Reads no more until these have gone, so that the sockets' own buffers fill. */
  #squeeze(bytes: Buffer, bandwidth: Bandwidth): void {
    const narrow = () => this.#fault.kind === 'throttle' && this.#fault.bandwidth === bandwidth
    this.#line.from.pause()
    for (const slice of bandwidth.slicesOf(bytes)) {
      this.#enqueue(async () => {
        if (narrow()) await bandwidth.pass(slice.length)
        this.#write(slice)
      })
    }
    this.#enqueue(() => this.turn(this.#fault))
  }

  #later(delayMs: number, work: () => void): void {
    const due = Date.now() + delayMs
    this.#enqueue(async () => {
      if (due > Date.now()) await pause(due - Date.now())
      work()
    })
  }

  #enqueue(work: () => void | Promise<void>): void {
    this.#queued++
    this.#queue = this.#queue.then(work).finally(() => this.#queued--)
  }

  #write(bytes: Buffer): void {
    const { from, to } = this.#line
    if (bytes.length === 0 || to.destroyed || to.write(bytes)) return
    from.pause()
    to.once('drain', () => this.turn(this.#fault))
  }
}
