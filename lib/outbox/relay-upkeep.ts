/**
 * What a relay does beside sending, now and then, one task at a time: parks rows that no relay would ever take, mends keys whose first
 * row somebody removed, sweeps rows kept after they were sent, tells how far behind it is, and looks for rows that no relay sends, and for
 * positions that are no order of commits.
 * Promises: small statements only; counts stop at 100,000. Events: outbox.backlog, outbox.parked, outbox.warning.
 */
import type { Events, EventTable } from '../observability/events.ts'
import { positionsProblem } from './positions.ts'
import { parkStrays } from './relay-strays.ts'
import type { Ask, RelayTable } from './relay-table.ts'

const MINUTE_MS = 60_000
const MOST_COUNTED = 100_000
const SWEPT = 1_000

/** $1 name. */
const BACKLOG = `
SELECT
  (SELECT count(*) FROM (SELECT 1 FROM {schema}.outbox WHERE name = $1 AND state = 'ready' LIMIT ${MOST_COUNTED}) r) AS ready,
  (SELECT count(*) FROM (SELECT 1 FROM {schema}.outbox WHERE name = $1 AND state = 'held' LIMIT ${MOST_COUNTED}) h) AS held,
  (SELECT count(*) FROM (SELECT 1 FROM {schema}.outbox WHERE name = $1 AND state = 'parked' LIMIT ${MOST_COUNTED}) p) AS parked,
  CAST((extract(epoch FROM clock_timestamp()) - extract(epoch FROM least(
    (SELECT created_at FROM {schema}.outbox WHERE name = $1 AND state = 'ready' ORDER BY position LIMIT 1),
    (SELECT min(created_at) FROM (
      SELECT created_at FROM {schema}.outbox WHERE name = $1 AND state = 'held' ORDER BY not_before LIMIT 1000) h)
  ))) * 1000 AS float8) AS oldest_ms`

/** $1 name, $2 ms. */
const SWEEP = `
WITH old AS (
  SELECT position FROM {schema}.outbox
  WHERE state = 'sent' AND name = $1 AND ended_at < now() - CAST($2 AS float8) * interval '1 millisecond'
  ORDER BY ended_at LIMIT ${SWEPT} FOR UPDATE SKIP LOCKED
)
DELETE FROM {schema}.outbox o USING old WHERE o.position = old.position RETURNING o.position`

/** $1 our name. Other names with rows that have waited for a minute and no relay; jumps from name to name along the index. */
const STRANGERS = `
WITH RECURSIVE names AS (
  (SELECT name FROM {schema}.outbox WHERE state = 'ready' ORDER BY name LIMIT 1)
  UNION ALL
  SELECT (SELECT o.name FROM {schema}.outbox o WHERE o.state = 'ready' AND o.name > n.name ORDER BY o.name LIMIT 1)
  FROM names n WHERE n.name IS NOT NULL
)
SELECT n.name, (
  SELECT count(*) FROM (SELECT 1 FROM {schema}.outbox o WHERE o.name = n.name AND o.state = 'ready' LIMIT ${MOST_COUNTED}) c
) AS rows
FROM names n
CROSS JOIN LATERAL (
  SELECT created_at FROM {schema}.outbox o WHERE o.name = n.name AND o.state = 'ready' ORDER BY o.position LIMIT 1
) first
WHERE n.name <> $1 AND first.created_at < clock_timestamp() - interval '1 minute'
  AND NOT EXISTS (SELECT 1 FROM {schema}.outbox_relays r WHERE r.name = n.name AND r.until > clock_timestamp())
LIMIT 20`

/** No outbox has this name. */
const OF_ALL = '\0'

/** What the upkeep is put together from. */
export interface UpkeepParts {
  readonly ask: Ask
  readonly table: RelayTable
  readonly events: Events
  readonly name: string
  readonly schema: string
  readonly shards: () => readonly number[]
  readonly keepSentMs: number
  readonly backlogEveryMs: number
}

interface Task {
  readonly everyMs: number
  dueAt: number
  /** Answers true where there is more to do at once. */
  readonly run: () => Promise<unknown>
}

