/**
 * The copies a letter is moved by: to its queue again, to the archive, back from it, or edited. Pure. The rest of the message
 * stays as it was, byte by byte.
 */
import { isDeepStrictEqual } from 'node:util'
import { MAX_COUNT } from '../consumer/decode.ts'
import { InvalidOption } from '../errors.ts'
import { forwardedProperties, type HeaderChanges, keptProperties } from '../forward.ts'
import { HEADER, newMessageId, type RawDelivery, type WireProperties } from '../message.ts'
import { type Encoded, fieldTable } from '../producer/encode.ts'
import { brokersReason, generationOf, identityOf, lastDeath, queueName, readLetter, transactionIdOf } from './story.ts'

/** What a consumer writes into a letter; a replayed message starts anew without it. */
const STORY = [
  HEADER.attempt,
  HEADER.firstFailedAt,
  HEADER.lastFailedAt,
  HEADER.reason,
  HEADER.errorType,
  HEADER.errorMessage,
  HEADER.errorFingerprint,
  HEADER.errorStack,
  HEADER.queue,
  HEADER.service,
  HEADER.host,
  HEADER.deadAt,
  HEADER.discardedAt,
] as const

const NO_STORY: HeaderChanges = Object.fromEntries(STORY.map((name) => [name, undefined]))

/** No letter is sent again more often: a consumer would refuse its generation. */
export const MAX_GENERATION = MAX_COUNT

/** Where a letter goes when nothing else is said: where the broker or the consumer took it from. */
export function targetOf(raw: RawDelivery): string | undefined {
  const headers = raw.properties.headers ?? {}
  return queueName(lastDeath(headers)?.queue) ?? queueName(headers[HEADER.queue])
}

/** The message without its story, as generation + 1. */
export function replayCopy(raw: RawDelivery, target: string): Encoded {
  return copy(raw, target, { ...NO_STORY, [HEADER.generation]: generationOf(raw) + 1 })
}

/** Two letters of one id are copies of one message: all but their stories is the same, in a letter that cannot be sent as well. */
export function sameMessage(a: RawDelivery, b: RawDelivery): boolean {
  return generationOf(a) === generationOf(b) && a.content.equals(b.content) && isDeepStrictEqual(untold(a), untold(b))
}

function untold(raw: RawDelivery): WireProperties {
  return keptProperties(raw, withFirstPublished(raw, { ...NO_STORY, [HEADER.generation]: undefined }))
}

/** For the archive: what the broker alone knew is written down, since its own headers do not travel. */
export function archiveCopy(raw: RawDelivery, archive: string): Encoded {
  return copy(raw, archive, { ...toldStory(raw), [HEADER.discardedAt]: Date.now() })
}

/** A letter back from the archive. */
export function restoredCopy(raw: RawDelivery, dead: string): Encoded {
  return copy(raw, dead, { ...toldStory(raw), [HEADER.discardedAt]: undefined })
}

/** A letter as a line tells it: also one that cannot be sent. */
export function toldProperties(raw: RawDelivery): WireProperties {
  return keptProperties(raw, withFirstPublished(raw, { ...toldStory(raw), [HEADER.discardedAt]: undefined }))
}

/** Changes to a letter. What is not named stays; `undefined` removes a property or header. */
export interface LetterEdit {
  /** Bytes as they are, or anything for JSON. */
  readonly body?: unknown
  readonly properties?: {
    readonly type?: string | undefined
    readonly contentType?: string | undefined
    readonly contentEncoding?: string | undefined
    readonly correlationId?: string | undefined
    readonly replyTo?: string | undefined
    /** Only for a letter that has none: another id would be another message. */
    readonly messageId?: string
  }
  /** Headers of the publisher; ours and the broker's are refused. */
  readonly headers?: HeaderChanges
  /** Only if the newest letter with this id is of this generation: what is replaced is what was seen. Default: whatever it is. */
  readonly generation?: number
}

/**
 * The edited letter, of a newer generation: consumers refuse another body under a known id, except for a newer generation.
 * @throws InvalidOption; MessageInvalid for a header that AMQP cannot carry
 */
export function editedCopy(raw: RawDelivery, dead: string, edit: LetterEdit): Encoded {
  const generation = nextGeneration(raw)
  const editedFrom = `${readLetter(raw).id}#${generationOf(raw)}`
  const story = { ...toldStory(raw), [HEADER.generation]: generation, [HEADER.editedFrom]: editedFrom.slice(0, 300) }
  const base = copy(raw, dead, { ...story, ...fieldTable(edit.headers ?? {}) })
  const content = edit.body === undefined ? raw.content : bytesOf(edit.body)
  const changed = Object.entries({ ...base.properties, ...edit.properties }).filter(([, value]) => value !== undefined)
  const properties = Object.fromEntries(changed) as unknown as WireProperties
  return { ...base, messageId: properties.messageId ?? base.messageId, content, properties }
}

function nextGeneration(raw: RawDelivery): number {
  const generation = generationOf(raw) + 1
  if (generation < MAX_GENERATION) return generation
  throw new InvalidOption(`this letter was sent again or edited ${generation - 1} times: it cannot be edited any more`)
}

/** The story as headers of ours, also where so far only the broker's headers told it. */
export function toldStory(raw: RawDelivery): HeaderChanges {
  const death = lastDeath(raw.properties.headers ?? {})
  if (!death) return {}
  return {
    [HEADER.reason]: brokersReason(raw, death),
    [HEADER.queue]: death.queue,
    [HEADER.service]: undefined,
    [HEADER.host]: undefined,
    [HEADER.deadAt]: death.at?.getTime(),
  }
}

function copy(raw: RawDelivery, queue: string, changes: HeaderChanges): Encoded {
  const properties = forwardedProperties(raw, withFirstPublished(raw, changes))
  const identity = identityOf(raw)
  const messageId = identity ?? newMessageId()
  const transactionId = transactionIdOf(raw) ?? messageId
  return { exchange: '', routingKey: queue, content: raw.content, properties, messageId, transactionId }
}

/** Where it was first published; a letter's own way here must not pass for it. */
function withFirstPublished({ properties: { headers = {} } }: RawDelivery, changes: HeaderChanges): HeaderChanges {
  if (headers[HEADER.exchange] !== undefined) return changes
  const death = lastDeath(headers)
  return { [HEADER.exchange]: death?.exchange, [HEADER.routingKey]: death?.routingKey, ...changes }
}

function bytesOf(body: unknown): Buffer {
  if (body instanceof Uint8Array) return Buffer.from(body.buffer, body.byteOffset, body.byteLength)
  const json = JSON.stringify(body)
  if (json === undefined) throw new InvalidOption('expected the new body to be something JSON can carry, or bytes')
  return Buffer.from(json)
}
