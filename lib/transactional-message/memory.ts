/**
 * Remembers decisions in this process's memory: for tests, and for trying things out.
 *
 * Promises: the whole contract of `DecisionStore`, at once and without I/O; records that have expired are dropped bit by bit as
 * the store is used.
 * Does NOT promise: anything after a restart, or between two processes. For those, use Redis or Postgres.
 */
import { Closed } from '../errors.ts'
import {
  type Decider,
  type Decision,
  type DecisionScope,
  type DecisionStore,
  type DecisionView,
  UNDECIDED,
} from './decisions.ts'

interface Kept {
  readonly view: DecisionView
  readonly expiresAtMs: number
}

/** How many expired records a write drops. */
const SWEPT_PER_WRITE = 2

/** A {@link DecisionStore} in memory. See the module's header for what it does not promise. */
export class MemoryDecisionStore implements DecisionStore {
  /** In the order of their last change: the oldest first. */
  readonly #records = new Map<string, Kept>()
  #closed = false

  /** How many records are held, expired ones that were not yet dropped included. */
  get size(): number {
    return this.#records.size
  }

  async decide(scope: DecisionScope, transactionId: string, decision: Decision, by: Decider): Promise<DecisionView> {
    const before = this.#read(scope, transactionId)
    if (before.decision) return this.#write(scope, transactionId, before)
    return this.#write(scope, transactionId, { ...before, decision, by, decidedAt: Date.now() })
  }

  async look(scope: DecisionScope, transactionIds: readonly string[]): Promise<DecisionView[]> {
    return transactionIds.map((id) => this.#read(scope, id))
  }

  async published(scope: DecisionScope, transactionId: string, halfId: string): Promise<void> {
    const before = this.#read(scope, transactionId)
    if (before.decision === 'rolled-back') return
    const decided = before.decision ? {} : { decision: 'committed', by: 'service', decidedAt: Date.now() }
    this.#write(scope, transactionId, { ...before, ...decided, published: halfId } as DecisionView)
  }

  async checked(scope: DecisionScope, transactionId: string): Promise<number> {
    const before = this.#read(scope, transactionId)
    return this.#write(scope, transactionId, { ...before, checks: before.checks + 1 }).checks
  }

  async check(): Promise<readonly string[]> {
    if (this.#closed) throw closed()
    return ['Decisions are kept in memory: a restart forgets them, and other processes do not see them.']
  }

  async close(): Promise<void> {
    this.#closed = true
  }

  /** Forgets everything, as a backend may that loses its data. */
  clear(): void {
    this.#records.clear()
  }

  #read({ name }: DecisionScope, transactionId: string): DecisionView {
    if (this.#closed) throw closed()
    const kept = this.#records.get(keyOf(name, transactionId))
    return kept && kept.expiresAtMs > Date.now() ? kept.view : UNDECIDED
  }

  #write({ name, retentionMs }: DecisionScope, transactionId: string, view: DecisionView): DecisionView {
    const key = keyOf(name, transactionId)
    const untilMs = this.#records.get(key)?.expiresAtMs ?? 0
    this.#records.delete(key)
    this.#records.set(key, { view, expiresAtMs: Math.max(untilMs, Date.now() + retentionMs) })
    this.#sweep()
    return view
  }

  #sweep(): void {
    let left = SWEPT_PER_WRITE
    for (const [key, { expiresAtMs }] of this.#records) {
      if (left-- === 0 || expiresAtMs > Date.now()) return
      this.#records.delete(key)
    }
  }
}

function keyOf(name: string, transactionId: string): string {
  return `${name}\n${transactionId}`
}

function closed(): Closed {
  return new Closed('the decision store was closed; open a new one')
}
