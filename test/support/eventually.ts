// Waiting in tests: for an event where there is one, by asking again where the outside world gives none.
//
// Promises: a wait ends at its deadline with an error that says what was awaited and what was last seen.
// This is the only file that may ask again and again; everything else waits on events.

import type { EventEmitter } from 'node:events'
import { setTimeout as pause } from 'node:timers/promises'

/** Options of {@link eventually}. */
export interface EventuallyOptions {
  /** Deadline in ms. Default 10,000. */
  readonly withinMs?: number
  /** What is awaited, for the message. Default "the condition". */
  readonly what?: string
  /** Gives up early. */
  readonly signal?: AbortSignal
}

const FIRST_PAUSE_MS = 10
const LONGEST_PAUSE_MS = 250

/**
 * Calls `check` until it neither throws nor answers `false`, and gives its answer. Pauses grow from 10 to 250 ms.
 * Put the assertion into `check`: its last failure is the cause of the error at the deadline.
 */
export async function eventually<T>(check: () => T | Promise<T>, options: EventuallyOptions = {}): Promise<T> {
  const { withinMs = 10_000, what = 'the condition', signal } = options
  const deadline = Date.now() + withinMs
  for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(pauseMs * 1.6, LONGEST_PAUSE_MS)) {
    signal?.throwIfAborted()
    const seen = await attempt(check)
    if ('value' in seen) return seen.value
    if (Date.now() + pauseMs > deadline) throw late(what, withinMs, seen.error)
    await pause(pauseMs, undefined, signal ? { signal } : {})
  }
}

async function attempt<T>(check: () => T | Promise<T>): Promise<{ value: T } | { error: unknown }> {
  try {
    const value = await check()
    return value === false ? { error: new Error('it answered false') } : { value }
  } catch (error) {
    return { error }
  }
}

function late(what: string, withinMs: number, cause?: unknown): Error {
  const last = cause instanceof Error ? `; last seen: ${cause.message}` : ''
  return new Error(`${what} did not happen within ${withinMs} ms${last}`, { cause })
}

/** Options of {@link eventOf}. */
export interface EventOptions<A extends unknown[]> {
  /** Deadline in ms. Default 10,000. */
  readonly withinMs?: number
  /** Only an event of which this is true counts. */
  readonly where?: (...args: A) => boolean
}

/** Waits for the next event of that name, and gives its arguments. Start it before what causes the event. */
export function eventOf<A extends unknown[] = unknown[]>(
  emitter: Pick<EventEmitter, 'on' | 'off'>,
  name: string,
  options: EventOptions<A> = {},
): Promise<A> {
  const { withinMs, where = () => true } = options
  let listener: (...args: unknown[]) => void
  const seen = new Promise<A>((resolve) => {
    listener = (...args) => where(...(args as A)) && resolve(args as A)
    emitter.on(name, listener)
  })
  return within(seen, { what: `the event "${name}"`, ...(withinMs ? { withinMs } : {}) }).finally(() =>
    emitter.off(name, listener),
  )
}

/** Gives what `promise` gives, or fails at the deadline (default 10,000 ms) with a message that names `what`. */
export async function within<T>(promise: Promise<T>, options: { what?: string; withinMs?: number } = {}): Promise<T> {
  const { withinMs = 10_000, what = 'it' } = options
  let timer: NodeJS.Timeout | undefined
  const alarm = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(late(what, withinMs)), withinMs)
  })
  return Promise.race([promise, alarm]).finally(() => clearTimeout(timer))
}

/** A promise with its ends outside: a latch for handlers and listeners. */
export function latch<T = void>(): {
  promise: Promise<T>
  resolve: (value: T) => void
  reject: (error: unknown) => void
} {
  let resolve!: (value: T) => void
  let reject!: (error: unknown) => void
  const promise = new Promise<T>((yes, no) => {
    resolve = yes
    reject = no
  })
  return { promise, resolve, reject }
}
