/**
 * Sends letters again: each is published to its queue (confirmed, mandatory, generation + 1) and then acked.
 *
 *     letter ──looked up──▶ skipped: its message was completed, or a newer generation exists    stays
 *        └──published──▶ confirmed ──▶ acked                                                    gone
 *                 └──▶ returned, nacked, unknown                                                stays
 *
 * Batches grow from one letter on, and each waits for its fate: when too many fail again, it stops. Promises: a crash at any
 * point loses nothing; a crash between publish and ack leaves both copies, of which the generation lets one run (with an
 * idempotency store). Does NOT promise that the messages succeed, nor their order. Emits dead-letter.replayed.
 */
import { MessageInvalid, PublishFailed, ResourceMissing, textOf } from '../errors.ts'
import type { IdempotencyStore, Scope } from '../idempotency/idempotency.ts'
import type { Events } from '../observability/events.ts'
import type { Encoded } from '../producer/encode.ts'
import type { Publisher, SendOptions } from '../producer/publisher.ts'
import type { Chosen, Take } from './chosen.ts'
import { MAX_GENERATION, replayCopy, targetOf } from './copies.ts'
import { type Sent, type SkipReason, skipReason, type Tally, watch, watchArrivals } from './fate.ts'
import { Pace, Window } from './pace.ts'
import type { Reader } from './reader.ts'
import { generationOf, identityOf, type Letter, queueName } from './story.ts'

/** How letters are sent again. */
export interface ReplayOptions {
  /** Look and judge only: nothing is published, nothing acked. Default false. */
  readonly dryRun?: boolean
  /** Letters per second, evenly; 0 for no limit. Default 50. */
  readonly perSecond?: number
  /** In growing batches of 1, 5, 25, 125..., each waiting for its fate. `false`: at full speed, without waiting. Default true. */
  readonly watch?: boolean
  /** How long one batch is waited for, ms. Default 30,000 with an idempotency store, 5,000 without. */
  readonly watchMs?: number
  /** Stop when a larger part of a batch fails again. Default 0.2. */
  readonly maxFailing?: number
  /** Also send letters whose message was completed or has a newer generation. Consumers drop them; for a store that was lost. Default false. */
  readonly force?: boolean
  /** Queue for letters that do not say where they come from. Default: the queue these dead letters belong to. */
  readonly to?: string
  /** Stops after the letters at hand. */
  readonly signal?: AbortSignal
  /** Told of each letter when its outcome is known. */
  readonly onOutcome?: (outcome: ReplayOutcome) => void
  /** Told after each batch. */
  readonly onBatch?: (batch: ReplayBatch) => void
}

/** What became of one letter. */
export type ReplayOutcome = { readonly letter: Letter; readonly to: string } & (
  | { readonly outcome: 'replayed'; readonly generation: number; readonly letterLeft: boolean }
  | { readonly outcome: 'would-replay'; readonly generation: number }
  | { readonly outcome: 'skipped'; readonly why: SkipReason }
  | { readonly outcome: 'failed'; readonly error: Error }
)

/** One batch and what became of it. */
export interface ReplayBatch extends Readonly<Tally> {
  readonly number: number
  readonly size: number
}

/** Counts of a whole replay. */
export interface ReplayResult {
  /** Letters that were looked at, and of those the selected ones. */
  readonly seen: number
  readonly selected: number
  /** Published and confirmed; with `dryRun`, what would be. */
  readonly replayed: number
  readonly skipped: number
  readonly failed: number
  /** Of those replayed, as far as was waited for. */
  readonly completed: number
  readonly failedAgain: number
  /**
   * `done`; `failing`: too many failed again; `interrupted`: the signal fired; `unreachable`: the broker or the store gave no answer.
   */
  readonly stopped: 'done' | 'failing' | 'interrupted' | 'unreachable'
  /** Why it was `unreachable`. */
  readonly error: Error | undefined
}

/** What a replay works with. */
export interface ReplayParts {
  readonly reader: Reader
  readonly take: Take
  readonly publisher: Publisher
  readonly events: Events
  readonly queue: string
  readonly store: IdempotencyStore | undefined
  readonly scope: Scope
}

const BATCH_GROWTH = 5
/** Letters looked up in the store at once. */
const LOOK_MAX = 256
const WINDOW = { count: 512, bytes: 16 * 1024 * 1024 }
const PUBLISH: SendOptions = { mandatory: true, deadlineMs: 30_000 }
const DEFAULTS = { perSecond: 50, watchMs: 30_000, watchArrivalsMs: 5_000, maxFailing: 0.2 }

