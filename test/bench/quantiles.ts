/** The value below which so much of the samples lies. Pure. */

/** `q` from 0 to 1: 0.5 is the middle one, 1 the greatest; NaN for no samples. */
export function quantiles(samples: readonly number[]): (q: number) => number {
  const sorted = [...samples].sort((a, b) => a - b)
  return (q) => sorted[Math.max(0, Math.ceil(q * sorted.length) - 1)] ?? Number.NaN
}
