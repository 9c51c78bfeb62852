/** The schemas of the outbox's contests: one for each run, gone with it. */

import { Pool } from 'pg'
import { unique } from '../support/unique.ts'

export class Tables {
  readonly #pool: Pool

  constructor(databaseUrl: string) {
    this.#pool = new Pool({ connectionString: databaseUrl, max: 1 })
  }

  /** A name that nobody uses; the schema is made by whoever needs it. */
  fresh(): string {
    return unique('bench').replaceAll('-', '_')
  }

  /** What filling has left to do is done before the run, and statistics are there: the same for all contestants. */
  async settle(): Promise<void> {
    await this.#pool.query('ANALYZE')
    // Not everybody may.
    await this.#pool.query('CHECKPOINT').catch(() => {})
  }

  /** Those too whose names begin with it. */
  async drop(schema: string): Promise<void> {
    const named = "SELECT nspname AS name FROM pg_namespace WHERE nspname = $1 OR starts_with(nspname, $1 || '_')"
    const { rows } = await this.#pool.query<{ name: string }>(named, [schema])
    for (const { name } of rows) await this.#pool.query(`DROP SCHEMA ${name} CASCADE`)
  }

  async version(): Promise<string> {
    const { rows } = await this.#pool.query<{ server_version: string }>('SHOW server_version')
    return rows[0]?.server_version.split(' ')[0] ?? 'unknown'
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#pool.end()
  }
}
