/** What can be said to a relay, checked before anything is asked of the database. Pure. */
import { type Backoff, exponential } from '../backoff.ts'
import { InvalidOption } from '../errors.ts'
import { checkOptions, either, given, having, integer, needed, number, text } from '../options.ts'
import type { SqlPool } from '../sql/client.ts'
import { DEFAULT_SCHEMA, schemaName } from '../sql/schema.ts'
import type { Outbox } from './outbox.ts'

/** Options of a relay. Durations in ms. */
export interface RelayOptions {
  /** The outbox whose rows are sent: its name, or the outbox itself, if it is of this process: what it adds is then sent soonest. */
  readonly outbox: string | Outbox
  /** A pool of the database, such as `pg`'s `Pool`. The relay uses up to three connections of it, one of them to listen. You close it. */
  readonly pool: SqlPool
  /** The Postgres schema of Surehop's tables. Default: the outbox's, else `surehop`. */
  readonly schema?: string
  /** Most rows in hand. Default 1,000. */
  readonly windowMessages?: number
  /** Most bytes of bodies and headers in hand. Default 16 MiB; one larger row goes alone. */
  readonly windowBytes?: number
  /** Failures of one row, other than full queues and silence, after which it is parked. Default 10. */
  readonly attempts?: number
  /** The pause after each failure of a row. Default: exponential from 1 s to 5 min, with full jitter. */
  readonly backoff?: Backoff
  /** So long after its last sign of life a relay's share is taken over by others. Default 10,000. */
  readonly leaseMs?: number
  /** The longest pause between two looks at an idle table. Default 500. */
  readonly pollMs?: number
  /** How long rows are kept after they were sent, to look at. Default 0: they are deleted at once. */
  readonly keepSentMs?: number
  /** How long one publish may wait for its confirm; then the row is tried again later. Default 30,000. */
  readonly publishDeadlineMs?: number
  /** How often it is looked up how far behind the relays are, for the event `outbox.backlog` and for `health()`. Default 10,000. */
  readonly backlogEveryMs?: number
}

const DEFAULTS = {
  windowMessages: 1_000,
  windowBytes: 16 * 1024 * 1024,
  attempts: 10,
  leaseMs: 10_000,
  pollMs: 500,
  keepSentMs: 0,
  publishDeadlineMs: 30_000,
  backlogEveryMs: 10_000,
} as const

const MAX_MS = 2_147_483_647
const YEAR_MS = 366 * 24 * 3_600_000

const RULES = {
  outbox: needed(either(text(128), having('an Outbox', 'add', 'onAdded'))),
  pool: needed(having("a pool such as pg's, with query() and connect()", 'query', 'connect')),
  schema: schemaName,
  windowMessages: integer(1, 65_535),
  windowBytes: integer(1),
  attempts: integer(1, 1_000_000),
  backoff: having('a backoff: exponential(), fixed() or steps()', 'delayMs', 'maxDelayMs'),
  leaseMs: number(100, MAX_MS),
  pollMs: number(1, MAX_MS),
  keepSentMs: number(0, YEAR_MS),
  publishDeadlineMs: number(1, MAX_MS),
  backlogEveryMs: number(100, MAX_MS),
}

/** All options, and the name of the outbox. */
export type SettledRelayOptions = Required<RelayOptions> & { readonly name: string }

/** @throws InvalidOption */
export function checkRelayOptions(options: RelayOptions): SettledRelayOptions {
  checkOptions('relay()', options, RULES)
  const { outbox } = options
  const own = typeof outbox === 'string' ? undefined : outbox
  const schema = options.schema ?? own?.schema ?? DEFAULT_SCHEMA
  if (own && own.schema !== schema)
    throw new InvalidOption(`relay(): expected schema to be that of the outbox, "${own.schema}", got "${schema}"`)
  const name = own?.name ?? (outbox as string)
  return { ...DEFAULTS, backoff: exponential(), ...given(options), schema, name } as SettledRelayOptions
}
