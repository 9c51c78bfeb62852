/** The messages of the outbox's contests: the same for all contestants, as JSON, since that is what peers can carry. */

import type { OutboxMessage } from '../../lib/index.ts'
import type { Job } from './job.ts'

/** Of the rows that a contestant gets rid of before the measuring, and of those that count. */
export type Part = 'warm' | 'measured'

/** Its number, and as much text as makes it `bodyBytes` long. */
export interface Body {
  readonly n: number
  readonly text: string
}

export function sizeOf(part: Part, job: Job): number {
  return part === 'warm' ? job.warmup : job.messages
}

export function bodyOf(n: number, { bodyBytes }: Job): Body {
  const empty = JSON.stringify({ n, text: '' }).length
  return { n, text: 'surehop '.repeat(bodyBytes / 8).slice(0, bodyBytes - empty) }
}

/** Undefined where messages have no keys. Neighbours have different ones. */
export function keyOf(n: number, { keys }: Job): string | undefined {
  return keys > 0 ? `order-${n % keys}` : undefined
}

/** Straight to the queue of the run. */
export function messageOf(n: number, job: Job): OutboxMessage<Body> {
  const key = keyOf(n, job)
  return { type: 'order.placed', queue: job.queue, body: bodyOf(n, job), ...(key === undefined ? {} : { key }) }
}

/** So many numbers from 0, in pieces. */
export function* pieces(total: number, size: number): Generator<number[]> {
  for (let from = 0; from < total; from += size)
    yield Array.from({ length: Math.min(size, total - from) }, (_, i) => from + i)
}
