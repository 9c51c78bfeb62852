/**
 * Divides the shards of an outbox among the relays that live: a shard has one owner for as long as its lease lasts.
 *
 *     free ──taken (epoch + 1)──▶ ours ──renewed──▶ ours ──surplus, nothing in hand──▶ free
 *                                  └──not renewed in time, another takes it──▶ lost
 *
 * Promises: each shard has at most one owner at a time by the server's clock; its epoch grows with every change of owner;
 * `isSafe` is false as soon as our leases may have run out, on the monotonic clock, counted from when the last renewal that
 * succeeded was sent (a frozen process notices when it wakes); relays come to equal shares within two turns.
 * Does NOT promise that nobody publishes beyond its lease: a message may be on its way just then. See relay.ts for why order holds.
 */
import type { SqlRow } from '../sql/client.ts'
import { LOCK_PATIENCE } from '../sql/lock-patience.ts'
import { SHARDS } from './packing.ts'
import { type Ask, listOf } from './relay-table.ts'

/** The channel by which relays tell each other that they came or left; the payload is `<schema>.<outbox>`. */
export const RELAYS_CHANNEL = 'surehop_relays'

/** Turns per lease. */
const TURNS = 3

const CREATE = `
INSERT INTO {schema}.outbox_shards (name, shard) SELECT $1, generate_series(0, ${SHARDS - 1}) ON CONFLICT DO NOTHING`

const IN_MS = `clock_timestamp() + CAST($3 AS float8) * interval '1 millisecond'`

/** $1 name, $2 owner, $3 ms. Says that we live, and answers how many others do. */
const LIVE = `
WITH me AS (
  INSERT INTO {schema}.outbox_relays (name, owner, until) VALUES ($1, $2, ${IN_MS})
  ON CONFLICT (name, owner) DO UPDATE SET until = EXCLUDED.until
)
SELECT count(*) AS others FROM {schema}.outbox_relays WHERE name = $1 AND owner <> $2 AND until > clock_timestamp()`

/** $1 name, $2 owner, $3 ms. Renews what is ours, also what has run out if nobody took it; what is not answered is lost. */
const RENEW = `
UPDATE {schema}.outbox_shards SET until = ${IN_MS} WHERE name = $1 AND owner = $2 AND ${LOCK_PATIENCE} RETURNING shard, epoch`

/** $1 name, $2 owner, $3 ms, $4 how many. Takes free ones, or those whose owner is gone; passes over what another is taking now. */
const TAKE = `
UPDATE {schema}.outbox_shards s SET owner = $2, epoch = s.epoch + 1, until = ${IN_MS}
FROM (
  SELECT shard FROM {schema}.outbox_shards WHERE name = $1 AND (owner IS NULL OR until < clock_timestamp()) AND owner IS DISTINCT FROM $2
  ORDER BY shard LIMIT $4 FOR UPDATE SKIP LOCKED
) f
WHERE s.name = $1 AND s.shard = f.shard RETURNING s.shard, s.epoch`

/** $1 name, $2 owner, $3 shards. */
const RELEASE = `
UPDATE {schema}.outbox_shards SET owner = NULL, until = '-infinity'
WHERE name = $1 AND owner = $2 AND shard = ANY (CAST($3 AS smallint[]))`

/** $1 name, $2 owner. Also what was taken without our knowing, by a statement whose answer was lost. */
const RELEASE_ALL = `UPDATE {schema}.outbox_shards SET owner = NULL, until = '-infinity' WHERE name = $1 AND owner = $2`

const LEAVE = 'DELETE FROM {schema}.outbox_relays WHERE name = $1 AND owner = $2'
/** Those who died are forgotten after an hour. */
const FORGET = `DELETE FROM {schema}.outbox_relays WHERE name = $1 AND until < clock_timestamp() - interval '1 hour'`
const TELL = 'SELECT pg_notify($1, $2)'

/** What the shards of one relay are put together from. */
export interface ShardsParts {
  readonly ask: Ask
  readonly name: string
  readonly schema: string
  readonly owner: string
  readonly leaseMs: number
  /** Are rows of this shard in hand? */
  readonly inHand: (shard: number) => boolean
}

/** The shards of one relay. */
export class Shards {
  readonly #parts: ShardsParts
  readonly #epochs = new Map<number, number>()
  /** Surplus: no longer read, released when nothing of them is in hand. */
  readonly #leaving = new Set<number>()
  /** When the last renewal that succeeded was sent. */
  #renewedAt = Number.NEGATIVE_INFINITY
  #dueAt = 0

