// Statements that are given up on, at a real Postgres: what they may leave behind there.

import { expect } from 'chai'
import { Pool } from 'pg'
import { runWithin } from '../../lib/sql/client.ts'
import { freshSchema, type Schema } from '../support/database.ts'
import { eventually } from '../support/eventually.ts'
import { startProxy } from '../support/tcp-proxy.ts'

const MS = 400

describe('a statement that is given up on', function () {
  this.timeout(60_000)
  let schema: Schema
  beforeEach(async () => {
    schema = await freshSchema({ max: 4 })
    await schema.pool.query('CREATE TABLE things (id integer PRIMARY KEY, n integer); INSERT INTO things VALUES (1, 0)')
  })
  afterEach(() => schema.close())

  const late = () => new Error('no answer in time')
  const rise = (pool: Pool) =>
    runWithin(pool, { sql: 'UPDATE things SET n = n + 1 RETURNING n', parameters: [] }, { ms: MS, late })

  /** What `rise` comes to while the whole table is locked. */
  async function givenUp(pool: Pool): Promise<void> {
    const locker = await schema.pool.connect()
    await locker.query('BEGIN; LOCK TABLE things')
    const error: unknown = await rise(pool).catch((failure: unknown) => failure)
    await locker.query('ROLLBACK')
    locker.release()
    expect(error).instanceOf(Error)
  }

  async function another(url: string, options = ''): Promise<Pool> {
    const address = new URL(url)
    address.searchParams.set('options', `-c search_path=${schema.name} ${options}`)
    address.searchParams.set('application_name', schema.name)
    return new Pool({ connectionString: address.href, max: 4 }).on('error', () => {})
  }

  it('is the last one of its pool to wait on, where the role allows statements far more time, too', async () => {
    const pool = await another(schema.url, '-c statement_timeout=5min')
    const waiting = async () =>
      (
        await schema.pool.query(
          "SELECT count(*) AS n FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = $1",
          [schema.name],
        )
      ).rows[0].n
    const locker = await schema.pool.connect()
    await locker.query('BEGIN; LOCK TABLE things')
    for (let time = 0; time < 4; time++) await rise(pool).catch(() => {})
    await eventually(async () => expect(await waiting()).equal('1'), { withinMs: 3_000 })
    await locker.query('ROLLBACK')
    locker.release()
    await pool.end()
  })

  it('leaves no transaction open, and no row locked, when the line is lost before the next one has committed', async () => {
    const proxy = await startProxy(schema.url)
    const pool = await another(proxy.url)
    await givenUp(pool)
    proxy.on('data', (way, bytes) => {
      if (way === 'to-server' && bytes.includes('COMMIT')) proxy.stall()
    })
    expect(await rise(pool).catch((error: Error) => error.message)).equal('no answer in time')
    const { rows } = await schema.pool
      .query("SET lock_timeout = '5s'; UPDATE things SET n = 100 RETURNING n")
      .then((answers) => (answers as unknown as { rows: unknown[] }[])[1]!)
    expect(rows).deep.equal([{ n: 100 }])
    await proxy.close()
    await pool.end()
  })

  it('leaves the settings of a connection as they were', async () => {
    const pool = await another(schema.url, '-c statement_timeout=90s')
    await givenUp(pool)
    await rise(pool)
    const { rows } = await pool.query(
      "SELECT current_setting('statement_timeout') AS statement, current_setting('idle_in_transaction_session_timeout') AS idle",
    )
    expect(rows).deep.equal([{ statement: '90s', idle: '0' }])
    await pool.end()
  })
})
