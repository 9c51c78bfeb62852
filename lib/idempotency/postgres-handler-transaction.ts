/**
 * The transaction of a handler on a client of its own, out of the pool that the inbox has too.
 *
 *     a free place ─▶ client ─▶ BEGIN ─▶ work ─▶ COMMIT ─▶ client back
 *                                          └─failed, or the signal fired and work does not end─▶ ROLLBACK, or the connection closed
 *
 * Promises: handlers leave clients of the pool to the inbox itself, which could else not keep their leases; nothing is committed
 * after the signal has fired, and a connection whose handler goes on regardless is closed, so that its locks are gone, while its end
 * is still waited for (the same message must not run beside it); a COMMIT without an answer is told as such, and one that Postgres
 * answers with a rollback is a failure.
 */
import { pause, unlessAborted, within } from '../deadline.ts'
import { CommitRefused, DatabaseUnavailable, InvalidOption, textOf } from '../errors.ts'
import { refuseRolledBack, type SqlPool, type SqlPoolClient } from '../sql/client.ts'
import { lentFor } from '../sql/lent-for.ts'
import { explainSql } from '../sql/trouble.ts'

/** The isolation levels of Postgres. */
export type Isolation = 'read committed' | 'repeatable read' | 'serializable'

/** How the transactions of handlers are begun. */
export interface HandlerTransactionOptions {
  readonly isolation: Isolation
  readonly idleTimeoutMs: number
}

/** A handler whose signal has fired may take so long to end by itself, ms. */
const PATIENCE_MS = 1_000
const ROLLBACK_WITHIN_MS = 5_000
/** Clients left to the inbox, whose claims, endings and renewals may want three for a moment: one of them waits then, at most a statement's time. */
const RESERVED = 2

/** Runs handlers' work in transactions on one pool. */
export class HandlerTransactions {
  readonly #pool: SqlPool
  readonly #begin: string
  readonly #places: Places

  /** @throws InvalidOption when the pool is too small */
  constructor(pool: SqlPool, { isolation, idleTimeoutMs }: HandlerTransactionOptions) {
    this.#pool = pool
    this.#begin = `BEGIN ISOLATION LEVEL ${isolation.toUpperCase()}; SET LOCAL idle_in_transaction_session_timeout = ${Math.ceil(idleTimeoutMs)}`
    this.#places = placesOf(pool)
  }

  /**
   * Commits when `work` resolves and the signal has not fired. Work that goes on regardless is waited for, without its connection.
   * @throws what `work` throws, or the signal's reason; DatabaseUnavailable when it is not known whether the COMMIT was done;
   *   CommitRefused when Postgres rolled back instead
   */
  async run(signal: AbortSignal, work: (client: SqlPoolClient) => Promise<void>): Promise<void> {
    await this.#places.take(signal)
    let working: Promise<void> | undefined
    try {
      await this.#onClient(signal, (client) => {
        working = work(client)
        return working
      })
    } finally {
      this.#places.free()
      await working?.catch(() => {})
    }
  }

  async #onClient(signal: AbortSignal, work: (client: SqlPoolClient) => Promise<void>): Promise<void> {
    const client = await this.#client(signal)
    const ignore = () => {}
    client.on?.('error', ignore)
    const { lent, end } = lentFor(client)
    let usable = false
    try {
      await this.#begun(client, signal)
      await orAbandoned(work(lent), signal).finally(end)
      await committed(client, signal)
      usable = true
    } catch (error) {
      usable = !(error instanceof Unended) && (await rolledBack(client))
      throw error instanceof Unended ? error.reason : error
    } finally {
      if (usable) client.off?.('error', ignore)
      client.release(!usable)
    }
  }

  async #begun(client: SqlPoolClient, signal: AbortSignal): Promise<void> {
    const beginning = explained(() => client.query(this.#begin))
    await unlessAborted(beginning, signal).catch((error: unknown) => {
      throw signal.aborted ? new Unended(signal.reason) : error
    })
  }

  async #client(signal: AbortSignal): Promise<SqlPoolClient> {
    const connecting = explained(() => this.#pool.connect())
    try {
      return await unlessAborted(connecting, signal)
    } catch (error) {
      connecting.then((client) => client.release()).catch(() => {})
      throw error
    }
  }
}

