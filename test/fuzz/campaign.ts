// A run of the fuzzer: batches of specimens until so many messages were sent, shrunk to the smallest batch that still fails.

import fc from 'fast-check'
import { type Half, halves } from './halves.ts'
import { OutboxWorld } from './outbox.ts'
import { type Row, rows } from './rows.ts'
import { type Specimen, specimens } from './specimens.ts'
import { TransactionsWorld } from './transactions.ts'
import { QUEUES, World } from './world.ts'

/** What is sent where. */
export interface Ground<One, W> {
  readonly specimens: fc.Arbitrary<One>
  readonly open: () => Promise<W>
}

/** Where batches are sent to, and what became of them. */
export interface Sendable<One> {
  readonly ends: Readonly<Record<string, number>>
  batch(some: readonly One[]): Promise<void>
  close(): Promise<void>
}

/** Messages by raw frames, to consumers. */
export const MESSAGES: Ground<Specimen, World> = { specimens: specimens(QUEUES), open: World.open }
/** Rows by SQL, to a relay. */
export const ROWS: Ground<Row, OutboxWorld> = { specimens: rows, open: OutboxWorld.open }
/** Half messages by raw frames, to a transactional sender. */
export const HALVES: Ground<Half, TransactionsWorld> = { specimens: halves, open: TransactionsWorld.open }

/** How a run is told to go. */
export interface Campaign<W> {
  readonly messages: number
  readonly seed: number
  /** The most messages of a batch. */
  readonly batch: number
  readonly onBatch?: (sent: number, world: W) => void
  /** Told of each failure while the batch is made smaller. */
  readonly onFailure?: (messages: number, error: Error) => void
}

/** What a run came to. */
export interface Result<W> {
  readonly sent: number
  readonly seconds: number
  readonly ends: Readonly<Record<string, number>>
  /** With the smallest batch that fails and how to try it again. */
  readonly failure: string | undefined
  /** Bytes in use at a quarter of the messages and at the end, where garbage can be collected (`--expose-gc`). */
  readonly heap: readonly [quarter: number, end: number] | undefined
  /** With a few of those that nobody handled; the caller closes it. */
  readonly world: W
}

/** A failing batch is made smaller for no longer: whoever waits for it must be told the seed before the patience ends. */
const SHRINK_MS = 40_000

/** Runs until all are sent, or one went wrong. */
export async function campaign<One, W extends Sendable<One>>(
  ground: Ground<One, W>,
  { messages, seed, batch, onBatch, onFailure }: Campaign<W>,
): Promise<Result<W>> {
  const began = performance.now()
  let world = await ground.open()
  let failedAt: number | undefined
  let sent = 0
  let quarter: number | undefined
  const property = fc.asyncProperty(
    fc.array(ground.specimens, { minLength: 1, maxLength: batch, size: 'max' }),
    async (some) => {
      if (failedAt === undefined ? sent >= messages : performance.now() - failedAt > SHRINK_MS) return
      try {
        await world.batch(some)
        if (failedAt === undefined) sent += some.length
        if (sent >= messages / 4) quarter ??= heapUsed()
        onBatch?.(sent, world)
      } catch (error) {
        failedAt ??= performance.now()
        onFailure?.(some.length, error as Error)
        const broken = world
        world = await ground.open()
        await broken.close()
        throw error
      }
    },
  )
  // Batches are of any size: more than enough of them, and those beyond the last message do nothing.
  const numRuns = 50 + Math.ceil((4 * messages) / batch)
  const details = await fc.check(property, { seed, numRuns, timeout: 180_000 })
  const failure = details.failed ? `${details.errorInstance}\n${fc.defaultReportMessage(details)}` : undefined
  const end = heapUsed()
  const heap: Result<W>['heap'] = quarter === undefined || end === undefined ? undefined : [quarter, end]
  return { heap, sent, seconds: (performance.now() - began) / 1_000, ends: world.ends, failure, world }
}

function heapUsed(): number | undefined {
  if (!globalThis.gc) return undefined
  globalThis.gc()
  return process.memoryUsage().heapUsed
}
