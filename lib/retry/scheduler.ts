/** Puts a message into the delay so that it comes back to its own queue: the next attempt, or the same one later. */
import type { Run } from '../consumer/handler.ts'
import { forwardedProperties, withoutPriority } from '../forward.ts'
import { HEADER, type RawDelivery } from '../message.ts'
import type { Encoded } from '../producer/encode.ts'
import { errorHeaders } from '../reason.ts'
import type { DelayRoute } from '../topology/delay.ts'

/** The delayed copy of a delivery, carrying `attempt`; steered by `route`. */
export function retryCopy(raw: RawDelivery, run: Run, attempt: number, failure: unknown, route: DelayRoute): Encoded {
  const { [HEADER.errorStack]: _, ...error } = failure === undefined ? {} : errorHeaders(failure)
  const changes = {
    ...error,
    ...route.headers,
    [HEADER.attempt]: attempt,
    [HEADER.generation]: run.generation,
    ...(run.firstFailedAt === undefined ? {} : { [HEADER.firstFailedAt]: run.firstFailedAt }),
    ...(failure === undefined ? {} : { [HEADER.lastFailedAt]: Date.now() }),
  }
  const { messageId, transactionId } = run.message
  const properties = withoutPriority(forwardedProperties(raw, changes))
  return {
    exchange: route.exchange,
    routingKey: route.routingKey,
    content: raw.content,
    properties,
    messageId,
    transactionId,
  }
}
