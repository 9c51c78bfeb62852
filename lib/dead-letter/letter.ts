/** Writes dead letters: the message as it was, plus its story in headers. */
import type { Run } from '../consumer/handler.ts'
import { forwardedProperties } from '../forward.ts'
import { HEADER, newMessageId, type RawDelivery } from '../message.ts'
import type { Encoded } from '../producer/encode.ts'
import { errorHeaders } from '../reason.ts'
import { deadQueueOf } from '../topology/queues.ts'

/** Where a message was given up on. */
export interface LetterOrigin {
  readonly queue: string
  readonly service: string
  readonly host: string
}

/** A letter ready to be published to `<queue>.dead`. `run` is undefined when the message could not be read. */
export function deadLetter(
  raw: RawDelivery,
  run: Run | undefined,
  reason: string,
  error: unknown,
  origin: LetterOrigin,
): Encoded {
  const now = Date.now()
  const story = {
    [HEADER.reason]: reason,
    [HEADER.queue]: origin.queue,
    [HEADER.service]: origin.service,
    [HEADER.host]: origin.host,
    [HEADER.deadAt]: now,
    // Only a forged one is here.
    [HEADER.discardedAt]: undefined,
    ...(run
      ? {
          [HEADER.attempt]: run.attempt,
          [HEADER.generation]: run.generation,
          [HEADER.firstFailedAt]: run.firstFailedAt ?? now,
        }
      : {}),
    ...(error === undefined ? {} : { ...errorHeaders(error), [HEADER.lastFailedAt]: now }),
  }
  const properties = forwardedProperties(raw, story)
  const messageId = (run?.message.messageId || maybeText(raw.properties.messageId)) ?? newMessageId()
  const transactionId = run?.message.transactionId ?? messageId
  return {
    exchange: '',
    routingKey: deadQueueOf(origin.queue),
    content: raw.content,
    properties,
    messageId,
    transactionId,
  }
}

function maybeText(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined
}
