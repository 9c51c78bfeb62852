/**
 * Counts the attempts at one connection: how long to wait before the next, and when none is worth making. Needs no broker.
 *
 *     never open:  refused for good, and every URL was tried ──▶ final
 *     open before: refused for good ten times (a password was rotated) ──▶ final
 *
 * Promises: pauses grow, with jitter, up to a ceiling, and are short again after an opening; a broker that is merely away is tried for ever.
 * Does NOT promise that what it calls final is: see refusal.ts for what is taken for a refusal.
 */
import type { ConnectionRefused } from '../errors.ts'
import type { ConnectionOptions } from './connection-options.ts'
import { permanentRefusal } from './refusal.ts'

/** What a failed attempt came to. */
export interface FailedAttempt {
  /** Why this attempt failed. */
  readonly error: Error
  /** What to say while there is no connection: a refusal, of whichever URL, rather than that another was out of reach. */
  readonly lastError: Error
  /** Set where no further attempt is worth making. */
  readonly final: ConnectionRefused | undefined
}

/** So many permanent refusals end a connection that was open before. */
const REFUSALS_UNTIL_FINAL = 10

/** The attempts at one connection. */
export class Attempts {
  readonly #options: Pick<ConnectionOptions, 'urls' | 'reconnectBaseMs' | 'reconnectCapMs'>
  #everOpen = false
  /** Since the latest opening, like all that follows. */
  #pauses = 0
  #failed = 0
  #refusals = 0
  #refusal: ConnectionRefused | undefined

  constructor(options: Pick<ConnectionOptions, 'urls' | 'reconnectBaseMs' | 'reconnectCapMs'>) {
    this.#options = options
  }

  opened(): void {
    this.#everOpen = true
    this.#pauses = 0
    this.#failed = 0
    this.#refusals = 0
    this.#refusal = undefined
  }

  failed(error: Error, url: string): FailedAttempt {
    const refusal = permanentRefusal(error, url)
    this.#failed++
    if (refusal) this.#refusal = refusal
    if (refusal && refusal.reason !== 'vhost') this.#refusals++
    const final = this.#isHopeless ? this.#refusal : undefined
    return { error: refusal ?? error, lastError: this.#refusal ?? error, final }
  }

  /** How long to wait before the next attempt; each time it is asked longer. The first one is quick. */
  nextPauseMs(): number {
    const { reconnectBaseMs, reconnectCapMs } = this.#options
    const ceiling = Math.min(reconnectCapMs, reconnectBaseMs * 2 ** Math.min(this.#pauses++, 20))
    return ceiling * (0.5 + Math.random() / 2)
  }

  /**
   * Before the first opening: every URL was tried, and one refused. Later: refused again and again, and not over the virtual
   * host, since the broker's reason is not handed on there and may be a limit or a restart.
   */
  get #isHopeless(): boolean {
    if (this.#everOpen) return this.#refusals >= REFUSALS_UNTIL_FINAL
    return this.#failed % this.#options.urls.length === 0
  }
}