/** Letters are fetched no longer before they are sent, s: the broker takes back what it gave out 30 minutes ago, and ends the replay. */
const AHEAD_S = 300

/** So many letters are fetched ahead: a slow replay must not hold thousands. */
export function aheadOf({ perSecond = DEFAULTS.perSecond, dryRun }: ReplayOptions): number {
  return dryRun || perSecond === 0 ? Number.POSITIVE_INFINITY : Math.ceil(perSecond * AHEAD_S)
}

/** Runs one replay. Never rejects: what went wrong is in the result. */
export async function replay(parts: ReplayParts, options: ReplayOptions): Promise<ReplayResult> {
  return new Replay(parts, options).run()
}

class Replay {
  readonly #parts: ReplayParts
  readonly #options: ReplayOptions
  readonly #pace: Pace
  readonly #window = new Window(WINDOW)
  #count = { selected: 0, replayed: 0, skipped: 0, failed: 0, completed: 0, failedAgain: 0 }
  /** Letters that came back before the present batch, told by the reader's count. */
  #arrived = 0
  #trouble: Error | undefined

  constructor(parts: ReplayParts, options: ReplayOptions) {
    this.#parts = parts
    this.#options = options
    this.#pace = new Pace(options.perSecond ?? DEFAULTS.perSecond)
  }

  async run(): Promise<ReplayResult> {
    let stopped: ReplayResult['stopped'] = 'done'
    try {
      stopped = await this.#batches()
    } catch (error) {
      this.#trouble ??= error as Error
    }
    await this.#window.drained()
    if (this.#trouble) stopped = 'unreachable'
    return { seen: this.#parts.reader.given, ...this.#count, stopped, error: this.#trouble }
  }

  async #batches(): Promise<ReplayResult['stopped']> {
    const { watch: watching = true, dryRun, signal } = this.#options
    const whole = dryRun || !watching
    for (let number = 1, size = whole ? Number.POSITIVE_INFINITY : 1; ; number++, size *= BATCH_GROWTH) {
      const { sent, ended } = await this.#batch(size)
      if (this.#trouble || signal?.aborted) return 'interrupted'
      if (whole) return 'done'
      if (sent.length > 0 && (await this.#follow(number, sent))) return 'failing'
      if (signal?.aborted) return 'interrupted'
      if (ended) return 'done'
    }
  }

  /** Publishes up to `size` letters and waits for their confirms. */
  async #batch(size: number): Promise<{ readonly sent: Sent[]; readonly ended: boolean }> {
    const sent: Sent[] = []
    let ended = false
    for (let launched = 0; launched < size && !ended && !this.#stopping; ) {
      const some = await this.#parts.take(Math.min(LOOK_MAX, size - launched))
      ended = some.length === 0
      const skips = await this.#judge(some)
      for (const chosen of some) {
        if (this.#stopping) break
        this.#count.selected++
        const skip = skips.get(chosen)
        if (skip) this.#skipped(chosen, skip)
        else {
          launched++
          await this.#launch(chosen, sent)
        }
      }
    }
    await this.#window.drained()
    return { sent, ended }
  }

  get #stopping(): boolean {
    return this.#trouble !== undefined || this.#options.signal?.aborted === true
  }

  /** Those that would be for nothing; the store is asked, if there is one. */
  async #judge(some: readonly Chosen[]): Promise<ReadonlyMap<Chosen, SkipReason>> {
    const { store, scope } = this.#parts
    const known = store && !this.#options.force ? some.filter((one) => idOf(one) !== undefined) : []
    const views =
      store && known.length > 0
        ? await store.look(
            scope,
            known.map((one) => idOf(one)!),
          )
        : []
    const skips = new Map<Chosen, SkipReason>()
    for (const [i, one] of known.entries()) {
      const skip = skipReason(views[i]!, generationOf(one.taken.raw))
      if (skip) skips.set(one, skip)
    }
    for (const one of some) {
      const generation = generationOf(one.taken.raw)
      if (generation >= MAX_GENERATION) skips.set(one, { skip: 'generation-limit', generation })
    }
    return skips
  }

  #skipped(chosen: Chosen, why: SkipReason): void {
    this.#count.skipped++
    this.#tell(() => ({ letter: chosen.letter, to: this.#target(chosen), outcome: 'skipped', why }))
  }

  async #launch(chosen: Chosen, sent: Sent[]): Promise<void> {
    const to = this.#target(chosen)
    if (this.#options.dryRun) {
      this.#count.replayed++
      const generation = generationOf(chosen.taken.raw) + 1
      this.#tell(() => ({ letter: chosen.letter, to, outcome: 'would-replay', generation }))
      return
    }
    if (this.#pace.limited) await this.#pace.turn(this.#options.signal)
    if (this.#stopping) return void this.#count.selected--
    const bytes = chosen.taken.raw.content.length
    if (!this.#window.fits(bytes)) await this.#window.room(bytes)
    this.#window.enter(bytes)
    this.#send(chosen, to, sent)
  }

  /** One letter: publish, then ack. */
  #send(chosen: Chosen, to: string, sent: Sent[]): void {
    const failed = (error: unknown) => this.#failed(chosen, to, error as Error)
    let copy: Encoded
    try {
      copy = replayCopy(chosen.taken.raw, to)
    } catch (error) {
      failed(error)
      return
    }
    const confirmed = () => this.#confirmed(chosen, copy, sent)
    this.#parts.publisher.publishFor({ confirmed, failed }, copy, PUBLISH)
  }

  #confirmed(chosen: Chosen, { messageId, transactionId, routingKey }: Encoded, sent: Sent[]): void {
    const { events, queue } = this.#parts
    const { raw } = chosen.taken
    const generation = generationOf(raw) + 1
    const letterLeft = !chosen.taken.ack()
    this.#count.replayed++
    if (idOf(chosen) !== undefined) sent.push({ id: messageId, generation })
    if (events.wanted('dead-letter.replayed'))
      events.emit('dead-letter.replayed', { messageId, transactionId, queue, generation })
    this.#tell(() => ({ letter: chosen.letter, to: routingKey, outcome: 'replayed', generation, letterLeft }))
    this.#window.leave(raw.content.length)
  }

  /** A missing target concerns its letters; a broker that gives no answer concerns all. */
  #failed(chosen: Chosen, to: string, error: Error): void {
    this.#count.failed++
    if (!ofLetter(error)) this.#trouble ??= error
    const missing = error instanceof PublishFailed && error.outcome === 'returned'
    const told = missing
      ? new ResourceMissing(`queue "${to}"`, `queue "${to}" does not exist: ${wayOut(chosen)}`, { cause: error })
      : error
    this.#tell(() => ({ letter: chosen.letter, to, outcome: 'failed', error: told }))
    this.#window.leave(chosen.taken.raw.content.length)
  }

