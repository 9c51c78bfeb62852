import { randomUUID } from 'node:crypto'
import { expect } from 'chai'
import { Redis } from 'ioredis'
import { Client, Pool } from 'pg'
import { StoreUnavailable } from '../../lib/index.ts'
import { migrate } from '../../lib/sql/migrate.ts'
import { MemoryDecisionStore } from '../../lib/transactional-message/memory.ts'
import { PostgresDecisionStore } from '../../lib/transactional-message/postgres.ts'
import { RedisDecisionStore } from '../../lib/transactional-message/redis.ts'
import { freshSchema, type Schema } from '../support/database.ts'
import { eventually } from '../support/eventually.ts'
import { freePort } from '../support/ports.ts'
import { startProxy } from '../support/tcp-proxy.ts'
import { unique } from '../support/unique.ts'
import { decisionStoreContract, freshScope } from './decision-store.contract.ts'
import { caught } from './setup.ts'

describe('MemoryDecisionStore', () => {
  const store = new MemoryDecisionStore()
  decisionStoreContract(() => store)

  it('drops what has expired as it is used', async () => {
    const own = new MemoryDecisionStore()
    const gone = freshScope(1)
    for (let i = 0; i < 10; i++) await own.decide(gone, `${i}`, 'committed', 'service')
    await eventually(async () => expect(await own.look(gone, ['9'])).to.have.nested.property('[0].decision', undefined))
    for (let i = 0; i < 10; i++) await own.decide(freshScope(), 't', 'committed', 'service')
    expect(own.size).to.be.at.most(10)
  })
})

describe('RedisDecisionStore', () => {
  const prefix = unique('decisions')
  let client: Redis
  let one: RedisDecisionStore
  let two: RedisDecisionStore

  before(() => {
    client = new Redis(process.env['REDIS_URL']!)
    one = new RedisDecisionStore({ url: process.env['REDIS_URL']! }, { prefix })
    two = new RedisDecisionStore(client, { prefix })
  })
  after(async () => {
    await Promise.all([one.close(), two.close()])
    client.disconnect()
  })
  decisionStoreContract(
    () => one,
    () => two,
  )

  it('keeps one key per transaction, and no longer than the retention after the last write', async () => {
    const scope = freshScope(60_000)
    await one.decide(scope, 't', 'committed', 'service')
    const keys = await client.keys(`${prefix}:decision:*${scope.name}*`)
    expect(keys).to.have.length(1)
    expect(await client.pttl(keys[0]!)).to.be.within(50_000, 60_000)
  })

  it('says so when Redis cannot be reached, and decides nothing', async () => {
    const lost = new RedisDecisionStore(`redis://127.0.0.1:${await freePort()}`, { connectTimeoutMs: 300 })
    const error = await caught(lost.decide(freshScope(), 't', 'committed', 'service'))
    expect(error).to.be.instanceOf(StoreUnavailable)
    await lost.close()
  })
})