/** The lesser duties of one relay. */
export class Upkeep {
  readonly #parts: UpkeepParts
  readonly #repair: Task
  readonly #tasks: readonly Task[]
  readonly #told = new Set<string>()
  #problems: readonly string[] = []
  #figures: EventTable['outbox.backlog'] | undefined

  constructor(parts: UpkeepParts) {
    this.#parts = parts
    const now = performance.now()
    const { backlogEveryMs, keepSentMs } = parts
    const sweepMs = keepSentMs === 0 ? MINUTE_MS : Math.min(MINUTE_MS, Math.max(1_000, keepSentMs / 4))
    this.#repair = { everyMs: MINUTE_MS, dueAt: now, run: () => parts.table.repair(parts.shards()) }
    this.#tasks = [
      { everyMs: MINUTE_MS, dueAt: now, run: () => this.#parkStrays() },
      this.#repair,
      { everyMs: MINUTE_MS, dueAt: now, run: () => this.#lookForProblems() },
      { everyMs: sweepMs, dueAt: now, run: () => this.#sweep() },
      { everyMs: backlogEveryMs, dueAt: now, run: () => this.#backlog() },
    ]
  }

  get dueAt(): number {
    return Math.min(...this.#tasks.map(({ dueAt }) => dueAt))
  }

  /** Rows that no relay sends; positions that are no order of commits. */
  get problems(): readonly string[] {
    return this.#problems
  }

  /** How far behind the relays were when this was last looked up. */
  get figures(): EventTable['outbox.backlog'] | undefined {
    return this.#figures
  }

  /** Shards are ours that were another's: it may have died half-way. */
  tookOver(): void {
    this.#repair.dueAt = 0
  }

  /** Runs at most one task. */
  async turn(): Promise<void> {
    const now = performance.now()
    const task = this.#tasks.find(({ dueAt }) => dueAt <= now)
    if (!task) return
    // Before it runs: one that fails must not come again at once, and keep the relay from its work.
    task.dueAt = now + task.everyMs
    const more = await task.run()
    if (more === true) task.dueAt = now
  }

  async #parkStrays(): Promise<void> {
    const { ask, name, table, events } = this.#parts
    const strays = await parkStrays(ask, name)
    for (const { messageId, transactionId, attempts, why } of strays)
      events.emit('outbox.parked', { outbox: name, messageId, transactionId, attempts, error: new Error(why) })
    await table.promote(strays.flatMap(({ key }) => key ?? []))
  }

  async #sweep(): Promise<boolean> {
    const { ask, name, keepSentMs } = this.#parts
    return (await ask(SWEEP, [name, keepSentMs])).length === SWEPT
  }

  async #backlog(): Promise<void> {
    const { ask, name, events } = this.#parts
    const [row] = await ask(BACKLOG, [name])
    const count = (column: string) => Number(row?.[column] ?? 0)
    const [held, parked] = [count('held'), count('parked')]
    const backlog = count('ready') + held
    this.#figures = {
      outbox: name,
      backlog,
      oldestMs: finite(Math.max(0, Math.round(count('oldest_ms')))),
      held,
      parked,
    }
    events.emit('outbox.backlog', this.#figures)
  }

  async #lookForProblems(): Promise<void> {
    const { ask, name, schema, events } = this.#parts
    const rows = await ask(STRANGERS, [name])
    const positions = await positionsProblem(ask, schema)
    const sentences = new Map(rows.map((row) => [String(row['name']), strangerText(row, schema)]))
    if (positions !== undefined) sentences.set(OF_ALL, positions)
    for (const [stranger, warning] of sentences)
      if (!this.#told.has(stranger)) events.emit('outbox.warning', { outbox: name, warning })
    this.#told.clear()
    for (const stranger of sentences.keys()) this.#told.add(stranger)
    this.#problems = [...sentences.values()]
  }
}

/** A time written by hand may be infinite. */
function finite(ms: number): number {
  return Number.isFinite(ms) ? ms : 0
}

function strangerText({ name, rows }: Readonly<Record<string, unknown>>, schema: string): string {
  const many = Number(rows) >= MOST_COUNTED ? `${MOST_COUNTED} or more` : String(rows)
  return (
    `${many} rows of outbox "${name}" in schema "${schema}" wait for a minute or longer and no relay sends them: start a relay ` +
    `with outbox: "${name}", or correct the name that is given to new Outbox()`
  )
}
