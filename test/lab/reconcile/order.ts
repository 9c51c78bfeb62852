// The order of keys, and the longest time in which nothing was handled. Pure.

/** One message of a key. */
export interface Placed {
  readonly id: string
  /** Its number within the key. */
  readonly n: number
  /** When, or where, its first effect came. */
  readonly place: number
  /** When it was accepted, and when it was handled. */
  readonly from: number
  readonly until: number
}

/** Does one of these times fall into the time in which the message was on its way? Times in order. */
export function within({ from, until }: Placed, times: readonly number[]): boolean {
  const next = times.find((time) => time >= from)
  return next !== undefined && next <= until
}

/** The messages of one key whose first effect came after that of a later one. */
export function overtaken(messages: readonly Placed[]): Placed[] {
  let earliest = Number.POSITIVE_INFINITY
  const late: Placed[] = []
  for (const message of messages.toSorted((a, b) => b.n - a.n)) {
    if (message.place > earliest) late.push(message)
    else earliest = message.place
  }
  return late.reverse()
}

/**
 * The longest time without any first effect while an accepted message waited for its own, ns.
 * @param waits pairs: when it was accepted, when it was handled; in any order
 */
export function longestGapNs(waits: readonly (readonly [number, number])[]): number {
  const inOrder = waits.toSorted((a, b) => a[1] - b[1])
  let longest = 0
  // From the last: the earliest acceptance among all that were still waiting.
  let waitingSince = Number.POSITIVE_INFINITY
  for (let i = inOrder.length - 1; i >= 0; i--) {
    const [accepted, handled] = inOrder[i]!
    waitingSince = Math.min(waitingSince, accepted)
    const before = i === 0 ? Number.NEGATIVE_INFINITY : inOrder[i - 1]![1]
    longest = Math.max(longest, handled - Math.max(before, waitingSince))
  }
  return longest
}
