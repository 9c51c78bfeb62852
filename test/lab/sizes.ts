// How large the rows are: in full, for the README's table, and short, for every change.

import type { Size } from './rounds.ts'

const MINUTE_MS = 60_000

/** More than a million messages over all rows, in about an hour and a quarter on two cores. */
export const FULL: Size = {
  messages: 24_500,
  turns: 3,
  mixTurns: 12,
  workMs: 10 * MINUTE_MS,
  drainMs: 4 * MINUTE_MS,
  fleet: { perSecond: { direct: 600, outbox: 200 }, backlog: 2_000, singleActive: ['outbox'] },
}

/** Within 5 minutes on two busy cores. */
export const SHORT: Size = {
  messages: 2_000,
  turns: 1,
  mixTurns: 2,
  workMs: MINUTE_MS,
  drainMs: 2 * MINUTE_MS,
  fleet: { perSecond: { direct: 200, outbox: 60 }, backlog: 500, singleActive: ['outbox'] },
}

/**
 * The short run takes no longer than this from its very start to its very end, ms: on a machine that is too busy the last rows are left
 * out, and that is said. Where not even the least have been played by then, it takes up to twice as long for those. So long it leaves for
 * ending what it started.
 */
export const SHORT_WITHIN_MS = 5 * MINUTE_MS
export const SHORT_LEAST_WITHIN_MS = 10 * MINUTE_MS
export const SHORT_CLOSING_MS = 15_000
/** A short run with fewer rows than this proves too little, and fails. */
export const SHORT_LEAST_ROWS = 5

/**
 * One of each kind, in this order; the mix draws from the rest. A killed broker may take minutes to come back on a busy machine, and a
 * mix waits for all that it broke: five rows come before.
 */
export const SHORT_ROWS: readonly string[] = [
  'kill-consumer',
  'kill-inbox-consumer',
  'kill-relay',
  'acks-lost',
  'redis-stop',
  'kill-leader',
  'mix',
  'postgres-kill',
  'cut-rst',
  'kill-operator',
  'kill-half-producer',
]
