/**
 * How the failure of a publish is told: which message, to where, what became of it, why, and what to do.
 * Promises: the advice fits what is known; a deadline that passed names what it was waiting for.
 * Does NOT decide what became of it: see `pending.ts`.
 */
import { PublishFailed } from '../errors.ts'
import { type Failure, named, type Pending } from './pending.ts'

/** Why a publish that its caller repeats in his own time ended with a nack. */
export const NACKED = 'the broker refused it (nack); the queue may be full'

const ADVICE = {
  returned:
    'No copy was stored. Is there such a queue, or one bound to this exchange with this routing key? Only a producer may publish what nobody needs, with mandatory: false.',
  nacked: 'Other queues bound to the same key may hold a copy. Repeat it with the same messageId.',
  unknown: 'It may be stored. Repeat it with the same messageId: consumers drop the copy.',
  'not-sent': 'Nothing was sent.',
}

const WAITED_FOR: Readonly<Record<string, string>> = {
  behind: 'while another publish of the same id had no answer',
  held: 'while the broker did not say whether the exchange exists',
  waiting: 'while it waited for room in the window of unanswered publishes',
}

/** What its asker is told. */
export function publishFailed(pending: Pending, { outcome, why, retryable, cause }: Failure): PublishFailed {
  const advice = outcome === 'nacked' && !retryable ? 'No copy of this send was stored.' : ADVICE[outcome]
  const { messageId, exchange, routingKey } = pending.message
  const target = exchange === '' ? `queue "${routingKey}"` : `exchange "${exchange}" with routing key "${routingKey}"`
  return new PublishFailed(
    { ...named(pending), outcome, retryable },
    `message ${messageId} to ${target} was not published (${outcome}): ${why}. ${advice}`,
    cause === undefined ? undefined : { cause },
  )
}

/** Why a publish did not end before its deadline. A problem of the connection or the channel explains it, where there is one. */
export function whyLate(pending: Pending, problem: string | undefined): string {
  const waited = `the deadline passed after ${Math.round(performance.now() - pending.startedAt)} ms`
  if (problem !== undefined) return `${waited}: ${problem}`
  if (pending.nacked) return `${waited}: the broker refused it (nack) each time; the queue may be full`
  return pending.phase === 'sent'
    ? `${waited} without an answer from the broker`
    : `${waited} ${WAITED_FOR[pending.phase]}`
}

/** Its properties and headers are larger than a client or the broker takes; with less in them it may be sent. */
export function isTooLarge(error: unknown): boolean {
  return error instanceof PublishFailed && error.outcome === 'not-sent' && error.cause instanceof RangeError
}
