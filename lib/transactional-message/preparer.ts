/**
 * Checks the messages of one transaction, fixes their ids, and stores them as one half message: confirmed and routed.
 * Promises: when it fails, the caller's work must not run, and nothing is sent unless the service's `check` says so. A prepare with an
 * id of ours that failed is rolled back at once where the store can be reached: nobody will ever commit that id.
 */
import { AlreadyCommitted, AlreadyRolledBack, InvalidOption, PublishFailed, type SurehopError } from '../errors.ts'
import { newMessageId } from '../message.ts'
import { checkOptions, show } from '../options.ts'
import { type OutboxMessage, prepare, type ReadyMessage } from '../outbox/prepare.ts'
import type { Encoded } from '../producer/encode.ts'
import type { Publisher } from '../producer/publisher.ts'
import type { Schema } from '../schema.ts'
import type { Declarer } from '../topology/declarer.ts'
import type { Topology } from '../topology/topology.ts'
import type { DecisionView } from './decisions.ts'
import { encodeHalf, type HalfMessage, MAX_HALF_BYTES, MAX_MESSAGES } from './envelope.ts'
import type { Ledger } from './ledger.ts'
import { PREPARE_RULES } from './options.ts'

/** Options of one prepare. */
export interface PrepareOptions {
  /**
   * Your own id of this business transaction, e.g. `order-4711`: what `check` will be asked for. Prepared again after its
   * decision it is refused. Default: a new id. At most 255 bytes.
   */
  readonly transactionId?: string
}

/** What preparing needs. */
export interface PreparerParts {
  readonly service: string
  readonly schemas: Readonly<Record<string, Schema>> | undefined
  readonly topology: Topology
  readonly publisher: Publisher
  readonly declarer: Declarer
  readonly ledger: Ledger
}

const PUBLISH = { mandatory: true, deadlineMs: 30_000 } as const

/** Stores half messages. */
export class Preparer {
  readonly #parts: PreparerParts

  constructor(parts: PreparerParts) {
    this.#parts = parts
  }

  /** @throws MessageInvalid, InvalidOption, PublishFailed, AlreadyCommitted, AlreadyRolledBack, StoreUnavailable */
  async prepare(messages: readonly OutboxMessage[], options: PrepareOptions): Promise<HalfMessage> {
    checkOptions('prepare()', options, PREPARE_RULES)
    const { transactionId = newMessageId() } = options
    const items = await this.#items(messages, transactionId)
    const { service, ledger } = this.#parts
    const half = { halfId: newMessageId(), transactionId, preparedAt: Date.now(), service, messages: items }
    const encoded = encodeHalf(ledger.scope.name, half)
    const own = options.transactionId !== undefined
    if (own) await this.#refuseDecided(transactionId)
    try {
      await this.#store(encoded)
    } catch (error) {
      if (!own) this.#withdraw(transactionId, error)
      throw error
    }
    ledger.prepared(transactionId, items.length)
    return half
  }

  async #items(messages: readonly OutboxMessage[], transactionId: string): Promise<ReadyMessage[]> {
    if (!Array.isArray(messages) || messages.length === 0 || messages.length > MAX_MESSAGES)
      throw new InvalidOption(`prepare(): expected 1 to ${MAX_MESSAGES} messages in an array, got ${show(messages)}`)
    const { service, schemas } = this.#parts
    // A message may belong to a larger business transaction, of which this one is a part.
    const own = messages.map((message) =>
      Object(message) === message ? { ...message, transactionId: message.transactionId ?? transactionId } : message,
    )
    return prepare(own, { service, ...(schemas ? { schemas } : {}), maxBodyBytes: MAX_HALF_BYTES })
  }

  /** Its messages would never be sent, or in spite of a rollback. */
  async #refuseDecided(transactionId: string): Promise<void> {
    const [view] = await this.#parts.ledger.look([transactionId])
    if (view?.decision) throw view.decision === 'committed' ? committed(transactionId) : rolledBack(transactionId, view)
  }

  /** A queue that was deleted under us is declared anew. */
  async #store(encoded: Encoded): Promise<void> {
    const { publisher, declarer, topology } = this.#parts
    try {
      await publisher.publish(encoded, PUBLISH)
    } catch (error) {
      if (!(error instanceof PublishFailed && error.outcome === 'returned')) throw error
      declarer.forget()
      await declarer.declare(topology)
      await publisher.publish(encoded, PUBLISH)
    }
  }

  /** It may be stored nevertheless; without this, `check` would be asked for an id that nobody ever heard of. */
  #withdraw(transactionId: string, error: unknown): void {
    const doubtful = error instanceof PublishFailed && (error.outcome === 'unknown' || error.outcome === 'nacked')
    if (doubtful) this.#parts.ledger.decide(transactionId, 'rolled-back', 'service').catch(() => {})
  }
}

export function committed(transactionId: string): SurehopError {
  return new AlreadyCommitted(
    `transaction ${transactionId} is committed: its messages are sent, or will be, and that cannot be taken back. A transaction id stands for one transaction`,
  )
}

export function rolledBack(transactionId: string, { by }: DecisionView): SurehopError {
  const who = by === 'check' ? 'a check ("rollback" was the answer)' : by === 'operator' ? 'an operator' : 'the service'
  return new AlreadyRolledBack(
    `transaction ${transactionId} was rolled back before, by ${who}: its messages are not sent, and the first decision is final. Undo the local work. If the check was too early, raise firstCheckMs above the time your work takes`,
  )
}
