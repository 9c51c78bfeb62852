/**
 * Notices when the broker has refused (nacked) every publish to one target for long: the channel may be the reason, not the queue.
 * RabbitMQ 3.10 never tells a channel that it refused over a full quorum queue that there is room again, once the queue's length limit is
 * removed; a new channel is heard at once (measured on 3.10.8; 4.0.5 tells).
 * Promises: one notice per target and `PATIENCE_MS`; holds at most `MOST` targets, whose number publishers do not steer beyond that.
 */

/** How long a target refuses before the channel is blamed, ms: a third of the default deadline, so that a publish outlives it. */
export const PATIENCE_MS = 10_000
const MOST = 100

/** Since when each target refuses. */
export class Refusals {
  readonly #since = new Map<string, number>()

  /** @returns true where this has gone on for long; the count begins anew then */
  nacked(exchange: string, routingKey: string, now: number): boolean {
    const target = `${exchange}\n${routingKey}`
    const since = this.#since.get(target)
    if (since === undefined) {
      if (this.#since.size < MOST) this.#since.set(target, now)
      return false
    }
    if (now - since < PATIENCE_MS) return false
    this.#since.clear()
    return true
  }

  acked(exchange: string, routingKey: string): void {
    if (this.#since.size > 0) this.#since.delete(`${exchange}\n${routingKey}`)
  }

  /** The channel is another one. */
  forget(): void {
    this.#since.clear()
  }
}
