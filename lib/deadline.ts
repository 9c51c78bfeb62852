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
  signal.addEventListener('abort', abort, { once: true })
  promise.catch(() => {})
  return Promise.race([promise, aborted.promise]).finally(() => signal.removeEventListener('abort', abort))
}

/** Resolves after `ms`, or as soon as the signal fires (never rejects). The timer alone does not keep a process alive when `background`. */
export function pause(ms: number, signal?: AbortSignal, background = false): Promise<void> {
  if (signal?.aborted) return Promise.resolve()
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer)
      signal?.removeEventListener('abort', done)
      resolve()
    }
    const timer = setTimeout(done, Math.min(ms, MAX_TIMER_MS))
    if (background) timer.unref()
    signal?.addEventListener('abort', done, { once: true })
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
