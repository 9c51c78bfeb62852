// Takes the acks out of one direction of one AMQP connection, and leaves the rest as it is.
//
//   to the client: publisher confirms (basic.ack, basic.nack);  to the server: consumers' basic.ack, basic.nack, basic.reject
//
// Promises: may be turned on and off in the middle of a frame: a frame of which a part has gone on goes on whole. While it
// is off, every byte goes on at once; so does all that is not AMQP.

import { FrameCutter, methodOf, PROTOCOL_HEADER_BYTES } from './amqp-frames.ts'
import type { Direction } from './tcp-proxy.ts'

const ACKS = new Set(['60,80', '60,120', '60,90'])

export class AckSieve {
  readonly #frames: FrameCutter
  readonly #tell: () => void
  /** How much of the frame that is not whole yet has gone on. */
  #gone = 0

  /** `tell` is called for each ack that is taken out. */
  constructor(direction: Direction, tell: () => void) {
    this.#frames = new FrameCutter(direction === 'to-server' ? PROTOCOL_HEADER_BYTES : 0)
    this.#tell = tell
  }

  /** @returns what is to go on now */
  sift(bytes: Buffer, on: boolean): Buffer {
    if (!this.#frames.isAmqp) return bytes
    const held = this.#frames.rest.subarray(this.#gone)
    const whole = this.#frames.take(bytes)
    if (on && this.#frames.isAmqp) return this.#sifted(whole)
    this.#gone = this.#frames.rest.length
    return held.length > 0 ? Buffer.concat([held, bytes]) : bytes
  }

  #sifted(whole: readonly Buffer[]): Buffer {
    const goingOn = whole.flatMap((frame, i) => this.#fate(frame, i === 0 ? this.#gone : 0))
    if (whole.length > 0) this.#gone = 0
    if (this.#gone > 0) {
      goingOn.push(this.#frames.rest.subarray(this.#gone))
      this.#gone = this.#frames.rest.length
    }
    return Buffer.concat(goingOn)
  }

  #fate(frame: Buffer, gone: number): readonly Buffer[] {
    if (gone > 0 || !isAck(frame)) return [frame.subarray(gone)]
    this.#tell()
    return []
  }
}

// The protocol header is no frame, and its first byte is none of a frame's kinds.
function isAck(frame: Buffer): boolean {
  const method = methodOf(frame)
  return method !== undefined && ACKS.has(method.id)
}
