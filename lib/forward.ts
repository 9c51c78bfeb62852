/**
 * Sends a message that was received on to another queue, as it is but for our own headers. Pure.
 * What must not travel is left behind: the broker's bookkeeping (it can be forged and confuses dead-lettering), CC and BCC (they
 * would route extra copies), `expiration` (it would end the message in a delay or dead-letter queue), `user-id` (the broker
 * refuses a foreign one).
 */
import { HEADER, isBrokerHeader, type RawDelivery, type WireProperties } from './message.ts'

/** Headers to set; `undefined` removes one. */
export type HeaderChanges = Readonly<Record<string, unknown>>

export function forwardedProperties(raw: RawDelivery, changes: HeaderChanges): WireProperties {
  const { properties } = raw
  return {
    ...kept(properties, 'messageId', 'string'),
    ...kept(properties, 'type', 'string'),
    ...kept(properties, 'timestamp', 'number'),
    ...kept(properties, 'appId', 'string'),
    ...kept(properties, 'contentType', 'string'),
    ...kept(properties, 'contentEncoding', 'string'),
    ...kept(properties, 'correlationId', 'string'),
    ...kept(properties, 'replyTo', 'string'),
    ...kept(properties, 'priority', 'number'),
    headers: forwardedHeaders(raw, changes),
  }
}

function kept<K extends keyof RawDelivery['properties']>(
  properties: RawDelivery['properties'],
  name: K,
  type: 'string' | 'number',
): object {
  const value = properties[name]
  return typeof value === type ? { [name]: value } : {}
}

/** Where a message was first published is remembered, since the way through delay and dead letters changes it. */
function forwardedHeaders(raw: RawDelivery, changes: HeaderChanges): Record<string, unknown> {
  const headers: Record<string, unknown> = {
    [HEADER.exchange]: raw.fields.exchange,
    [HEADER.routingKey]: raw.fields.routingKey,
  }
  for (const [name, value] of Object.entries(raw.properties.headers ?? {})) if (!leftBehind(name)) headers[name] = value
  for (const [name, value] of Object.entries(changes)) {
    if (value === undefined) delete headers[name]
    else headers[name] = value
  }
  return headers
}

function leftBehind(name: string): boolean {
  return (
    isBrokerHeader(name) ||
    name === 'CC' ||
    name === 'BCC' ||
    name === HEADER.deliverTo ||
    name === HEADER.publishId ||
    name.startsWith(HEADER.delayLevel)
  )
}
