/**
 * The decisions of one sender: the store, the service's `check`, and the words about both. Every decision of a process goes
 * through here, whoever makes it; so whatever is decided is told, and whatever contradicts a decision that stands is told too.
 * Emits transaction.prepared, transaction.decided, transaction.checked, transaction.published, transaction.parked, transaction.warning.
 */
import { within } from '../deadline.ts'
import { InvalidOption } from '../errors.ts'
import type { Events } from '../observability/events.ts'
import { show } from '../options.ts'
import type { CheckAnswer } from './check-back.ts'
import type { Decider, Decision, DecisionScope, DecisionStore, DecisionView } from './decisions.ts'

/** What a check is told beside the transaction id. */
export interface CheckContext {
  /** Fires when the time of this check is over: its answer is not waited for any more. */
  readonly signal: AbortSignal
  /** How often this transaction was asked for, this time included; 0 where `run` asks after its work has failed. */
  readonly check: number
  /** When it was prepared. */
  readonly preparedAt: Date
}

/** The service's word on how a transaction ended. */
export type Check = (transactionId: string, context: CheckContext) => Promise<CheckAnswer> | CheckAnswer

/** What a ledger is put together from. */
export interface LedgerParts {
  readonly store: DecisionStore
  readonly scope: DecisionScope
  readonly check: Check
  readonly checkTimeoutMs: number
  readonly events: Events
}

const ANSWERS: readonly unknown[] = ['commit', 'rollback', 'unknown']

/** The decisions of one sender. */
export class Ledger {
  readonly scope: DecisionScope
  readonly #parts: LedgerParts

  constructor(parts: LedgerParts) {
    this.#parts = parts
    this.scope = parts.scope
  }

  look(transactionIds: readonly string[]): Promise<DecisionView[]> {
    return this.#parts.store.look(this.scope, transactionIds)
  }

  checked(transactionId: string): Promise<number> {
    return this.#parts.store.checked(this.scope, transactionId)
  }

  /** A half message is stored. */
  prepared(transactionId: string, messages: number): void {
    this.#parts.events.emit('transaction.prepared', { name: this.scope.name, transactionId, messages })
  }

  /** Decides, unless it is decided; answers what stands. */
  async decide(transactionId: string, wanted: Decision, by: Decider): Promise<DecisionView> {
    const view = await this.#parts.store.decide(this.scope, transactionId, wanted, by)
    const { decision } = view
    const { name } = this.scope
    if (decision && decision !== wanted) this.contradicted(transactionId, { wanted, by }, { decision, by: view.by })
    else if (view.by === by && !view.published)
      this.#parts.events.emit('transaction.decided', { name, transactionId, decision: wanted, by })
    return view
  }

  /** Committed, and not all out yet: that is remembered from now on for as long again. */
  async stillCommitted(transactionId: string): Promise<void> {
    await this.#parts.store.decide(this.scope, transactionId, 'committed', 'service')
  }

  async published(transactionId: string, of: { readonly halfId: string; readonly messages: number }): Promise<void> {
    const { name } = this.scope
    this.#parts.events.emit('transaction.published', { name, transactionId, messages: of.messages })
    await this.#parts.store.published(this.scope, transactionId, of.halfId)
  }

  /** Asks the service. Never throws: an error, a hang and nonsense are `unknown`, and never a rollback. */
  async ask(transactionId: string, of: { readonly check: number; readonly preparedAt: number }): Promise<CheckAnswer> {
    const { check } = of
    const { answer, error } = await this.#answerOf(transactionId, { check, preparedAt: new Date(of.preparedAt) })
    const { name } = this.scope
    this.#parts.events.emit('transaction.checked', { name, transactionId, check, answer, error })
    return answer
  }

  async #answerOf(
    transactionId: string,
    about: Omit<CheckContext, 'signal'>,
  ): Promise<{ readonly answer: CheckAnswer; readonly error: unknown }> {
    const { check, checkTimeoutMs } = this.#parts
    const over = new AbortController()
    const late = () => new Error(`no answer from check() within ${checkTimeoutMs} ms`)
    try {
      const asked = Promise.resolve().then(() => check(transactionId, { ...about, signal: over.signal }))
      const answer = await within(asked, checkTimeoutMs, late)
      if (ANSWERS.includes(answer)) return { answer, error: undefined }
      const what = 'expected check() to answer "commit", "rollback" or "unknown"'
      return { answer: 'unknown', error: new InvalidOption(`${what}, got ${show(answer)}`) }
    } catch (error) {
      return { answer: 'unknown', error: error ?? new Error('check() threw nothing') }
    } finally {
      over.abort()
    }
  }

  /** A half message was given up on. How often it was asked for is told where the store can say. */
  async parked(transactionId: string, ageMs: number): Promise<void> {
    const [view] = await this.look([transactionId]).catch(() => [])
    const { name } = this.scope
    this.#parts.events.emit('transaction.parked', { name, transactionId, checks: view?.checks ?? 0, ageMs })
  }

  /** Somebody wanted another end than the one that stands; the caller of `commit` and `rollback` is told by an error instead. */
  contradicted(
    transactionId: string,
    late: { readonly wanted: Decision; readonly by: Decider },
    stands: Pick<DecisionView, 'decision' | 'by'>,
  ): void {
    if (late.by === 'service') return
    const who = late.by === 'operator' ? 'an operator says' : 'check() says'
    this.warn(
      transactionId,
      `${who} ${late.wanted}, but it was ${stands.decision} before (by ${stands.by}): the first decision stands`,
    )
  }

  warn(transactionId: string | undefined, warning: string): void {
    this.#parts.events.emit('transaction.warning', { name: this.scope.name, transactionId, warning })
  }
}
