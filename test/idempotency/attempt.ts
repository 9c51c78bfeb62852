// One attempt of a handler, as a consumer runs it, without a broker.

import { Active, type AttemptEnd } from '../../lib/consumer/active.ts'
import { DeadlineWatch } from '../../lib/consumer/deadline-watch.ts'
import type { Handler } from '../../lib/consumer/handler.ts'
import { FakeProducer, run } from '../consumer/fakes.ts'

/** Whose run it is, and how long it may take. */
export interface AttemptOf {
  readonly queue: string
  readonly id: string
  readonly fencingToken: number | undefined
  readonly timeoutMs?: number
  readonly editedFrom?: string
  /** Is given what aborts the attempt. */
  readonly onStart?: (abort: (reason: Error) => void) => void
}

/** Runs the handler once. */
export function attemptOf<Body>(handler: Handler<Body>, of: AttemptOf): Promise<AttemptEnd> {
  const { queue, id, fencingToken, timeoutMs = 60_000, editedFrom, onStart } = of
  const plain = run({ id, fencingToken, editedFrom })
  const active = new Active({ ...plain, message: { ...plain.message, queue } }, new FakeProducer().asProducer)
  const end = active.run(handler as Handler, new DeadlineWatch(timeoutMs))
  onStart?.((reason) => active.abort(reason))
  return end
}
