// Moves the bytes of one direction of one proxied connection, or does not: see `tcp-proxy.ts`.
//
// Promises: order is kept when a fault is turned on or off; the end of a stream is passed on after its last byte.

import type { Socket } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import type { Fault } from './tcp-proxy.ts'

export class Pump {
  readonly #from: Socket
  readonly #to: Socket
  #fault: Fault
  #queue: Promise<void> = Promise.resolve()
  #queued = 0

  constructor(from: Socket, to: Socket, fault: Fault, tell: (bytes: Buffer) => void) {
    this.#from = from
    this.#to = to
    this.#fault = fault
    from.on('error', () => {})
    from.on('end', () => this.#later(0, () => to.end()))
    from.on('data', (bytes: Buffer) => {
      tell(bytes)
      this.#move(bytes)
    })
    this.turn(fault)
  }

  turn(fault: Fault): void {
    this.#fault = fault
    if (fault.kind === 'stall') this.#from.pause()
    else this.#from.resume()
  }

  #move(bytes: Buffer): void {
    const fault = this.#fault
    if (fault.kind === 'swallow') return
    // Stalled by a listener of `data` at just these bytes: they go back to where they came from.
    if (fault.kind === 'stall') this.#from.unshift(bytes)
    else if (fault.kind === 'delay') this.#later(fault.delayMs, () => this.#write(bytes))
    else if (this.#queued > 0) this.#later(0, () => this.#write(bytes))
    else this.#write(bytes)
  }

  #later(delayMs: number, work: () => void): void {
    const due = Date.now() + delayMs
    this.#queued++
    this.#queue = this.#queue
      .then(() => (due > Date.now() ? pause(due - Date.now()) : undefined))
      .then(work)
      .finally(() => this.#queued--)
  }

  #write(bytes: Buffer): void {
    if (this.#to.destroyed || this.#to.write(bytes)) return
    this.#from.pause()
    this.#to.once('drain', () => this.turn(this.#fault))
  }
}
