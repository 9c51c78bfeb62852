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

/** What is known of one transaction. */
export interface DecisionView {
  readonly decision: Decision | undefined
  /** Epoch ms. */
  readonly decidedAt: number | undefined
  readonly by: Decider | undefined
  /** Every message of the committed transaction has been confirmed. */
  readonly published: boolean
  /** How often `check` was asked. */
  readonly checks: number
}

/** Where decisions are remembered. All methods reject with `StoreUnavailable` when the backend gives no certain answer. Harmless to repeat. */
export interface DecisionStore {
  /** Decides, unless it is decided; answers what stands. */
  decide(name: string, transactionId: string, decision: Decision, by: Decider): Promise<DecisionView>
  /** Reads, in the order asked; changes nothing. */
  look(name: string, transactionIds: readonly string[]): Promise<DecisionView[]>
  /** Notes that a committed transaction's messages are all confirmed. */
  published(name: string, transactionId: string): Promise<void>
  /** Counts one check; answers how many there were. */
  checked(name: string, transactionId: string): Promise<number>
  /** Is the backend reachable, and set up so that it will not forget? Warnings are sentences for an operator. */
  check(): Promise<readonly string[]>
  /** Lets go of what the store opened itself. Harmless when repeated. */
  close(): Promise<void>
}
