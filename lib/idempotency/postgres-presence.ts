/**
 * Notices that an owner's presence in the inbox was broken, even if it is back and the reply that would have told was lost.
 *
 * A row of `inbox_owners` says since when its owner has been there without a gap. Whoever saw one "since" and now sees another
 * was away in between: it fell silent for longer than its lease, or the table came back empty.
 */
import type { Scope } from './idempotency.ts'

interface Known {
  since: number | undefined
  lapsed: boolean
}

/** What is known of the presence of this process's owners, per scope. */
export class PostgresPresence {
  readonly #known = new Map<string, Known>()

  /** Notes what the database reported. */
  note(scope: Scope, owner: string, since: number): void {
    const known = this.#of(scope, owner)
    if (known.since !== undefined && known.since !== since) known.lapsed = true
    known.since = since
  }

  /** Has the presence been broken since this was last asked? */
  take(scope: Scope, owner: string, forget: boolean): boolean {
    const known = this.#of(scope, owner)
    const { lapsed } = known
    known.lapsed = false
    if (forget) this.#known.delete(nameOf(scope, owner))
    return lapsed
  }

  #of(scope: Scope, owner: string): Known {
    const name = nameOf(scope, owner)
    let known = this.#known.get(name)
    if (known === undefined) {
      known = { since: undefined, lapsed: false }
      this.#known.set(name, known)
    }
    return known
  }
}

function nameOf(scope: Scope, owner: string): string {
  return `${scope.name}\0${owner}`
}
