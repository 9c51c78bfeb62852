// Hostile rows in an outbox, its relay, and what an operator does with those that it gave up on.
//
// Promises: every row that Postgres took is accounted for by the marker its body ends with: it was sent, and its handler has seen it
// or its letter lies in the dead letters; or it is parked with an error that names the field, or says what the broker said. None waits
// for ever, and the relay is fit when it is done.

import { randomBytes } from 'node:crypto'
import fc from 'fast-check'
import type { Pool } from 'pg'
import { connect, fixed, migrate, OutboxDesk, type Relay, type Surehop } from '../../lib/index.ts'
import { freshSchema, type Schema } from '../support/database.ts'
import { eventually } from '../support/eventually.ts'
import { unique, uniqueQueue } from '../support/unique.ts'
import { type Row, rows } from './rows.ts'
import { Miscarried } from './world.ts'

const SETTLED_WITHIN_MS = 60_000
/** Rows that were given up on, at most. */
const STAYING = 300
/** What is bound to nothing. */
const UNBOUND = 'amq.topic'
/** Of SQL: a value that Postgres does not take. */
const REFUSED = /^(22|23|54)/
/** What is wrong with the row by its column or field, or what the broker says of its target. */
const NAMED =
  /^expected [\w"]|was not published \((returned|nacked)\)|\(not-sent\): (it cannot be encoded: )?expected |cannot publish to exchange/

/** A row that Postgres took. */
interface Written {
  readonly row: Row
  readonly marker: string
}

/** How a row stands now. */
interface Standing {
  readonly position: string
  readonly state: string
  readonly last_error: string | null
  readonly marker: string
}

/** An outbox with a relay for each batch. */
export class OutboxWorld {
  readonly name = unique('fuzz')
  readonly queue: string
  readonly ends = { sent: 0, handled: 0, dead: 0, parked: 0, refused: 0 }
  readonly #surehop: Surehop
  readonly #schema: Schema
  readonly #seen = new Set<string>()
  readonly #run = randomBytes(4).toString('hex')
  #serial = 0

  private constructor(surehop: Surehop, schema: Schema, queue: string) {
    this.#surehop = surehop
    this.#schema = schema
    this.queue = queue
  }

  static async open(): Promise<OutboxWorld> {
    const schema = await freshSchema({ max: 10 })
    await migrate(schema.pool, { schema: schema.name })
    const surehop = await connect({ amqp: process.env['AMQP_URL']!, service: 'fuzz', drainMs: 10_000 })
    const world = new OutboxWorld(surehop, schema, uniqueQueue('fuzz-outbox'))
    await world.#consume()
    return world
  }

  get schema(): string {
    return this.#schema.name
  }

  get pool(): Pool {
    return this.#schema.pool
  }

  get desk(): OutboxDesk {
    return new OutboxDesk({ pool: this.pool, schema: this.schema, name: this.name })
  }

  async close(): Promise<void> {
    await this.#surehop.close()
    await this.#schema.close()
  }

  async #consume(): Promise<void> {
    const retry = { attempts: 2, backoff: fixed({ delayMs: 100 }) }
    await this.#surehop.consume(this.queue, { identity: 'unguarded', body: 'bytes', retry }, async ({ rawBody }) => {
      this.#seen.add(markerIn(rawBody.toString('latin1')) ?? '')
    })
  }

  /** Writes the rows, has a relay send them, and checks how each ended. @throws Miscarried */
  async batch(rows: readonly Row[]): Promise<void> {
    const written = await this.#writeAll(rows)
    await this.#relayed(written)
    await this.#account(written)
    await this.#tidy()
  }

  /** Writes so many rows, and no relay sends them. */
  async leave(count: number, seed: number): Promise<void> {
    await this.#writeAll(fc.sample(rows, { numRuns: count, seed }))
  }

  async #writeAll(rows: readonly Row[]): Promise<Written[]> {
    const written: Written[] = []
    for (const row of rows) {
      const marker = `fuzz:${this.#run}:${this.#serial++}:`
      if (await this.#write(row, marker)) written.push({ row, marker })
      else this.ends.refused++
    }
    return written
  }

  /** What an operator does with what was given up on: all of it is tried again, given up on again, and dropped. */
  async moves(): Promise<string[]> {
    const wrong: string[] = []
    const before = (await this.#standing()).size
    const { skipped } = await this.desk.retry({ state: 'parked' })
    await this.#relayed([]).catch((error: Error) => wrong.push(`tried again: ${error.message}`))
    const after = (await this.#standing()).size
    if (after > before || skipped > before) wrong.push(`${before} parked, ${skipped} skipped, ${after} afterwards`)
    await this.desk.drop({ state: 'parked' })
    const left = [...(await this.#standing()).values()]
    if (left.length > 0) wrong.push(`${left.length} rows were not dropped: ${JSON.stringify(left[0]).slice(0, 300)}`)
    return wrong
  }

  async #write(row: Row, marker: string): Promise<boolean> {
    const columns = Object.entries(this.#columns(row, marker)).filter(([, value]) => value !== null)
    const names = columns.map(([name]) => name).join(', ')
    const places = columns.map((_, i) => `$${i + 1}`).join(', ')
    const values = columns.map(([, value]) => value)
    try {
      await this.pool.query(`INSERT INTO ${this.schema}.outbox (${names}) VALUES (${places})`, values)
      return true
    } catch (error) {
      if (REFUSED.test(String((error as { code?: unknown }).code))) return false
      throw error
    }
  }

  #columns({ target, body, properties, ...columns }: Row, marker: string): Record<string, unknown> {
    const places: Record<string, readonly [string, string]> = {
      queue: ['', this.queue],
      'missing queue': ['', 'fuzz-missing'],
      'missing exchange': ['fuzz-missing', this.queue],
      unbound: [UNBOUND, 'fuzz.nowhere'],
      default: ['amq.default', this.queue],
    }
    const [exchange, routing_key] = typeof target === 'string' ? places[target]! : [target.name, target.name]
    const own = properties.replace('"of-the-row"', JSON.stringify(columns.message_id))
    const rest = { exchange, routing_key, properties: own, body: Buffer.concat([body, Buffer.from(`\0${marker}`)]) }
    return { ...columns, ...rest, name: this.name }
  }

  /** A relay of its own, until nothing waits. */
  async #relayed(written: readonly Written[]): Promise<void> {
    const relay = await this.#surehop.relay({
      outbox: this.name,
      schema: this.schema,
      pool: this.pool,
      attempts: 2,
      backoff: fixed({ delayMs: 20 }),
      pollMs: 20,
      backlogEveryMs: 200,
    })
    try {
      await eventually(() => this.#nothingWaits(relay), { withinMs: SETTLED_WITHIN_MS, what: 'the end of all rows' })
    } catch (error) {
      throw new Miscarried(`${(error as Error).message}; ${this.#surehop.health().reasons.join('; ')}`)
    } finally {
      await relay.close()
    }
    const standing = await this.#standing()
    const sent = written.filter(({ marker }) => !standing.has(marker))
    const missing = async () => {
      const letters = await this.#letters()
      return sent.filter(({ marker }) => !this.#seen.has(marker) && !letters.has(marker))
    }
    await eventually(async () => (await missing()).length === 0, { withinMs: SETTLED_WITHIN_MS }).catch(async () => {
      throw new Miscarried(`sent, and neither handled nor dead: ${(await missing()).map(told).join('\n')}`)
    })
  }

  async #nothingWaits(relay: Relay): Promise<void> {
    const waiting = [...(await this.#standing()).values()].filter(({ state }) => state === 'ready' || state === 'held')
    const troubles = [...relay.problems, ...waiting.map((row) => JSON.stringify(row).slice(0, 300))]
    if (troubles.length > 0) throw new Error(`${troubles.length}: ${troubles.slice(0, 5).join('\n')}`)
  }

  async #account(written: readonly Written[]): Promise<void> {
    const standing = await this.#standing()
    const letters = await this.#letters()
    for (const one of written) {
      const row = standing.get(one.marker)
      if (!row) this.ends.sent++
      if (this.#seen.has(one.marker)) this.ends.handled++
      if (letters.has(one.marker)) this.ends.dead++
      if (row) this.ends.parked++
      if (row && one.row.state !== 'parked' && !NAMED.test(row.last_error ?? ''))
        throw new Miscarried(`parked, and its error names no field: "${row.last_error}": ${told(one)}`)
    }
  }

  /** A few of what was given up on stay. */
  async #tidy(): Promise<void> {
    const positions = [...(await this.#standing()).values()].map(({ position }) => position).slice(STAYING)
    await this.pool.query(`DELETE FROM ${this.schema}.outbox WHERE position = ANY ($1)`, [positions])
    await this.#surehop.deadLetters(this.queue).discard()
    this.#seen.clear()
  }

  /** Rows by marker. */
  async #standing(): Promise<Map<string, Standing>> {
    const { rows } = await this.pool.query<Standing>(
      `SELECT position::text, state, last_error, encode(substring(body FROM length(body) - 39), 'escape') AS marker
       FROM ${this.schema}.outbox WHERE name = $1`,
      [this.name],
    )
    return new Map(rows.map((row) => [markerIn(row.marker)!, row]))
  }

  /** Markers of dead letters. */
  async #letters(): Promise<Set<string>> {
    const found = new Set<string>()
    for await (const line of this.#surehop.deadLetters(this.queue).exportTo()) {
      const { bodyBase64 = '' } = JSON.parse(line) as { bodyBase64?: string }
      const marker = markerIn(Buffer.from(bodyBase64, 'base64').toString('latin1')) ?? markerIn(line)
      if (marker) found.add(marker)
    }
    return found
  }
}

function markerIn(text: string): string | undefined {
  return /fuzz:[0-9a-f]{8}:\d+:/.exec(text)?.[0]
}

function told({ row, marker }: Written): string {
  return `${marker} ${JSON.stringify({ ...row, body: row.body.length }).slice(0, 1_500)}`
}
