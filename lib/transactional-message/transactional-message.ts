/**
 * Sends messages exactly if local work succeeded, where that work's store cannot hold an outbox row: a document database, a file,
 * somebody else's API. The field's name for it is the half message (Apache RocketMQ's transactional messages).
 *
 *     prepare ──stored──▶ local work ──▶ commit ──▶ messages sent
 *                                   └──▶ rollback          nobody says a word (crash, lost store): check-back, see check-back.ts
 *
 * Promises: local work begins only when the broker has confirmed the half message, which no consumer can see; one place decides
 * (the decision store), the first decision is final, and whoever comes later with the other one is told so by an error; a committed
 * transaction's messages are all published, at least once, with the ids they were prepared with, whatever dies; a rolled-back
 * one's never; an undecided one is never dropped: it ends with an operator.
 * commit() never fails in a way that looks like "not committed" when it is: once the decision stands it resolves, with `published`
 * or, where the messages could not be sent just now, `decided`. run() does not fail over a store that cannot be used when its work is
 * done, since a caller would repeat the work: it says `undecided`, and `check` will be asked.
 * Does NOT promise that `check` is right: it must answer `rollback` only for work that did not happen and never will.
 * Nor that a message is sent once, nor any order between two transactions.
 */
import { within } from '../deadline.ts'
import { AlreadyCommitted, AlreadyRolledBack, Closed, InvalidOption, textOf } from '../errors.ts'
import { callable, checkOptions, needed } from '../options.ts'
import type { OutboxMessage } from '../outbox/prepare.ts'
import type { LentClient } from '../sql/client.ts'
import type { CheckQueue } from './check-queue.ts'
import type { DecisionView } from './decisions.ts'
import type { HalfMessage } from './envelope.ts'
import { explainMismatch } from './half-queues.ts'
import type { Ledger } from './ledger.ts'
import { type Settings, TRANSACTION_ID } from './options.ts'
import type { Outlet } from './outlet.ts'
import type { ParkedWatch } from './parked-watch.ts'
import type { PreparedHere } from './prepared-here.ts'
import { committed, type PrepareOptions, type Preparer, rolledBack } from './preparer.ts'

/**
 * `published`: every message is confirmed. `decided`: the decision stands and the messages will be sent by check-back, within
 * `firstCheckMs` of the prepare where the broker can be reached (where it was parked already: within twice `checkCapMs`).
 */
export type CommitOutcome = 'published' | 'decided'

/** A commit that stands. */
export interface Committed {
  readonly transactionId: string
  readonly outcome: CommitOutcome
}

/** How a `run` ended whose work did not throw. */
export interface RunResult<Result> {
  readonly transactionId: string
  /** What the work returned. */
  readonly result: Result
  /** `rolled-back`: the work asked for it. `undecided`: the store could not be used when the work was done; `check` will be asked. */
  readonly outcome: CommitOutcome | 'rolled-back' | 'undecided'
}

/** What the work of a `run` may say. */
export interface WorkContext {
  /** Surely nothing happened, or it has been undone: roll back when the work ends, by returning or by throwing. `check` is not asked. */
  rollback(): void
}

/** A stored half message; local work may begin. */
export interface Prepared {
  readonly transactionId: string
  /** See {@link Transactional.commit}. */
  commit(): Promise<Committed>
  /** See {@link Transactional.rollback}. */
  rollback(): Promise<void>
}

/** What a sender is put together from. */
export interface TransactionalParts {
  readonly name: string
  readonly settings: Settings
  /** Checks the store and declares the queues. */
  readonly ready: () => Promise<void>
  readonly ledger: Ledger
  readonly preparer: Preparer
  readonly outlet: Outlet
  readonly queue: CheckQueue
  readonly watch: ParkedWatch
  readonly prepared: PreparedHere
}

/** So long a commit waits for the broker before it says `decided`, ms. */
const COMMIT_PUBLISH_MS = 10_000

/** A sender of transactional messages. Made by `surehop.transactional()`. */
export class Transactional {
  readonly name: string
  readonly #parts: TransactionalParts
  /** What runs, so that close() can wait for it. */
  readonly #running = new Set<Promise<unknown>>()
  #isClosed = false
  #closed: Promise<void> | undefined

  /** Use `surehop.transactional()`. */
  constructor(parts: TransactionalParts) {
    this.#parts = parts
    this.name = parts.name
  }

  /** Sentences for an operator; empty when all is well. */
  get problems(): readonly string[] {
    return this.#parts.queue.problems
  }