  constructor(parts: ShardsParts) {
    this.#parts = parts
  }

  /** May we act as the owner of what we took? */
  get isSafe(): boolean {
    return performance.now() - this.#renewedAt < this.#parts.leaseMs
  }

  /** When the next turn is due, on the monotonic clock. */
  get dueAt(): number {
    return this.#dueAt
  }

  get count(): number {
    return this.#epochs.size
  }

  /** Those to read rows of. */
  get reading(): number[] {
    return [...this.#epochs.keys()].filter((shard) => !this.#leaving.has(shard))
  }

  readonly epochOf = (shard: number): number | undefined => this.#epochs.get(shard)

  readonly holds = (shard: number, epoch: number): boolean => this.#epochs.get(shard) === epoch

  /** The next turn is due at once: relays came or left. */
  hurry(): void {
    this.#dueAt = 0
  }

  async create(): Promise<void> {
    await this.#parts.ask(CREATE, [this.#parts.name])
  }

  /**
   * One turn: renews, takes, lets go.
   * @returns shards that are ours since this turn
   */
  async turn(): Promise<number[]> {
    const { ask, name, owner, leaseMs } = this.#parts
    const sentAt = performance.now()
    const [alive] = await ask(LIVE, [name, owner, leaseMs])
    const renewed = await ask(RENEW, [name, owner, leaseMs])
    const fair = Math.ceil(SHARDS / (Number(alive?.['others'] ?? 0) + 1))
    const wanted = Math.max(0, fair - renewed.length)
    const taken = wanted > 0 ? await ask(TAKE, [name, owner, leaseMs, wanted]) : []
    const fresh = this.#own([...renewed, ...taken])
    this.#renewedAt = sentAt
    this.#dueAt = sentAt + leaseMs / TURNS
    // Somebody may have emptied the table (a test, a backup that came back): nobody would send anything any more, and not say so.
    if (this.count === 0) await this.create()
    await this.#level(fair)
    return fresh
  }

  /** Gives surplus back as soon as nothing of it is in hand; for between turns. */
  async release(): Promise<void> {
    const idle = [...this.#leaving].filter((shard) => !this.#parts.inHand(shard))
    if (idle.length === 0) return
    for (const shard of idle) {
      this.#leaving.delete(shard)
      this.#epochs.delete(shard)
    }
    await this.#parts.ask(RELEASE, [this.#parts.name, this.#parts.owner, listOf(idle)])
    await this.#tell()
  }

  /** Gives everything back; nothing is ours from now on, whether the database hears of it or not. */
  async leave(): Promise<void> {
    const { ask, name, owner } = this.#parts
    this.#epochs.clear()
    this.#leaving.clear()
    this.#renewedAt = Number.NEGATIVE_INFINITY
    await ask(RELEASE_ALL, [name, owner])
    await ask(LEAVE, [name, owner])
    await ask(FORGET, [name])
    await this.#tell()
  }

  /** Tells the other relays to take a turn. */
  async greet(): Promise<void> {
    await this.#tell()
  }

  #own(rows: readonly SqlRow[]): number[] {
    const before = new Map(this.#epochs)
    this.#epochs.clear()
    for (const { shard, epoch } of rows) this.#epochs.set(Number(shard), Number(epoch))
    for (const shard of this.#leaving) if (!this.#epochs.has(shard)) this.#leaving.delete(shard)
    return [...this.#epochs].filter(([shard, epoch]) => before.get(shard) !== epoch).map(([shard]) => shard)
  }

  /** Marks surplus, those without work first, and releases what can be released. */
  async #level(fair: number): Promise<void> {
    const surplus = this.#epochs.size - fair
    if (surplus <= 0) this.#leaving.clear()
    const candidates = this.reading.sort((a, b) => Number(this.#parts.inHand(a)) - Number(this.#parts.inHand(b)))
    for (const shard of candidates.slice(0, Math.max(0, surplus - this.#leaving.size))) this.#leaving.add(shard)
    await this.release()
  }

  async #tell(): Promise<void> {
    await this.#parts.ask(TELL, [RELAYS_CHANNEL, `${this.#parts.schema}.${this.#parts.name}`])
  }
}
