/** How long to wait before attempt n: pure arithmetic, no timers. */
import { InvalidOption } from './errors.ts'
import { checkOptions, number, oneOf } from './options.ts'

/** Milliseconds to wait after the given number of failures (1 = after the first). */
export interface Backoff {
  /** The wait in ms, whole. */
  delayMs(failures: number): number
  /** The longest wait this backoff can ask for after that many failures, ms: used to prove retention. */
  maxDelayMs(failures: number): number
}

/** The same wait each time. */
export function fixed(options: { readonly delayMs: number }): Backoff {
  checkOptions('fixed()', options, { delayMs: number(0, MAX_DELAY_MS) })
  return { delayMs: () => options.delayMs, maxDelayMs: () => options.delayMs }
}

/** No wait beyond this: 30 days in ms. */
export const MAX_DELAY_MS = 30 * 24 * 3_600_000

/** Options of {@link exponential}. All have defaults. */
export interface ExponentialOptions {
  /** Wait after the first failure, ms. Default 1,000. */
  readonly baseMs?: number
  /** No wait is longer, ms. Default 300,000 (5 minutes). */
  readonly capMs?: number
  /** Growth per failure. Default 2. */
  readonly factor?: number
  /** `full`: anything from 0 to the computed wait, evenly (AWS Architecture Blog, "Exponential Backoff And Jitter"); `none`: exactly it. Default `full`. */
  readonly jitter?: 'full' | 'none'
}

/** base * factor^(failures-1), at most cap, with full jitter unless told otherwise. */
export function exponential(options: ExponentialOptions = {}): Backoff {
  checkOptions('exponential()', options, {
    baseMs: number(1, MAX_DELAY_MS),
    capMs: number(1, MAX_DELAY_MS),
    factor: number(1, 1_000),
    jitter: oneOf('full', 'none'),
  })
  const { baseMs = 1_000, capMs = 300_000, factor = 2, jitter = 'full' } = options
  const maxDelayMs = (failures: number) => Math.min(capMs, baseMs * factor ** Math.min(failures - 1, 1_000))
  return {
    maxDelayMs,
    delayMs: (failures) => Math.round(maxDelayMs(failures) * (jitter === 'full' ? Math.random() : 1)),
  }
}

/** A list of waits; the last one repeats. */
export function steps(...delaysMs: readonly number[]): Backoff {
  for (const delayMs of delaysMs) checkOptions('steps()', { delayMs }, { delayMs: number(0, MAX_DELAY_MS) })
  if (delaysMs.length === 0) throw new InvalidOption('steps(): expected at least one wait in ms, got none')
  const at = (failures: number) => delaysMs[Math.min(failures, delaysMs.length) - 1]!
  return { delayMs: at, maxDelayMs: at }
}

const FALLBACK = exponential()

/** What a backoff asks for, which may be of a user's own making: where it throws, or answers nonsense, what {@link exponential} asks for. */
export function soundDelayMs(backoff: Backoff, failures: number): number {
  try {
    const delayMs = backoff.delayMs(failures)
    if (typeof delayMs === 'number' && delayMs >= 0) return delayMs
  } catch {
    // as below
  }
  return FALLBACK.delayMs(failures)
}