describe('PostgresDecisionStore', () => {
  let schema: Schema
  let client: Client
  let store: PostgresDecisionStore

  before(async () => {
    schema = await freshSchema()
    await migrate(schema.pool, { schema: schema.name })
    store = new PostgresDecisionStore({ pool: schema.pool, schema: schema.name })
    client = new Client(schema.url)
    await client.connect()
  })
  after(async () => {
    await client.end()
    await schema.close()
  })
  decisionStoreContract(
    () => store,
    () => store,
    () => new PostgresDecisionStore({ pool: schema.pool, schema: schema.name }),
  )

  it("makes the caller's work and the decision one: both stand, or neither", async () => {
    const scope = freshScope()
    await client.query('CREATE TABLE work (id text)')
    for (const [id, end] of [
      ['kept', 'COMMIT'],
      ['undone', 'ROLLBACK'],
    ] as const) {
      await client.query('BEGIN')
      await client.query('INSERT INTO work VALUES ($1)', [id])
      const view = await store.decideIn(client, scope, { transactionId: id, decision: 'committed' })
      expect(view).to.include({ decision: 'committed', by: 'service' })
      await client.query(end)
    }
    expect((await client.query('SELECT id FROM work')).rows).to.deep.equal([{ id: 'kept' }])
    const views = await store.look(scope, ['kept', 'undone'])
    expect(views.map(({ decision }) => decision)).to.deep.equal(['committed', undefined])
  })

  it('removes what has expired as fast as it is written', async () => {
    const own = new PostgresDecisionStore({ pool: schema.pool, schema: schema.name })
    await schema.pool.query(
      `INSERT INTO ${schema.name}.decisions (name, transaction_id, expires_at)
       SELECT 'expired', n, now() - interval '1 hour' FROM generate_series(1, 2000) n`,
    )
    const left = async () => {
      const { rows } = await schema.pool.query(`SELECT count(*) FROM ${schema.name}.decisions WHERE name = 'expired'`)
      return Number(rows[0].count)
    }
    const scope = freshScope()
    await eventually(
      async () => {
        const some = Array.from({ length: 50 }, (_, n) => own.published(scope, `t${n}`, 'half'))
        await Promise.all(some)
        expect(await left()).to.equal(0)
      },
      { withinMs: 30_000 },
    )
  }).timeout(60_000)

  it('lets nobody else decide while a transaction that has decided is open, and tells them its end', async () => {
    const scope = freshScope()
    await client.query('BEGIN')
    await store.decideIn(client, scope, { transactionId: 't', decision: 'committed' })
    const hasty = new PostgresDecisionStore({ pool: schema.pool, schema: schema.name, lockTimeoutMs: 200 })
    const refused = await caught(hasty.decide(scope, 't', 'rolled-back', 'check'))
    expect(refused, 'waits no longer than lockTimeoutMs').to.be.instanceOf(StoreUnavailable)
    const patient = new PostgresDecisionStore({
      pool: schema.pool,
      schema: schema.name,
      lockTimeoutMs: 10_000,
      commandTimeoutMs: 20_000,
    })
    const later = patient.decide(scope, 't', 'rolled-back', 'check')
    await eventually(async () => {
      const { rows } = await client.query("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
      expect(rows).to.have.length.greaterThan(0)
    })
    await client.query('COMMIT')
    expect(await later).to.include({ decision: 'committed', by: 'service' })
  })

  it('tells a transaction that comes too late what stands, within the time it may wait', async () => {
    const scope = freshScope()
    await store.decide(scope, 't', 'rolled-back', 'check')
    await client.query('BEGIN')
    const view = await store.decideIn(client, scope, { transactionId: 't', decision: 'committed' })
    expect(view).to.include({ decision: 'rolled-back', by: 'check' })
    await client.query('ROLLBACK')
  })

  it("leaves the lent client's lock_timeout as it was", async () => {
    await client.query('BEGIN')
    await client.query("SET LOCAL lock_timeout = '7s'")
    await store.decideIn(client, freshScope(), { transactionId: 't', decision: 'committed' })
    expect((await client.query('SHOW lock_timeout')).rows).to.deep.equal([{ lock_timeout: '7s' }])
    await client.query('ROLLBACK')
  })

  it('refuses a pool, and a client that is in no transaction', async () => {
    for (const outside of [schema.pool, client]) {
      const error = await caught(store.decideIn(outside, freshScope(), { transactionId: 't', decision: 'committed' }))
      expect(error).to.have.property('code', 'INVALID_OPTION')
    }
  })

  it('ends every call, also when the database does not answer', async () => {
    const mute = { query: () => new Promise<never>(() => {}), connect: () => new Promise<never>(() => {}) }
    const lost = new PostgresDecisionStore({ pool: mute, lockTimeoutMs: 20, commandTimeoutMs: 50 })
    expect(await caught(lost.decide(freshScope(), 't', 'committed', 'service'))).to.be.instanceOf(StoreUnavailable)
    expect(await caught(lost.look(freshScope(), ['t']))).to.be.instanceOf(StoreUnavailable)
  })

  it('decides under a stricter isolation by default, too', async () => {
    const database = `isolated_${randomUUID().replaceAll('-', '')}`
    await client.query(`CREATE DATABASE ${database}`)
    await client.query(`ALTER DATABASE ${database} SET default_transaction_isolation = 'serializable'`)
    const url = new URL(schema.url)
    url.pathname = database
    const pool = new Pool({ connectionString: url.href })
    await migrate(pool)
    const decisions = new PostgresDecisionStore({ pool })
    const scope = freshScope()
    for (let n = 0; n < 5; n++) {
      const [{ by }] = await Promise.all([
        decisions.decide(scope, `${n}`, 'committed', 'service'),
        decisions.checked(scope, `${n}`),
        decisions.decide(scope, `${n}`, 'committed', 'service'),
        decisions.checked(scope, `${n}`),
      ])
      expect(by).to.equal('service')
      expect(await decisions.look(scope, [`${n}`])).to.have.nested.property('[0].checks', 2)
    }
    await pool.end()
    await client.query(`DROP DATABASE ${database}`)
  })

  it('goes on by itself after a network that lost what was under way, with all clients of the pool', async () => {
    const proxy = await startProxy(schema.url)
    const pool = new Pool({ connectionString: proxy.url, max: 2 }).on('error', () => {})
    const own = { pool, schema: schema.name, lockTimeoutMs: 100, commandTimeoutMs: 500 }
    const decisions = new PostgresDecisionStore(own)
    const scope = freshScope()
    await Promise.all(['a', 'b'].map((id) => decisions.look(scope, [id])))
    proxy.swallow()
    for (const id of ['a', 'b'])
      expect(await caught(decisions.decide(scope, id, 'committed', 'service'))).to.be.instanceOf(StoreUnavailable)
    await proxy.resume()
    expect(await decisions.decide(scope, 'c', 'committed', 'service')).to.include({ decision: 'committed' })
    await proxy.close()
    await pool.end()
  })

  it('removes what has expired', async () => {
    await new PostgresDecisionStore({ pool: schema.pool, schema: schema.name }).decide(
      freshScope(1),
      'old',
      'committed',
      'service',
    )
    await eventually(async () => {
      await new PostgresDecisionStore({ pool: schema.pool, schema: schema.name }).decide(
        freshScope(),
        't',
        'committed',
        'service',
      )
      const left = `SELECT 1 FROM ${schema.name}.decisions WHERE transaction_id = 'old'`
      expect((await client.query(left)).rows).to.have.length(0)
    })
  })

  it('says that it cannot be reached, or that its tables are not there', async () => {
    const bare = new PostgresDecisionStore({ pool: schema.pool, schema: 'surehop_nowhere' })
    expect(await caught(bare.check())).to.have.property('code', 'SCHEMA_MISMATCH')
    expect(await store.check()).to.deep.equal([])
  })
})
