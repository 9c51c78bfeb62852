/**
 * Remembers in Postgres (13 or newer), shared by all processes of a service: the inbox.
 *
 *     lock the records (by id) ─▶ lock the owners (by name) ─▶ read the clock ─▶ decide ─▶ write ─▶ COMMIT
 *
 * Promises: each claim and each settlement is decided by the functions of `record.ts`, under row locks, by the database's clock as
 * it is once the locks are held; of two processes one waits for the other, in one order, so that they never wait for each other in
 * a circle; no certain answer is `StoreUnavailable`, never a guess; records that have expired, and owners long gone, are removed
 * bit by bit as the store is used. With `transactional()`, the effect of a handler in this database happens exactly once.
 * Does NOT promise: effects outside this database; that Postgres never forgets (a failover to a replica that lags, fsync off):
 * `check()` warns of the settings that make it likely.
 */

import type { Handler } from '../consumer/handler.ts'
import { checkOptions, given, having, integer, needed } from '../options.ts'
import type { SqlClient, SqlPool } from '../sql/client.ts'
import { DEFAULT_SCHEMA, schemaName } from '../sql/schema.ts'
import { anotherStore, bindTo } from './bound-handler.ts'
import type {
  Claim,
  ClaimResult,
  IdempotencyStore,
  RecordView,
  Scope,
  Settlement,
  SettleResult,
} from './idempotency.ts'
import { warningsOf } from './postgres-check.ts'
import { type Ask, PostgresLink } from './postgres-link.ts'
import { type Asker, type Lock, LockedRecords, presenceOf } from './postgres-locks.ts'
import { PostgresPresence } from './postgres-presence.ts'
import { recordOf, textKey, viewOf } from './postgres-rows.ts'
import * as sql from './postgres-statements.ts'
import { PostgresSweep } from './postgres-sweep.ts'
import {
  type TransactionalHandler,
  type TransactionalHandlerOptions,
  type TransactionalHandlerToolOptions,
  transactionalHandler,
} from './postgres-transactional.ts'
import { decideClaim, decideSettle } from './record.ts'

/** Options of {@link PostgresIdempotencyStore}. */
export interface PostgresIdempotencyStoreOptions {
  /**
   * Your pool, such as `pg`'s; you close it. The store takes a client for some milliseconds at a time, up to three per consumer;
   * transactional handlers take one each while they run.
   */
  readonly pool: SqlPool
  /** The Postgres schema of Surehop's tables. Default `surehop`. `migrate()` makes them. */
  readonly schema?: string | undefined
  /** How long one statement, and the wait for a client, may take before the answer is `StoreUnavailable`, ms. Default 3,000. */
  readonly statementTimeoutMs?: number | undefined
}

const RULES = {
  pool: needed(having("a pool such as pg's Pool", 'query', 'connect')),
  schema: schemaName,
  statementTimeoutMs: integer(1, 600_000),
}

/** So many ids at most in one transaction: others may wait for its locks. */
const BATCH_MAX = 512

/** An {@link IdempotencyStore} in Postgres. */
export class PostgresIdempotencyStore implements IdempotencyStore {
  readonly #pool: SqlPool
  readonly #schema: string
  readonly #link: PostgresLink
  readonly #presence = new PostgresPresence()
  readonly #sweep: PostgresSweep

  /** @throws InvalidOption */
  constructor(options: PostgresIdempotencyStoreOptions) {
    checkOptions('PostgresIdempotencyStore', options, RULES)
    const { pool, schema = DEFAULT_SCHEMA, statementTimeoutMs = 3_000 } = given(options)
    this.#pool = pool
    this.#schema = schema
    this.#link = new PostgresLink(pool, { schema, statementTimeoutMs })
    this.#sweep = new PostgresSweep(statementTimeoutMs)
  }

  async claim(scope: Scope, owner: string, claims: readonly Claim[]): Promise<ClaimResult[]> {
    return inParts(claims, async (part) => {
      const asker = { owner: textKey(owner), since: performance.now() }
      const { results, since } = await this.#link.transaction((ask) => this.#claim(ask, scope, asker, part))
      this.#presence.note(scope, owner, since)
      return results
    })
  }

  async settle(scope: Scope, owner: string, settlements: readonly Settlement[]): Promise<SettleResult[]> {
    const name = textKey(owner)
    return inParts(settlements, async (part) => {
      const settle = (lock: Lock) => this.#link.transaction((ask) => this.#settle(ask, scope, name, part, lock))
      return (await settle(LockedRecords.present)) ?? (await settle(LockedRecords.all))!
    })
  }