  /** True once `close()` has ended. */
  get isClosed(): boolean {
    return this.#isClosed
  }

  /** Half messages that this instance has in hand because nobody has decided them yet. */
  get undecided(): number {
    return this.#parts.queue.held
  }

  /** Begins to check back. `surehop.transactional()` does. @throws see there; nothing is left open then */
  async start(): Promise<void> {
    const { ready, queue, watch } = this.#parts
    try {
      await ready()
      await queue.start()
      watch.start()
    } catch (error) {
      await this.close()
      throw explainMismatch(error, this.name)
    }
  }

  /**
   * Stores messages so that no consumer sees them. Local work may begin when this has resolved, and not before.
   * Ids, timestamps and the beginning of delays are fixed now. A message without a transaction id of its own gets
   * this one's; give one where this is part of a larger business transaction (the incoming message's, within a handler).
   * @throws MessageInvalid naming the field; PublishFailed: it may be stored, but nothing is sent unless `check` says "commit";
   *   AlreadyCommitted, AlreadyRolledBack for an id of yours that was decided before; StoreUnavailable; InvalidOption; Closed
   */
  prepare(messages: readonly OutboxMessage[], options: PrepareOptions = {}): Promise<Prepared> {
    return this.#track(async () => {
      const { transactionId } = await this.#prepare(messages, options)
      return {
        transactionId,
        commit: () => this.commit(transactionId),
        rollback: () => this.rollback(transactionId),
      }
    })
  }

  /**
   * Prepares, runs the work, and commits when it resolves. When it throws, `check` is asked once whether something happened
   * nevertheless (a timeout does not prove that nothing did), and the work's error is thrown in any case.
   * @param work is given the transaction id; store it with what you do, so that `check` can tell
   * @throws what `prepare` throws: the work did not run then; what the work throws; AlreadyRolledBack: the work was done, but a check
   *   or an operator had rolled back before: undo it, nothing will be sent; AlreadyCommitted: the work said `rollback()` too late
   */
  run<Result>(
    messages: readonly OutboxMessage[],
    work: (transactionId: string, context: WorkContext) => Promise<Result> | Result,
    options: PrepareOptions = {},
  ): Promise<RunResult<Result>> {
    return this.#track(async () => {
      checkOptions('run()', { work }, { work: needed(callable) })
      return this.#run(await this.#prepare(messages, options), work)
    })
  }

  /**
   * The work was done: the messages are to be sent. Also from another process, and harmless to repeat.
   * Where this process prepared them they are published at once; else by the consumers of the check queue, within `firstCheckMs`
   * of the prepare. An id that was never prepared is not found out: there is nothing to send for it.
   * @throws AlreadyRolledBack: nothing is sent; StoreUnavailable: undecided, repeat it or leave it to check-back; InvalidOption; Closed
   */
  commit(transactionId: string): Promise<Committed> {
    return this.#track(async () => {
      checkOptions('commit()', { transactionId }, { transactionId: TRANSACTION_ID })
      return { transactionId, outcome: await this.#commit(transactionId, 'service') }
    })
  }

  /**
   * The work did not happen, and never will: nothing is sent. Also from another process, and harmless to repeat.
   * @throws AlreadyCommitted: the messages are sent, or will be; StoreUnavailable: undecided; InvalidOption; Closed
   */
  rollback(transactionId: string): Promise<void> {
    return this.#track(async () => {
      checkOptions('rollback()', { transactionId }, { transactionId: TRANSACTION_ID })
      await this.#rollback(transactionId, 'service')
    })
  }

  /**
   * Commits in your own database transaction: work in that database and the decision are one. Afterwards call `commit` to have the
   * messages sent at once; else they are within `firstCheckMs`. Needs a `PostgresDecisionStore`.
   * @param client with an open transaction
   * @throws AlreadyRolledBack: roll your transaction back; InvalidOption; what the database says, as the driver throws it
   */
  commitIn(client: LentClient, transactionId: string): Promise<void> {
    return this.#track(async () => {
      checkOptions('commitIn()', { transactionId }, { transactionId: TRANSACTION_ID })
      const { settings, ledger } = this.#parts
      const { decisions } = settings
      if (!('decideIn' in decisions))
        throw new InvalidOption('commitIn(): expected decisions to be a PostgresDecisionStore over the same database')
      const view = await decisions.decideIn(client, ledger.scope, { transactionId, decision: 'committed' })
      if (view.decision !== 'committed') throw rolledBack(transactionId, view)
    })
  }

  /** Takes no more, finishes what runs, hands back what is held. What is stored stays stored. Harmless when repeated. */
  close(): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #close(): Promise<void> {
    const { queue, watch, prepared, settings } = this.#parts
    const ended = Promise.allSettled([...this.#running])
    await within(ended, settings.drainMs, () => new Closed('')).catch(() => {})
    await Promise.all([watch.close(), queue.close()])
    prepared.clear()
    this.#isClosed = true
  }

  async #prepare(messages: readonly OutboxMessage[], options: PrepareOptions): Promise<HalfMessage> {
    const half = await this.#parts.preparer.prepare(messages, options)
    this.#parts.prepared.add(half)
    return half
  }

  async #run<Result>(
    half: HalfMessage,
    work: (transactionId: string, context: WorkContext) => Promise<Result> | Result,
  ): Promise<RunResult<Result>> {
    const { transactionId } = half
    let nothing = false
    const context = {
      rollback: () => {
        nothing = true
      },
    }
    let result: Result
    try {
      result = await work(transactionId, context)
    } catch (error) {
      await this.#afterFailure(half, nothing)
      throw error
    }
    const outcome = await this.#afterWork(transactionId, nothing)
    return { transactionId, result, outcome }
  }

  async #afterWork(transactionId: string, nothing: boolean): Promise<RunResult<unknown>['outcome']> {
    try {
      if (!nothing) return await this.#commit(transactionId, 'service')
      await this.#rollback(transactionId, 'service')
      return 'rolled-back'
    } catch (error) {
      // Whatever else it is (a lost right, a closed pool): the caller would take it for a work that did not run.
      if (error instanceof AlreadyRolledBack || error instanceof AlreadyCommitted) throw error
      const what = nothing ? 'rolled back' : 'committed'
      this.#parts.ledger.warn(transactionId, `its work is done, but it could not be ${what} now: ${textOf(error)}`)
      return 'undecided'
    }
  }

  /** The work's own error is what the caller must hear; whatever cannot be settled here is left to check-back. */
  async #afterFailure({ transactionId, preparedAt }: HalfMessage, nothing: boolean): Promise<void> {
    const { ledger } = this.#parts
    try {
      const answer = nothing ? 'rollback' : await ledger.ask(transactionId, { check: 0, preparedAt })
      const by = nothing ? 'service' : 'check'
      if (answer === 'rollback') await this.#rollback(transactionId, by)
      if (answer === 'commit') await this.#commit(transactionId, by)
    } catch (error) {
      ledger.warn(transactionId, `its work failed, and it could not be decided now: ${textOf(error)}`)
    }
  }

  async #commit(transactionId: string, by: 'service' | 'check'): Promise<CommitOutcome> {
    const view = await this.#parts.ledger.decide(transactionId, 'committed', by)
    if (view.decision === 'committed') return this.#publish(transactionId, view)
    this.#parts.prepared.drop(transactionId)
    throw rolledBack(transactionId, view)
  }

  async #rollback(transactionId: string, by: 'service' | 'check'): Promise<void> {
    const { decision } = await this.#parts.ledger.decide(transactionId, 'rolled-back', by)
    if (decision === 'committed') throw committed(transactionId)
    this.#parts.prepared.drop(transactionId)
  }

  /** The decision stands: from here on nothing is an error. What is not published here is by check-back. */
  async #publish(transactionId: string, view: DecisionView): Promise<CommitOutcome> {
    const { prepared, outlet, ledger } = this.#parts
    const halves = prepared.of(transactionId)
    if (halves.length === 0) return view.published === undefined ? 'decided' : 'published'
    try {
      for (const half of halves) {
        if (half.halfId === view.published) continue
        await outlet.publish(half, COMMIT_PUBLISH_MS)
        await ledger.published(transactionId, { halfId: half.halfId, messages: half.messages.length }).catch(() => {})
      }
      prepared.drop(transactionId)
      return 'published'
    } catch (error) {
      ledger.warn(transactionId, `committed, and its messages are left to check-back: ${textOf(error)}`)
      return 'decided'
    }
  }

  #track<T>(run: () => Promise<T>): Promise<T> {
    if (this.#closed) return Promise.reject(new Closed(`transactional("${this.name}") is closed`))
    const running = run()
    this.#running.add(running)
    const done = () => this.#running.delete(running)
    running.then(done, done)
    return running
  }
}
