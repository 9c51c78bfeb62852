/**
 * The condition of a relay: its state, why nothing is sent now, and since when the broker has been out of reach.
 *
 *     starting ──▶ running ⇄ paused (broker or database out of reach) ──▶ closing ──▶ closed
 *
 * Promises: every change of state is told once. Emits relay.state.
 * Does NOT look by itself: `problem` is what is known now, the state is what was known when it was last judged.
 */
import type { Events } from '../observability/events.ts'
import { explainSql } from '../sql/trouble.ts'
import type { Sender } from './relay-send.ts'

/** What a condition is judged by. */
export interface ConditionParts {
  readonly events: Events
  /** Name of the outbox. */
  readonly outbox: string
  readonly sender: Sender
  /** So long after it has lost the broker a relay keeps its share. */
  readonly leaseMs: number
  /** What is being tried when the database fails, for a person. */
  readonly doing: string
}

type State = 'starting' | 'running' | 'paused' | 'closing' | 'closed'

const NEVER = Number.POSITIVE_INFINITY

/** The condition of one relay. */
export class Condition {
  readonly #parts: ConditionParts
  #state: State = 'starting'
  /** Why the database cannot be asked, as the loop and the clearing found. */
  readonly #database: { loop: Error | undefined; clearing: Error | undefined } = {
    loop: undefined,
    clearing: undefined,
  }
  #brokerLostAt = NEVER
  #drainUntil = NEVER

  constructor(parts: ConditionParts) {
    this.#parts = parts
  }

  /** Why nothing is sent now. */
  get problem(): string | undefined {
    return (this.#database.loop ?? this.#database.clearing)?.message ?? this.#parts.sender.problem
  }

  get isClosed(): boolean {
    return this.#state === 'closed'
  }

  /** What flies is waited for, and nothing new is begun. */
  get isClosing(): boolean {
    return this.#drainUntil !== NEVER
  }

  /** When what flies is waited for no longer, on the monotonic clock. */
  get drainUntil(): number {
    return this.#drainUntil
  }

  /** When the broker will have been out of reach for so long that others, who may reach it, shall have our share. */
  get abandonAt(): number {
    return this.#brokerLostAt + this.#parts.leaseMs
  }

  /** Asking the database came to this: an error, or undefined. */
  asked(by: 'loop' | 'clearing', error: unknown): void {
    this.#database[by] = error === undefined ? undefined : explainSql(error, this.#parts.doing)
  }

  /**
   * The connection to the broker has changed.
   * @returns how it is now: out of reach, in reach again, or in reach as before
   */
  brokerChanged(): 'away' | 'back' | 'there' {
    const wasAway = this.#brokerLostAt !== NEVER
    const isAway = this.#parts.sender.problem !== undefined
    if (!isAway) this.#brokerLostAt = NEVER
    else if (!wasAway) this.#brokerLostAt = performance.now()
    return isAway ? 'away' : wasAway ? 'back' : 'there'
  }

  started(): void {
    this.#become('running')
  }

  /** Running or paused, as things are now. */
  judge(): void {
    if (this.#state !== 'running' && this.#state !== 'paused') return
    this.#become(this.problem === undefined ? 'running' : 'paused')
  }

  closing(drainUntil: number): void {
    this.#drainUntil = drainUntil
    this.#become('closing')
  }

  closed(): void {
    this.#become('closed')
  }

  #become(to: State): void {
    const from = this.#state
    if (from === to) return
    this.#state = to
    const { events, outbox, sender } = this.#parts
    const why = this.#database.loop ?? this.#database.clearing ?? new Error(sender.problem)
    events.emit('relay.state', { outbox, from, to, error: to === 'paused' ? why : undefined })
  }
}
