/**
 * Remembers decisions in a table of Postgres (`sql/migrations/003-decisions.ts`), shared by all processes of a service.
 *
 * Promises: each decision is one statement on one row, so that of two deciders the first wins; `decideIn` writes it in the
 * caller's own transaction, so that local work in that database and the decision are one: until that transaction ends, every
 * other decider waits for it (at most `lockTimeoutMs`, then `StoreUnavailable`, and asks again later); every call ends, and gives its client back or closes it.
 * Records are removed some time after the retention, a few at a time and in passing.
 * Does NOT promise anything about a client that is lent: no BEGIN, COMMIT or ROLLBACK is sent to it.
 */
import { pause } from '../deadline.ts'
import { ConnectionRefused, InvalidOption, StoreUnavailable } from '../errors.ts'
import { checkOptions, given, having, integer, needed } from '../options.ts'
import { isOutsideTransaction, type LentClient, runOn, runWithin, type SqlPool, type SqlRow } from '../sql/client.ts'
import { DEFAULT_SCHEMA, inSchema, schemaName } from '../sql/schema.ts'
import { explainSql, isPassing, isRolledBack } from '../sql/trouble.ts'
import type { Decider, Decision, DecisionScope, DecisionStore, DecisionView } from './decisions.ts'
import { UNDECIDED } from './decisions.ts'
import { CHECKED, DECIDE, LOOK, PROBE, PUBLISHED, RESTORE, SWEEP } from './postgres-statements.ts'

/** Options of {@link PostgresDecisionStore}. */
export interface PostgresDecisionStoreOptions {
  /** Your pool, such as `pg`'s `Pool`. You close it yourself. */
  readonly pool: SqlPool
  /** Schema of Surehop's tables. Default `surehop`. */
  readonly schema?: string
  /** How long a decision waits for an open transaction that has decided the same, ms. Default 2,000. */
  readonly lockTimeoutMs?: number
  /** How long a statement may take, a connection of the pool included, before the answer is `StoreUnavailable`, ms. Default 5,000. */
  readonly commandTimeoutMs?: number
}

const RULES = {
  pool: needed(having("a pool with query() and connect(), such as pg's", 'query', 'connect')),
  schema: schemaName,
  lockTimeoutMs: integer(1, 60_000),
  commandTimeoutMs: integer(1),
}

const DEFAULTS = { schema: DEFAULT_SCHEMA, lockTimeoutMs: 2_000, commandTimeoutMs: 5_000 } as const

/** How often a statement is tried that Postgres rolls back because of others. */
const MAX_TRIES = 5
const TRY_PAUSE_MS = 20
/** Expired records are removed so often, ms, and for so many records written, of which there may be two of a transaction. */
const SWEEP_EVERY_MS = 60_000
const SWEEP_EVERY_WRITTEN = 500
/** So many at most at a time: more than were written. */
const SWEPT = 1_000

/** A {@link DecisionStore} in Postgres 13 or later. */
export class PostgresDecisionStore implements DecisionStore {
  readonly #pool: SqlPool
  readonly #schema: string
  readonly #lockTimeoutMs: number
  readonly #commandTimeoutMs: number
  #sweptAt = Number.NEGATIVE_INFINITY
  /** Since then. */
  #written = 0
  #sweeping = false

  constructor(options: PostgresDecisionStoreOptions) {
    checkOptions('PostgresDecisionStore', options, RULES)
    const { pool, schema, lockTimeoutMs, commandTimeoutMs } = { ...DEFAULTS, ...given(options) }
    if (lockTimeoutMs >= commandTimeoutMs)
      throw new InvalidOption(
        `PostgresDecisionStore: expected lockTimeoutMs (${lockTimeoutMs}) to be less than commandTimeoutMs (${commandTimeoutMs}): who waits for a lock could not be told why`,
      )
    this.#pool = pool
    this.#schema = schema
    this.#lockTimeoutMs = lockTimeoutMs
    this.#commandTimeoutMs = commandTimeoutMs
  }

  async decide(scope: DecisionScope, transactionId: string, decision: Decision, by: Decider): Promise<DecisionView> {
    this.#sweep()
    const rows = await this.#run(DECIDE, this.#deciding(scope, transactionId, decision, by))
    return viewOf(rows[0])
  }

