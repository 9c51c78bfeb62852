/**
 * Tells failures to publish a message onwards that pass from those that never will. Knows no broker.
 * Promises: what comes of the broker or the network is never taken for a property of the message, or for a defect of ours.
 */
import { MessageInvalid, textOf } from '../errors.ts'

/** So many TypeErrors, RangeErrors or ReferenceErrors in a row are no accident of the moment: it is our own code that cannot prepare the copy. */
export const DEFECTS_MAX = 3

/** What a publish failed with, be it thrown or rejected with. */
export async function failureOf(publish: () => Promise<void>): Promise<Error | undefined> {
  try {
    await publish()
    return undefined
  } catch (thrown) {
    return thrown instanceof Error ? thrown : new Error(textOf(thrown))
  }
}

/** Nothing that comes of the broker, the network or the message: those have classes of their own. */
export function isDefect(error: Error): boolean {
  return error instanceof TypeError || error instanceof RangeError || error instanceof ReferenceError
}

/** Nothing about this message will be different the next time. */
export function cannotBeSent(error: unknown): boolean {
  if (error instanceof MessageInvalid) return true
  const { outcome, retryable, cause } = error as { outcome?: string; retryable?: boolean; cause?: Error }
  return (
    outcome === 'not-sent' &&
    retryable === false &&
    (cause?.name === 'RangeError' || cause?.name === 'TypeError' || cause?.name === 'MessageInvalid')
  )
}