  async renew(scope: Scope, owner: string, options: { readonly leave?: boolean } = {}): Promise<'held' | 'lapsed'> {
    const leave = options.leave === true
    const place = [textKey(scope.name), textKey(owner)]
    const since = await this.#link.transaction(async (ask) => {
      const [row] = await ask(sql.KEEP_ALIVE, [...place, scope.leaseMs])
      if (leave) await ask(sql.LEAVE, place)
      return Number(row!['since'])
    })
    this.#presence.note(scope, owner, since)
    return this.#presence.take(scope, owner, leave) ? 'lapsed' : 'held'
  }

  async look(scope: Scope, ids: readonly string[]): Promise<RecordView[]> {
    return inParts(ids, async (part) => {
      const keys = part.map(textKey)
      const rows = await this.#link.transaction((ask) => ask(sql.LOOK, [textKey(scope.name), JSON.stringify(keys)]))
      const views = new Map(rows.map((row) => [row['id'], viewOf(recordOf(row), row['live'] === true)]))
      return keys.map((key) => views.get(key) ?? { state: 'absent' })
    })
  }

  /** @throws StoreUnavailable; SchemaMismatch or PermissionRefused, with what to do */
  async check(): Promise<readonly string[]> {
    return warningsOf(this.#link, this.#pool, this.#schema)
  }

  /**
   * Makes a handler that runs in one transaction with the record of its message: give it to `consume()` beside this very store. The
   * handler gets a `client` of the pool in that transaction (or the transaction of your query tool), and `publish` and `send` that write
   * to the outbox in it. One running handler holds one client: the pool needs `concurrency + 2` or more, else handlers wait for each other.
   *
   *     surehop.consume('orders', { idempotency: inbox }, inbox.transactional({ outbox }, async (message, { client, publish }) => {...}))
   *
   * @throws InvalidOption
   */
  transactional<Body = unknown, Client extends SqlClient = SqlClient>(
    handler: TransactionalHandler<Body, Client>,
  ): Handler<Body>
  transactional<Body = unknown, Tx = unknown>(
    options: TransactionalHandlerToolOptions<Tx>,
    handler: TransactionalHandler<Body, Tx>,
  ): Handler<Body>
  transactional<Body = unknown, Client extends SqlClient = SqlClient>(
    options: TransactionalHandlerOptions,
    handler: TransactionalHandler<Body, Client>,
  ): Handler<Body>
  transactional<Body, Client>(
    first: TransactionalHandler<Body, Client> | TransactionalHandlerOptions | TransactionalHandlerToolOptions<Client>,
    second?: TransactionalHandler<Body, Client>,
  ): Handler<Body> {
    const [options, handler] = typeof first === 'function' ? [{}, first] : [first, second!]
    const place = { pool: this.#pool, schema: this.#schema }
    return bindTo((scope, owner) => this.#knows(scope, owner), transactionalHandler(place, options, handler))
  }

  /** Ends nothing that was lent. */
  async close(): Promise<void> {
    this.#link.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  async #knows(scope: Scope, owner: string): Promise<void> {
    const place = [textKey(scope.name), textKey(owner)]
    const found = await this.#link.transaction((ask) => ask(sql.PRESENT, place))
    if (found.length === 0) throw anotherStore(scope.name, this.#schema)
  }

  async #claim(ask: Ask, scope: Scope, asker: Asker, claims: readonly Claim[]) {
    const records = await LockedRecords.all(ask, scope, claims)
    const { nowUs, untilMs } = await presenceOf(ask, scope, asker, records)
    const { owner } = asker
    const { leaseMs, maxStarts } = scope
    const asked = { owner, askerUntilMs: untilMs.get(owner), nowUs, leaseMs, maxStarts }
    const results = claims.map((claim) => {
      const before = records.get(claim.id)
      const holderUntilMs = before?.state === 'leased' ? untilMs.get(before.owner) : undefined
      const { result, record } = decideClaim(before, { ...asked, claim, holderUntilMs })
      records.set(claim.id, record)
      return result
    })
    const since = await records.write(ask, { owner, leaseMs })
    await this.#sweep.run(ask, claims.length)
    return { results, since }
  }

  /** Undefined where a row is missing and must be made first: rows are locked in one order, all at once. */
  async #settle(ask: Ask, scope: Scope, owner: string, settlements: readonly Settlement[], lock: Lock) {
    const records = await lock(ask, scope, settlements)
    if (!records.complete) return undefined
    const nowMs = records.nowUs / 1_000
    const results = settlements.map((settlement) => {
      const { result, record } = decideSettle(records.get(settlement.id), { settlement, owner, nowMs })
      records.set(settlement.id, record)
      return result
    })
    await records.write(ask)
    await this.#sweep.run(ask, settlements.length)
    return results
  }
}

/** One part after the other; answers in the order asked. */
async function inParts<T, R>(items: readonly T[], run: (part: readonly T[]) => Promise<R[]>): Promise<R[]> {
  const answers: R[] = []
  for (let from = 0; from < items.length; from += BATCH_MAX) {
    answers.push(...(await run(items.slice(from, from + BATCH_MAX))))
  }
  return answers
}
