/**
 * The publishes that end with a signal, by signal.
 * Promises: one listener per signal, however many publishes share it (Node warns of a leak from the eleventh); the last of a
 * signal's publishes to end takes the listener with it.
 * Does NOT look at a signal that was aborted before: that is up to whoever takes the publish.
 */
import type { Pending } from './pending.ts'

/** The open publishes of one signal. */
export interface AbortGroup {
  readonly publishes: Set<Pending>
  readonly end: () => void
}

/** A publish that may have a signal. */
export interface Abortable extends Pending {
  abortGroup: AbortGroup | undefined
}

/** Called once per signal that fires. */
export type OnAbort = (publishes: readonly Pending[], reason: unknown) => void

/** All publishes that have a signal. */
export class Aborts {
  readonly #groups = new Map<AbortSignal, AbortGroup>()
  readonly #aborted: OnAbort

  constructor(aborted: OnAbort) {
    this.#aborted = aborted
  }

  add(publish: Abortable, signal: AbortSignal): void {
    publish.abortGroup = this.#groups.get(signal) ?? this.#watch(signal)
    publish.abortGroup.publishes.add(publish)
  }

  /** It has ended. */
  leave(publish: Abortable): void {
    const { abortGroup } = publish
    if (abortGroup?.publishes.delete(publish) && abortGroup.publishes.size === 0) abortGroup.end()
  }

  #watch(signal: AbortSignal): AbortGroup {
    const publishes = new Set<Pending>()
    const abort = () => this.#aborted([...publishes], signal.reason)
    const end = () => {
      signal.removeEventListener('abort', abort)
      this.#groups.delete(signal)
    }
    signal.addEventListener('abort', abort, { once: true })
    const group = { publishes, end }
    this.#groups.set(signal, group)
    return group
  }
}
