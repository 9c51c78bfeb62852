/** A letter with body and headers. Pure. */
import type { RawDelivery } from '../message.ts'
import type { Encoded } from '../producer/encode.ts'
import { type Letter, readLetter, userHeaders } from './story.ts'

/** A letter with all of it. */
export interface FullLetter extends Letter {
  readonly body: Buffer
  /** The publisher's own headers. */
  readonly headers: Readonly<Record<string, unknown>>
}

/** As it lies in its queue. */
export function full(letter: Letter, raw: RawDelivery): FullLetter {
  return { ...letter, body: raw.content, headers: userHeaders(raw.properties.headers ?? {}) }
}

/** As it will lie there, once its copy has arrived. */
export function fullOf({ content, properties, exchange, routingKey }: Encoded): FullLetter {
  const raw = { content, properties, fields: { deliveryTag: 0, redelivered: false, exchange, routingKey } }
  return full(readLetter(raw), raw)
}
