// Tells the fleet which of this machine's ports our connections to the brokers come from, so that they can be cut and nobody else's.
//
// Promises: nothing is said before `tell`, and then of each that is open. Does NOT promise that a connection that has just begun
// is known.

import { subscribe } from 'node:diagnostics_channel'
import type { Socket } from 'node:net'
import type { Word } from './job.ts'

/** See the head of this file. */
export class Moorings {
  readonly #open = new Set<number>()
  readonly #say: (word: Word) => void
  #telling = false

  constructor(amqp: readonly string[], say: (word: Word) => void) {
    this.#say = say
    const brokers = new Set(amqp.map((url) => Number(new URL(url).port)))
    subscribe('net.client.socket', (begun) => {
      const { socket } = begun as { readonly socket: Socket }
      socket.once('connect', () => {
        if (brokers.has(socket.remotePort ?? 0)) this.#moored(socket)
      })
    })
  }

  tell(): void {
    this.#telling = true
    for (const port of this.#open) this.#say({ moored: port })
  }

  #moored(socket: Socket): void {
    const port = socket.localPort!
    this.#open.add(port)
    if (this.#telling) this.#say({ moored: port })
    socket.once('close', () => {
      this.#open.delete(port)
      if (this.#telling) this.#say({ unmoored: port })
    })
  }
}
