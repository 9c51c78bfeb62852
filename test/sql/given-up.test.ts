// Statements that are given up on, at a real Postgres: what they may leave behind there.

import { expect } from 'chai'
import { Pool, type PoolConfig } from 'pg'
import { runWithin } from '../../lib/sql/client.ts'
import { isAnswer } from '../../lib/sql/given-up.ts'
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
  const rise = (pool: Pool, ms = MS) =>
    runWithin(pool, { sql: 'UPDATE things SET n = n + 1 RETURNING n', parameters: [] }, { ms, late })

  /** What `rise` comes to while the whole table is locked. */
  async function givenUp(pool: Pool): Promise<void> {
    const locker = await schema.pool.connect()
    await locker.query('BEGIN; LOCK TABLE things')
    const error: unknown = await rise(pool).catch((failure: unknown) => failure)
    await locker.query('ROLLBACK')
    locker.release()
    expect(error).instanceOf(Error)
  }

  async function another(url: string, options = '', config: PoolConfig = {}): Promise<Pool> {
    const address = new URL(url)
    address.searchParams.set('options', `-c search_path=${schema.name} ${options}`)
    address.searchParams.set('application_name', schema.name)
    return new Pool({ connectionString: address.href, max: 4, ...config }).on('error', () => {})
  }

  /** How many statements of the pools of `another` wait at a lock. */
  async function waiting(): Promise<number> {
    const { rows } = await schema.pool.query(
      "SELECT CAST(count(*) AS integer) AS n FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = $1",
      [schema.name],
    )
    return rows[0].n
  }

  /** Four statements, one after another, are given up on while the whole table is locked; the server ends all but the first. */
  async function expectOneLeft(giveUp: () => Promise<unknown>): Promise<void> {
    const locker = await schema.pool.connect()
    await locker.query('BEGIN; LOCK TABLE things')
    do await giveUp()
    while ((await waiting()) === 0)
    for (let time = 0; time < 3; time++) await giveUp()
    await eventually(async () => expect(await waiting()).equal(1))
    await locker.query('ROLLBACK')
    locker.release()
  }

  it('is the last one of its pool to wait on, where the role allows statements far more time, too', async () => {
    const pool = await another(schema.url, '-c statement_timeout=5min')
    await expectOneLeft(() => rise(pool).catch(() => {}))
    await pool.end()
  })

  it('is the last one of its pool to wait on, where the driver gives up sooner, too', async () => {
    const pool = await another(schema.url, '', { query_timeout: MS / 2 })
    await expectOneLeft(() => rise(pool).catch(() => {}))
    await pool.end()
  })

  it('is the last one of its pool to wait on, where it was cut off by something between, too', async () => {
    const proxy = await startProxy(schema.url)
    const pool = await another(proxy.url)
    await expectOneLeft(async () => {
      const before = await waiting()
      const rising = rise(pool, 5 * MS).catch(() => {})
      const waits = eventually(async () => expect(await waiting()).greaterThan(before)).catch(() => {})
      await Promise.race([rising, waits])
      proxy.cut()
      await rising
    })
    await proxy.close()
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

  it('was not ended by the server where a pooler says that the line is lost, or nobody says anything', () => {
    expect(isAnswer({ severity: 'ERROR', code: '57014' })).equal(true)
    expect(isAnswer({ severity: 'FATAL', code: '08P01' })).equal(false)
    for (const said of [new Error('Query read timeout'), undefined]) expect(isAnswer(said)).equal(false)
  })

  it('leaves the settings of a connection as they were', async () => {
    const pool = await another(schema.url, '-c statement_timeout=90s')
    await givenUp(pool)
    await rise(pool, 30_000)
    const { rows } = await pool.query(
      "SELECT current_setting('statement_timeout') AS statement, current_setting('idle_in_transaction_session_timeout') AS idle",
    )
    expect(rows).deep.equal([{ statement: '90s', idle: '0' }])
    await pool.end()
  })
})
