/**
 * What the idempotency store knows about a letter: before a replay, whether it would be for nothing; after it, how it went.
 * Pure, but for `watch`, which asks again and again: a record changes in another process, and nothing tells.
 */
import { pause } from '../deadline.ts'
import type { IdempotencyStore, RecordView, Scope } from '../idempotency/idempotency.ts'

/** Why a replay would be for nothing. */
export type SkipReason =
  | { readonly skip: 'completed'; readonly completedAt: Date }
  | { readonly skip: 'newer-generation'; readonly generation: number }
  | { readonly skip: 'generation-limit'; readonly generation: number }

/** A letter of `generation` as the store sees its message; undefined where a replay makes sense. */
export function skipReason(view: RecordView, generation: number): SkipReason | undefined {
  if (view.state === 'completed') return { skip: 'completed', completedAt: new Date(view.completedAt) }
  if (view.state === 'absent' || view.generation <= generation) return undefined
  return { skip: 'newer-generation', generation: view.generation }
}

/** `failed`: an attempt has failed, whether it is tried again or not. `pending`: not known yet. */
export type Fate = 'completed' | 'failed' | 'pending'

/** How the replay of `generation` went so far. */
export function fateOf(view: RecordView, generation: number): Fate {
  if (view.state === 'completed') return 'completed'
  if (view.state === 'absent' || view.generation < generation) return 'pending'
  if (view.state === 'dead' || view.generation > generation) return 'failed'
  return view.attempt > 1 ? 'failed' : 'pending'
}

/** One replayed message. */
export interface Sent {
  readonly id: string
  readonly generation: number
}

/** What became of the letters of a batch, counted. */
export interface Tally {
  completed: number
  failed: number
  /** Not known when the time was over. */
  pending: number
}

/** How the fate of replayed letters is watched. */
export interface WatchOptions {
  readonly withinMs: number
  /** Waiting ends early when more have failed. */
  readonly failuresMax: number
  readonly signal?: AbortSignal | undefined
}

const PAUSE_BASE_MS = 20
const PAUSE_CAP_MS = 1_000

/** Follows a batch until each fate is known, too many failed, the time is over, or the signal fires. */
export async function watch(
  store: IdempotencyStore,
  scope: Scope,
  batch: readonly Sent[],
  options: WatchOptions,
): Promise<Tally> {
  let open = batch
  const tally: Tally = { completed: 0, failed: 0, pending: batch.length }
  await repeat(options, async () => {
    const views = await store.look(
      scope,
      open.map(({ id }) => id),
    )
    const fates = open.map(({ generation }, i) => fateOf(views[i]!, generation))
    for (const fate of fates) if (fate !== 'pending') tally[fate]++
    open = open.filter((_, i) => fates[i] === 'pending')
    tally.pending = open.length
    return open.length === 0 || tally.failed > options.failuresMax
  })
  return tally
}

/** The same without a store: letters that come back are counted, and nothing can be known of the rest. */
export async function watchArrivals(
  arrivals: () => Promise<number>,
  batch: readonly unknown[],
  options: WatchOptions,
): Promise<Tally> {
  let failed = 0
  await repeat(options, async () => {
    failed = Math.min(batch.length, await arrivals())
    return failed > options.failuresMax || failed === batch.length
  })
  return { completed: 0, failed, pending: batch.length - failed }
}

/** Asks with growing pauses until told to end or the time is over; always once at least. */
async function repeat({ withinMs, signal }: WatchOptions, ask: () => Promise<boolean>): Promise<void> {
  const until = performance.now() + withinMs
  for (let pauseMs = PAUSE_BASE_MS; !(await ask()); pauseMs = Math.min(pauseMs * 1.5, PAUSE_CAP_MS)) {
    if (performance.now() >= until || signal?.aborted) return
    await pause(Math.min(pauseMs, Math.max(1, until - performance.now())), signal)
  }
}