  /**
   * Decides in the caller's transaction: the decision stands if that commits, and only then. Waits, at most `lockTimeoutMs`, while
   * another transaction decides the same. The client's own `lock_timeout` is what it was afterwards.
   * @returns what stands, as far as this transaction can see
   * @throws InvalidOption for a client that is surely in no transaction; what the database says, as the driver throws it
   */
  async decideIn(
    client: LentClient,
    scope: DecisionScope,
    of: { readonly transactionId: string; readonly decision: Decision },
  ): Promise<DecisionView> {
    if (isOutsideTransaction(client))
      throw new InvalidOption(
        'expected a client with an open transaction: a decision that is not part of one would stand whatever becomes of the work. Send BEGIN first, and lend the client, not the pool',
      )
    const parameters = this.#deciding(scope, of.transactionId, of.decision, 'service')
    const [row] = await runOn(client, inSchema(this.#schema, DECIDE), parameters)
    await runOn(client, RESTORE, [row?.['lock_timeout']])
    return viewOf(row)
  }

  async look({ name }: DecisionScope, transactionIds: readonly string[]): Promise<DecisionView[]> {
    if (transactionIds.length === 0) return []
    const rows = await this.#run(LOOK, [name, [...transactionIds]])
    const found = new Map(rows.map((row) => [row['transaction_id'], viewOf(row)]))
    return transactionIds.map((id) => found.get(id) ?? UNDECIDED)
  }

  async published({ name, retentionMs }: DecisionScope, transactionId: string, halfId: string): Promise<void> {
    this.#sweep()
    await this.#run(PUBLISHED, [String(this.#lockTimeoutMs), name, transactionId, retentionMs, halfId])
  }

  async checked({ name, retentionMs }: DecisionScope, transactionId: string): Promise<number> {
    const rows = await this.#run(CHECKED, [String(this.#lockTimeoutMs), name, transactionId, retentionMs])
    return Number(rows[0]?.['checks'])
  }

  async check(): Promise<readonly string[]> {
    const [row] = await this.#run(PROBE, [])
    if (row?.['synchronous_commit'] !== 'off') return []
    return [
      'synchronous_commit is off: after a crash Postgres may have forgotten the latest decisions, and `check` is asked again',
    ]
  }

  /** The pool is the caller's. */
  async close(): Promise<void> {}

  #deciding(scope: DecisionScope, transactionId: string, decision: Decision, by: Decider): unknown[] {
    return [String(this.#lockTimeoutMs), scope.name, transactionId, decision, by, scope.retentionMs]
  }

  /** Where Postgres surely rolled back and asks for a repeat (a stricter isolation by default, a deadlock), it gets one. */
  async #run(sql: string, parameters: unknown[]): Promise<readonly SqlRow[]> {
    const ms = this.#commandTimeoutMs
    const statement = { sql: inSchema(this.#schema, sql), parameters }
    for (let tries = 1; ; tries++) {
      try {
        return await runWithin(this.#pool, statement, { ms, late: () => late(ms) })
      } catch (error) {
        if (tries === MAX_TRIES || !isRolledBack(error)) throw this.#explained(error)
        await pause(Math.random() * TRY_PAUSE_MS * tries)
      }
    }
  }

  #explained(error: unknown): Error {
    const explained = explainSql(error, `using the decisions in schema "${this.#schema}"`)
    const passing = isPassing(error) || explained instanceof ConnectionRefused
    return passing ? new StoreUnavailable(explained.message, { cause: explained }) : explained
  }

  /** In passing: what fails here is tidiness, not truth. */
  #sweep(): void {
    this.#written++
    const due = this.#written >= SWEEP_EVERY_WRITTEN || performance.now() - this.#sweptAt >= SWEEP_EVERY_MS
    if (!due || this.#sweeping) return
    this.#sweeping = true
    this.#sweptAt = performance.now()
    this.#written = 0
    const end = () => {
      this.#sweeping = false
    }
    this.#run(SWEEP, [SWEPT]).then(end, end)
  }
}

function late(ms: number): StoreUnavailable {
  return new StoreUnavailable(`Postgres did not answer within ${ms} ms; the statement may still be executed`)
}

function viewOf(row: SqlRow | undefined): DecisionView {
  if (!row) return UNDECIDED
  const { decision, decided_ms: decidedMs, decided_by: by, published, checks } = row
  return {
    decision: (decision as Decision | null) ?? undefined,
    decidedAt: decidedMs === null ? undefined : Number(decidedMs),
    by: (by as Decider | null) ?? undefined,
    published: (published as string | null) ?? undefined,
    checks: Number(checks),
  }
}
