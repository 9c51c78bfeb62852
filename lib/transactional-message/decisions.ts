/**
 * Where the fate of a transactional (half) message is decided: one record per transaction, first writer wins.
 *
 *     undecided ──decide──▶ committed ──all messages confirmed──▶ published
 *         └──────decide──▶ rolled-back
 *
 * Promises: of any number of deciders at the same time, exactly one decision stands, and each is told which; it never changes
 * while it is remembered. Does NOT promise to remember when the backend forgets: then the service's `check` is asked again, and a
 * repeated publish carries the same ids.
 */

/** How a transaction ended. */
export type Decision = 'committed' | 'rolled-back'

/** Who decided: the service itself, its `check`, or an operator. */
export type Decider = 'service' | 'check' | 'operator'

/** Whose transactions, and how long a record is kept after it was last written. */
export interface DecisionScope {
  /** Name of the transactional sender. */
  readonly name: string
  readonly retentionMs: number
}

/** What is known of one transaction. */
export interface DecisionView {
  readonly decision: Decision | undefined
  /** Epoch ms, by the clock of the store. */
  readonly decidedAt: number | undefined
  readonly by: Decider | undefined
  /** Id of the half message whose messages have all been confirmed; of several under one transaction id, the latest. */
  readonly published: string | undefined
  /** How often `check` was asked. */
  readonly checks: number
}

/** Where decisions are remembered. All methods reject with `StoreUnavailable` when the backend gives no certain answer. Harmless to repeat. */
export interface DecisionStore {
  /** Decides, unless it is decided; answers what stands, and remembers that for as long again. */
  decide(scope: DecisionScope, transactionId: string, decision: Decision, by: Decider): Promise<DecisionView>
  /** Reads, in the order asked; changes nothing. */
  look(scope: DecisionScope, transactionIds: readonly string[]): Promise<DecisionView[]>
  /**
   * Notes that the messages of a committed transaction's half message are all confirmed. Where the decision was forgotten
   * meanwhile, it is committed again: its messages are out. A rolled-back one stays as it is.
   */
  published(scope: DecisionScope, transactionId: string, halfId: string): Promise<void>
  /** Counts one check; answers how many there were. */
  checked(scope: DecisionScope, transactionId: string): Promise<number>
  /** Is the backend reachable, and set up so that it will not forget? Warnings are sentences for an operator. */
  check(): Promise<readonly string[]>
  /** Lets go of what the store opened itself. Harmless when repeated. */
  close(): Promise<void>
}

/** Nothing is known of it. */
export const UNDECIDED: DecisionView = {
  decision: undefined,
  decidedAt: undefined,
  by: undefined,
  published: undefined,
  checks: 0,
}
