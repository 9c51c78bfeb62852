/** What a sender of transactional messages can be told, with its defaults, checked before anything is opened. */
import { InvalidOption } from '../errors.ts'
import { callable, checkOptions, given, having, integer, needed, number, object, type Rule, text } from '../options.ts'
import type { Schema } from '../schema.ts'
import type { DecisionStore } from './decisions.ts'
import { senderName } from './half-queues.ts'
import type { Check } from './ledger.ts'
import type { PostgresDecisionStore } from './postgres.ts'

/** Options of `surehop.transactional()`. Durations in ms. */
export interface TransactionalOptions {
  /** Where decisions are remembered: `RedisDecisionStore`, `PostgresDecisionStore`; `MemoryDecisionStore` for tests. You close it yourself. */
  readonly decisions: DecisionStore | PostgresDecisionStore
  /**
   * Asked how a transaction ended that nobody has decided. Answer `commit` only for work that was done, `rollback` only for work that
   * was not done and never will be, else `unknown`: you are asked again. An error or a late answer counts as `unknown`. May be asked
   * several times, by several instances, also at once.
   */
  readonly check: Check
  /**
   * How long after the prepare the broker hands a half message out: longer than your local work takes. Also how late messages may
   * be whose commit came from another process. Fixed when the queue is first declared. 100 to 86,400,000. Default 10,000.
   */
  readonly firstCheckMs?: number
  /** Longest pause between two checks of one transaction; they double from `firstCheckMs`. At most 1,200,000. Default 300,000. */
  readonly checkCapMs?: number
  /** After so many checks without an answer a transaction is parked for an operator. Default 15. */
  readonly checks?: number
  /** Parked too when it is older than this, and was asked for at least once more. Default 86,400,000 (24 hours). */
  readonly maxAgeMs?: number
  /** How long one check may take. Default 10,000. */
  readonly checkTimeoutMs?: number
  /** How long decisions are remembered; at least `maxAgeMs`, and more than `firstCheckMs`. Default 1,209,600,000 (14 days). */
  readonly retentionMs?: number
  /** Most undecided transactions in hand per instance; the others wait in the broker. Default 1,000. */
  readonly maxUndecided?: number
  /** Checks, and publishes of what was checked, at a time per instance. Default 10. */
  readonly concurrency?: number
  /** Standard Schemas by message type: a body that does not fit is refused before anything is stored. */
  readonly schemas?: Readonly<Record<string, Schema>>
  /** How long `close()` waits for what runs. Default: that of `connect()`. */
  readonly drainMs?: number
}

/** All options, settled. */
export type Settings = Required<Omit<TransactionalOptions, 'schemas'>> & Pick<TransactionalOptions, 'schemas'>

const DAY_MS = 24 * 3_600_000

export const TRANSACTIONAL_DEFAULTS = {
  firstCheckMs: 10_000,
  checkCapMs: 300_000,
  checks: 15,
  maxAgeMs: DAY_MS,
  checkTimeoutMs: 10_000,
  retentionMs: 14 * DAY_MS,
  maxUndecided: 1_000,
  concurrency: 10,
} as const

/** Waits must end before a delivery is handed back (25 minutes). */
const MAX_CAP_MS = 20 * 60_000

const storable = text(255)
const transactionId: Rule = (value) =>
  storable(value) ?? (/[\0\p{Surrogate}]/u.test(value as string) ? 'well-formed text without NUL' : undefined)

/** An id that AMQP and every store can carry. */
export const TRANSACTION_ID = needed(transactionId)

export const PREPARE_RULES = { transactionId }

const RULES = {
  decisions: needed(
    having('a decision store such as RedisDecisionStore', 'decide', 'look', 'published', 'checked', 'check', 'close'),
  ),
  check: needed(callable),
  firstCheckMs: integer(100, DAY_MS),
  checkCapMs: number(1, MAX_CAP_MS),
  checks: integer(1, 1_000_000),
  maxAgeMs: number(1, 365 * DAY_MS),
  checkTimeoutMs: number(1, MAX_CAP_MS),
  retentionMs: number(1_000, 3_650 * DAY_MS),
  maxUndecided: integer(1, 65_535),
  concurrency: integer(1, 10_000),
  schemas: object,
  drainMs: number(0, 2_147_483_647),
}

/** @throws InvalidOption */
export function settingsOf(name: string, options: TransactionalOptions, drainMs: number): Settings {
  checkOptions('transactional()', { name }, { name: needed(senderName) })
  const where = `transactional("${name}")`
  checkOptions(where, options, RULES)
  const settings = { ...TRANSACTIONAL_DEFAULTS, drainMs, ...given(options) } as Settings
  const { retentionMs, maxAgeMs, firstCheckMs } = settings
  if (retentionMs >= maxAgeMs && retentionMs > firstCheckMs) return settings
  throw new InvalidOption(
    `${where}: expected retentionMs (${retentionMs}) to be at least maxAgeMs (${maxAgeMs}) and more than firstCheckMs (${firstCheckMs}): a decision must not be forgotten before its half message has come to its end`,
  )
}
