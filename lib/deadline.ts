/** Waiting with an end: deadlines, aborts and pauses that clean up after themselves. */

/**
 * Waits for `promise` at most `ms`, then gives up on it (its later rejection is swallowed). The timer alone does not keep a process alive
 * when `background`.
 * @returns the value
 * @throws what `onTimeout` returns when time is up
 */
export function within<T>(promise: Promise<T>, ms: number, onTimeout: () => Error, background = false): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const timer =
      ms === Number.POSITIVE_INFINITY ? undefined : setTimeout(() => reject(onTimeout()), Math.min(ms, MAX_TIMER_MS))
    if (background) timer?.unref()
    promise.then(resolve, reject).finally(() => clearTimeout(timer))
  })
}

/**
 * Waits for `promise` until the signal fires, then gives up on it.
 * @throws the signal's reason
 */
export async function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return promise
  const aborted = deferred<never>()
  const abort = () => aborted.reject(signal.reason)
  if (signal.aborted) abort()
  const leave = whenAborted(signal, abort)
  promise.catch(() => {})
  return Promise.race([promise, aborted.promise]).finally(leave)
}

/** Those who wait for a signal, and what ends the one listener that they share: Node warns of a leak from the eleventh. */
interface Waiters {
  readonly callbacks: Set<() => void>
  readonly end: () => void
}

const waitersFor = new WeakMap<AbortSignal, Waiters>()

/** Calls back when the signal fires, unless the returned function was called before; the last to go takes the listener along. */
export function whenAborted(signal: AbortSignal, callback: () => void): () => void {
  const { callbacks, end } = waitersFor.get(signal) ?? listenTo(signal)
  callbacks.add(callback)
  return () => {
    if (callbacks.delete(callback) && callbacks.size === 0) end()
  }
}

function listenTo(signal: AbortSignal): Waiters {
  const callbacks = new Set<() => void>()
  const fire = () => {
    for (const callback of [...callbacks]) callback()
  }
  const end = () => {
    signal.removeEventListener('abort', fire)
    waitersFor.delete(signal)
  }
  signal.addEventListener('abort', fire, { once: true })
  const waiters = { callbacks, end }
  waitersFor.set(signal, waiters)
  return waiters
}

/** Resolves after `ms`, or as soon as the signal fires (never rejects). The timer alone does not keep a process alive when `background`. */
export function pause(ms: number, signal?: AbortSignal, background = false): Promise<void> {
  if (signal?.aborted) return Promise.resolve()
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer)
      leave?.()
      resolve()
    }
    const timer = setTimeout(done, Math.min(ms, MAX_TIMER_MS))
    if (background) timer.unref()
    const leave = signal && whenAborted(signal, done)
  })
}

/** The longest delay a Node timer takes: 2^31-1 ms, about 24.8 days. */
export const MAX_TIMER_MS = 2_147_483_647

/** A promise with its two ends outside. */
export interface Deferred<T> {
  readonly promise: Promise<T>
  readonly resolve: (value: T) => void
  readonly reject: (error: unknown) => void
}

export function deferred<T = void>(): Deferred<T> {
  let resolve!: (value: T) => void
  let reject!: (error: unknown) => void
  const promise = new Promise<T>((res, rej) => {
    resolve = res
    reject = rej
  })
  promise.catch(() => {})
  return { promise, resolve, reject }
}