/** What is still going on, or may be, on a connection: nothing more can be said on it. */
class Unended extends Error {
  readonly reason: unknown

  constructor(reason: unknown) {
    super('unended')
    this.reason = reason
  }
}

async function committed(client: SqlPoolClient, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted()
  try {
    refuseRolledBack(await unlessAborted(client.query('COMMIT'), signal))
  } catch (error) {
    const told = error instanceof CommitRefused ? error : commitError(error)
    throw told instanceof DatabaseUnavailable ? new Unended(told) : told
  }
}

/**
 * SQLSTATE of errors after which the server has surely rolled back: all but lost connections, shutdowns and broken servers; and not
 * what only looks like one (EPIPE of Node, P1017 of Prisma).
 */
const ROLLED_BACK = /^(?!08|57P|58|XX|EPIPE|P[1-9])[0-9A-Z]{5}$/

/** What a failed COMMIT means: refused, by a constraint for instance, or not known. */
export function commitError(error: unknown): Error {
  const { code } = (error ?? {}) as { code?: unknown }
  if (typeof code === 'string' && ROLLED_BACK.test(code))
    return explainSql(error, "committing the handler's transaction")
  return notKnown(error)
}

const doubts = new WeakSet<Error>()

/** It may have been committed. */
export function notKnown(error: unknown): DatabaseUnavailable {
  const doubt = new DatabaseUnavailable(
    `it is not known whether the handler's transaction was committed (${textOf(error)}). If it was, the next delivery is dropped as a duplicate; if not, the message runs again.`,
    { cause: error },
  )
  doubts.add(doubt)
  return doubt
}

/** Did {@link notKnown} make it? */
export function isDoubt(error: unknown): boolean {
  return error instanceof Error && doubts.has(error)
}

/** The connection of a handler that does not heed its signal is closed. */
function orAbandoned(work: Promise<void>, signal: AbortSignal): Promise<void> {
  const done = new AbortController()
  work.catch(() => {})
  const abandoned = async () => {
    await unlessAborted(new Promise(() => {}), AbortSignal.any([signal, done.signal])).catch(() => {})
    await pause(PATIENCE_MS, done.signal)
    throw new Unended(signal.reason)
  }
  return Promise.race([work, abandoned()]).finally(() => done.abort())
}

function rolledBack(client: SqlPoolClient): Promise<boolean> {
  return within(client.query('ROLLBACK'), ROLLBACK_WITHIN_MS, () => new Error('no answer')).then(
    () => true,
    () => false,
  )
}

async function explained<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    throw explainSql(error, "beginning the handler's transaction")
  }
}

const known = new WeakMap<SqlPool, Places>()

/** All handlers on one pool share its places, whichever consumer they are of. */
function placesOf(pool: SqlPool): Places {
  const places = known.get(pool) ?? new Places(placesIn(pool))
  known.set(pool, places)
  return places
}

/** pg's pool tells how many clients it may have; of another pool nothing is known. */
function placesIn(pool: SqlPool): number {
  const max = (pool as { options?: { max?: unknown } }).options?.max
  if (typeof max !== 'number') return Number.POSITIVE_INFINITY
  if (max > RESERVED) return max - RESERVED
  throw new InvalidOption(
    `transactional(): expected a pool of more than ${RESERVED} connections, got max: ${max}. Each running handler takes one, and ${RESERVED} are left to the inbox: set max to the consumer's concurrency + ${RESERVED}, or more`,
  )
}

/** So many at a time; the others wait, first come, first served. */
class Places {
  #left: number
  readonly #waiting: (() => void)[] = []

  constructor(count: number) {
    this.#left = count
  }

  /** @throws the signal's reason */
  async take(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    if (this.#left > 0) {
      this.#left--
      return
    }
    let called!: () => void
    const turn = new Promise<void>((resolve) => {
      called = resolve
    })
    this.#waiting.push(called)
    await unlessAborted(turn, signal).catch((reason) => {
      const at = this.#waiting.indexOf(called)
      // Its turn may have come in the same moment: then it passes it on.
      if (at < 0) this.free()
      else this.#waiting.splice(at, 1)
      throw reason
    })
  }

  free(): void {
    const next = this.#waiting.shift()
    if (next) next()
    else this.#left++
  }
}
