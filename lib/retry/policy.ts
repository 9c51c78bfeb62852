/** Decides after a failed attempt: again in so many ms, or never. Pure but for the clock and the jitter. */
import { type Backoff, exponential, soundDelayMs } from '../backoff.ts'
import type { FailurePolicy, Verdict } from '../consumer/handler.ts'
import { DeadLetterNow, MessageInvalid, RetryLater } from '../errors.ts'
import { callable, checkOptions, having, integer, number } from '../options.ts'

/** How failures are repeated. All have defaults. */
export interface RetryOptions {
  /** Attempts in all, the first included. Default 8. 1 means: never repeat. */
  readonly attempts?: number
  /** The wait before each repeat. Default `exponential()`: full jitter, 1 s * 2^n, at most 5 minutes. */
  readonly backoff?: Backoff
  /** No repeat later than this after the first failure, ms. Default 24 hours. */
  readonly maxAgeMs?: number
  /** Answers false for errors that no repeat will cure. Default: every error is worth a repeat. */
  readonly retryable?: (error: unknown) => boolean
}

const DAY_MS = 24 * 3_600_000
const MAX_ATTEMPTS = 1_000

/** @throws InvalidOption */
export function retryPolicy(options: RetryOptions = {}): RetryPolicy {
  checkOptions('retry', options, {
    attempts: integer(1, MAX_ATTEMPTS),
    backoff: having('a backoff such as exponential(), fixed() or steps()', 'delayMs', 'maxDelayMs'),
    maxAgeMs: number(0, 365 * DAY_MS),
    retryable: callable,
  })
  const policy = new RetryPolicy(options)
  checkOptions(
    'retry: backoff',
    { 'maxDelayMs()': policy.longestDelayMs },
    { 'maxDelayMs()': number(0, Number.MAX_VALUE) },
  )
  return policy
}

/** A checked retry policy. Made by {@link retryPolicy}. */
export class RetryPolicy implements FailurePolicy {
  readonly attempts: number
  /** The longest time between a message's first failure and its last attempt, ms. */
  readonly spanMs: number
  readonly #backoff: Backoff
  readonly #retryable: (error: unknown) => boolean

  constructor({ attempts = 8, backoff = exponential(), maxAgeMs = DAY_MS, retryable = () => true }: RetryOptions) {
    this.attempts = attempts
    this.spanMs = maxAgeMs
    this.#backoff = backoff
    this.#retryable = retryable
  }

  /** The longest single wait of the backoff, ms: the delay levels up to it are declared at start. */
  get longestDelayMs(): number {
    return this.attempts === 1 ? 0 : Math.max(...this.#failures().map((n) => this.#backoff.maxDelayMs(n)))
  }

  /** The longest a message can wait in all, ms, `RetryLater` not counted. */
  get totalDelayMs(): number {
    return Math.min(
      this.spanMs,
      this.#failures().reduce((sum, n) => sum + this.#backoff.maxDelayMs(n), 0),
    )
  }

  decide(error: unknown, attempt: number, firstFailedAt: number | undefined): Verdict {
    if (error instanceof DeadLetterNow) return { verdict: 'dead', reason: 'refused by the handler' }
    if (error instanceof MessageInvalid) return { verdict: 'dead', reason: 'invalid message' }
    const asked = error instanceof RetryLater ? error.delayMs : undefined
    if (asked === undefined && !this.#worthIt(error)) return { verdict: 'dead', reason: 'error is not retryable' }
    if (attempt >= this.attempts) return { verdict: 'dead', reason: `failed ${attempt} times` }
    const delayMs = asked ?? soundDelayMs(this.#backoff, attempt)
    const now = Date.now()
    if (now + delayMs > (firstFailedAt ?? now) + this.spanMs)
      return { verdict: 'dead', reason: `still failing ${this.spanMs} ms after its first failure` }
    return { verdict: 'retry', delayMs }
  }

  again(attempt: number): Verdict {
    if (attempt > this.attempts) return { verdict: 'dead', reason: `failed ${attempt - 1} times` }
    return { verdict: 'retry', delayMs: soundDelayMs(this.#backoff, Math.max(1, attempt - 1)) }
  }

  /** Anything can be thrown, `undefined` too; a `retryable` that trips over it has not said no. */
  #worthIt(error: unknown): boolean {
    try {
      return this.#retryable(error)
    } catch {
      return true
    }
  }

  #failures(): number[] {
    return Array.from({ length: this.attempts - 1 }, (_, i) => i + 1)
  }
}
