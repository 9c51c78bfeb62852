// The frames of AMQP 0-9-1 in a stream of bytes: as much of the protocol as it takes to tell methods apart on the wire.
//
// Promises: frames are whole and in order, however the bytes are cut up. A stream that is something else is noticed
// (`isAmqp`), and nothing is kept of it.
// Does not promise: anything within a frame beyond its method.

const HEAD_BYTES = 7
const FRAME_END = 0xce
// amqplib offers 128 KiB less a byte; no broker asks for more.
const LONGEST_BYTES = 2 ** 20
const NOTHING: Buffer = Buffer.alloc(0)

/** The kinds of frames that matter here. */
export const FRAME = { method: 1, header: 2, body: 3 } as const

/** How many bytes a client sends before its first frame. */
export const PROTOCOL_HEADER_BYTES = 8

/** A frame's method. */
export interface Method {
  /** Class and method, as `60,40`. */
  readonly id: string
  readonly payload: Buffer
}

/** Cuts the bytes of one direction of one connection into frames. */
export class FrameCutter {
  #rest = NOTHING
  #unframed: number
  #isAmqp = true

  /** `unframed`: how many bytes come before the first frame. */
  constructor(unframed: number) {
    this.#unframed = unframed
  }

  /** False from the moment when something came that cannot be a frame. */
  get isAmqp(): boolean {
    return this.#isAmqp
  }

  /** What came of the frame that is not whole yet. */
  get rest(): Buffer {
    return this.#rest
  }

  /** The frames that are whole now, as they came; the bytes before the first frame count as one. */
  take(bytes: Buffer): readonly Buffer[] {
    const frames: Buffer[] = []
    this.#rest = this.#rest.length > 0 ? Buffer.concat([this.#rest, bytes]) : bytes
    for (let length = this.#nextLength(); this.#isAmqp && length <= this.#rest.length; length = this.#nextLength()) {
      const frame = this.#rest.subarray(0, length)
      this.#isAmqp = this.#unframed > 0 || frame.at(-1) === FRAME_END
      if (!this.#isAmqp) break
      frames.push(frame)
      this.#rest = this.#rest.subarray(length)
      this.#unframed = 0
    }
    if (!this.#isAmqp) this.#rest = NOTHING
    return frames
  }

  /** Type, channel, size, payload, end. */
  #nextLength(): number {
    if (this.#unframed > 0) return this.#unframed
    if (this.#rest.length < HEAD_BYTES) return Number.POSITIVE_INFINITY
    const length = HEAD_BYTES + this.#rest.readUInt32BE(3) + 1
    this.#isAmqp &&= length <= LONGEST_BYTES
    return length
  }
}

/** The channel of a frame, and what it carries. */
export function contentsOf(frame: Buffer): { readonly channel: number; readonly payload: Buffer } {
  return { channel: frame.readUInt16BE(1), payload: frame.subarray(HEAD_BYTES, -1) }
}

/** The method of a frame that carries one. */
export function methodOf(frame: Buffer): Method | undefined {
  if (frame[0] !== FRAME.method) return undefined
  const { payload } = contentsOf(frame)
  return { id: `${payload.readUInt16BE(0)},${payload.readUInt16BE(2)}`, payload }
}
