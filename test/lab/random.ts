// Chance from a printed seed: the same seed makes the same choices in the same order.

/** A stream of choices. */
export interface Random {
  readonly seed: number
  /** A whole number from `least` to `most`, both included. */
  between(least: number, most: number): number
  /** One of them. */
  pick<T>(from: readonly T[]): T
}

/** Begins a stream. */
export function randomFrom(seed: number): Random {
  // mulberry32, public domain (Tommy Ettinger): small, and enough to deal out faults.
  let state = seed >>> 0
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
  const between = (least: number, most: number) => least + Math.floor(next() * (most - least + 1))
  return { seed, between, pick: (from) => from[between(0, from.length - 1)]! }
}
