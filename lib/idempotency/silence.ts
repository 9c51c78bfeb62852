/**
 * What was heard of the store, and for how long claims wait after a silence in which leases may have run out.
 *
 *     heard in time ──heard late, or an old grant──▶ grace ──RENEWAL_GRACE_MS, at most a lease──▶ heard in time
 *
 * Promises: after a silence (an outage, a store or a process that was frozen) nothing need be claimed until every instance has had
 * the time to renew its leases and to record what it finished meanwhile: else the quickest would run again what another has just
 * done. A store that is slow all the time, or every other time, keeps nobody from claiming for ever.
 * Does NOT promise anything about a claim that was on its way when the silence began, and cannot be called back: see `record.ts`.
 * Knows neither store nor claims, only the clock.
 */
import { RENEWAL_GRACE_MS } from './record.ts'

/** The silence of one store, as one of its owners heard it. Times are monotonic ms. */
export class StoreSilence {
  readonly #leaseMs: number
  /** When the last renewal was answered, and whether it was late. */
  #heardAt = performance.now()
  #late = false
  #claimsFrom = Number.NEGATIVE_INFINITY

  constructor(leaseMs: number) {
    this.#leaseMs = leaseMs
  }

  /** How much longer claims wait, ms; none where it is not positive. */
  get leftMs(): number {
    return this.#claimsFrom - performance.now()
  }

  /** The store was heard for the first time. */
  begins(): void {
    this.#heardAt = performance.now()
  }

  /**
   * A renewal was answered, in an outage or not. Others renewed up to a third of a lease before us: with less than half of one between
   * two answers, none of theirs has run out. A store that is slow all the time, or every other time, and not away, must not keep us
   * from claiming for ever: after a grace, claims go on for as long at least.
   */
  heard(outage: boolean): void {
    const now = performance.now()
    const late = now - this.#heardAt > this.#leaseMs / 2
    const news = !this.#late && now - this.#claimsFrom > this.#graceMs
    if (late && (outage || news)) this.grace()
    this.#heardAt = now
    this.#late = late
  }

  /** Others need the time to renew, from now on. */
  grace(): void {
    this.#claimsFrom = performance.now() + this.#graceMs
  }

  get #graceMs(): number {
    return Math.min(RENEWAL_GRACE_MS, this.#leaseMs)
  }
}
