// A migrated schema of one's own, an outbox in it, and its rows as they stand in the table.

import type { PoolClient } from 'pg'
import { Outbox, type OutboxOptions } from '../../lib/index.ts'
import { migrate } from '../../lib/sql/migrate.ts'
import { freshSchema, type Schema } from '../support/database.ts'

/** A row as the table has it. */
export interface Row {
  readonly position: number
  readonly state: string
  readonly message_id: string
  readonly transaction_id: string
  readonly key: string | null
  readonly exchange: string
  readonly routing_key: string
  readonly properties: string
  readonly body: Buffer
  readonly placed: boolean
  readonly created_at: Date
  readonly deliver_at: Date | null
  readonly attempts: number
  readonly not_before: Date | number | null
  readonly last_error: string | null
}

export class Writing {
  readonly schema: Schema
  readonly outbox: Outbox

  static async open(): Promise<Writing> {
    const schema = await freshSchema({ max: 40 })
    await migrate(schema.pool, { schema: schema.name })
    return new Writing(schema)
  }

  constructor(schema: Schema) {
    this.schema = schema
    this.outbox = this.open()
  }

  get pool() {
    return this.schema.pool
  }

  /** Another outbox on these tables. */
  open(options: Partial<OutboxOptions> = {}): Outbox {
    return new Outbox({ name: 'orders', schema: this.schema.name, ...options })
  }

  /** All rows by position. */
  async rows(): Promise<Row[]> {
    const { rows } = await this.pool.query(`SELECT * FROM ${this.schema.name}.outbox ORDER BY position`)
    return rows.map((row) => ({ ...row, position: Number(row.position) }))
  }

  /** Bodies by position, of one key or of all. */
  async bodies(key?: string): Promise<unknown[]> {
    const rows = await this.rows()
    return rows.filter((row) => key === undefined || row.key === key).map((row) => JSON.parse(String(row.body)))
  }

  /** Runs in a transaction that commits. */
  async committed<T>(work: (client: PoolClient) => Promise<T>): Promise<T> {
    const client = await this.pool.connect()
    try {
      await client.query('BEGIN')
      const result = await work(client)
      await client.query('COMMIT')
      return result
    } finally {
      client.release()
    }
  }

  /** Deletes all rows. */
  async clear(): Promise<void> {
    await this.pool.query(`DELETE FROM ${this.schema.name}.outbox`)
  }

  close(): Promise<void> {
    return this.schema.close()
  }
}
