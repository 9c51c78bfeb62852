// Time that passes only when told to: timers, clocks and chance of this process, for a test that plays whole afternoons in milliseconds.
//
// Promises: timers fire in order of their time; between two of them all promises and immediates settle.

type Timer = { readonly at: number; readonly order: number; readonly fire: () => void }

const real = {
  setTimeout: globalThis.setTimeout,
  clearTimeout: globalThis.clearTimeout,
  setImmediate: globalThis.setImmediate,
  dateNow: Date.now,
  random: Math.random,
}
const FLUSHES = 3

export class VirtualTime {
  /** Ms since the start. */
  now = 0
  readonly #startedAt = real.dateNow()
  readonly #timers = new Set<Timer>()
  #order = 0
  #seed: number

  constructor(seed: number) {
    this.#seed = seed
  }

  /** Takes over this process's clock until `uninstall`. */
  install(): void {
    const replacement = (fn: (...args: unknown[]) => void, ms = 0, ...args: unknown[]) =>
      this.#set(() => fn(...args), ms)
    globalThis.setTimeout = replacement as unknown as typeof setTimeout
    globalThis.clearTimeout = ((timer: Timer | undefined) => this.#timers.delete(timer!)) as typeof clearTimeout
    Object.defineProperty(performance, 'now', { value: () => this.now, configurable: true })
    Date.now = () => this.#startedAt + Math.floor(this.now)
    Math.random = () => this.#chance()
  }

  uninstall(): void {
    globalThis.setTimeout = real.setTimeout
    globalThis.clearTimeout = real.clearTimeout
    Reflect.deleteProperty(performance, 'now')
    Date.now = real.dateNow
    Math.random = real.random
  }

  sleep(ms: number): Promise<void> {
    return new Promise((resolve) => void this.#set(resolve, ms))
  }

  /** Lets everything settle that needs no time. */
  async settle(): Promise<void> {
    for (let i = 0; i < FLUSHES; i++) await new Promise<void>((resolve) => real.setImmediate(resolve))
  }

  /** Goes on, timer by timer, until `done` or the given time. @returns whether it was done */
  async pass(done: () => boolean, untilMs: number): Promise<boolean> {
    for (;;) {
      await this.settle()
      if (done()) return true
      const next = [...this.#timers].reduce<Timer | undefined>((a, b) => (a && before(a, b) ? a : b), undefined)
      if (!next || next.at > untilMs) return false
      this.#timers.delete(next)
      this.now = Math.max(this.now, next.at)
      next.fire()
    }
  }

  #set(fire: () => void, ms: number): Timer {
    const timer = { at: this.now + Math.max(1, ms), order: this.#order++, fire, unref: () => timer, ref: () => timer }
    this.#timers.add(timer)
    return timer
  }

  /** Mulberry32. */
  #chance(): number {
    this.#seed = (this.#seed + 0x6d2b79f5) | 0
    let t = Math.imul(this.#seed ^ (this.#seed >>> 15), 1 | this.#seed)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}

function before(a: Timer, b: Timer): boolean {
  return a.at < b.at || (a.at === b.at && a.order < b.order)
}