  /** A listener that throws ends the replay; its letter is what it was. */
  #tell(outcome: () => ReplayOutcome): void {
    try {
      this.#options.onOutcome?.(outcome())
    } catch (error) {
      this.#trouble ??= error instanceof Error ? error : new Error(textOf(error))
    }
  }

  #target({ taken }: Chosen): string {
    return targetOf(taken.raw) ?? queueName(this.#options.to) ?? this.#parts.queue
  }

  /** @returns true when too many failed again */
  async #follow(number: number, sent: readonly Sent[]): Promise<boolean> {
    const { store, scope, reader } = this.#parts
    const { signal, maxFailing = DEFAULTS.maxFailing, onBatch } = this.#options
    const failuresMax = Math.floor(sent.length * maxFailing)
    const withinMs = this.#options.watchMs ?? (store ? DEFAULTS.watchMs : DEFAULTS.watchArrivalsMs)
    const limits = { withinMs, failuresMax, signal }
    const tally = store
      ? await watch(store, scope, sent, limits)
      : await watchArrivals(async () => (await reader.arrivals()) - this.#arrived, sent, limits)
    this.#arrived += store ? 0 : tally.failed
    this.#count.completed += tally.completed
    this.#count.failedAgain += tally.failed
    onBatch?.({ number, size: sent.length, ...tally })
    return tally.failed > failuresMax
  }
}

/** Nothing is wrong but this letter, or where it is to go. */
export function ofLetter(error: Error): boolean {
  return error instanceof MessageInvalid || (error instanceof PublishFailed && !error.retryable)
}

/** Where a letter says itself to which queue it belongs, no "to" leads it elsewhere. */
function wayOut({ taken }: Chosen): string {
  return targetOf(taken.raw) === undefined
    ? 'say with "to" where it shall go'
    : 'the letter belongs there, so start its consumer, which declares it'
}

function idOf({ taken }: Chosen): string | undefined {
  return identityOf(taken.raw)
}

/** A reason in words, for lists. */
export function skipText(why: SkipReason): string {
  if (why.skip === 'completed') return `already completed at ${why.completedAt.toISOString()}`
  if (why.skip === 'newer-generation') return `a newer generation is known: ${why.generation}`
  return `it was sent again ${why.generation} times: no consumer takes it once more`
}
