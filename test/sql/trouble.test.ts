import { inspect } from 'node:util'
import { expect } from 'chai'
import { drizzle } from 'drizzle-orm/node-postgres'
import knex from 'knex'
import { Pool, type PoolClient, type PoolConfig } from 'pg'
import { DataSource } from 'typeorm'
import {
  CommitRefused,
  ConnectionRefused,
  DatabaseUnavailable,
  PermissionRefused,
  type RefusalReason,
  SchemaMismatch,
} from '../../lib/index.ts'
import { inTransaction } from '../../lib/sql/client.ts'
import { MIGRATIONS } from '../../lib/sql/migrations/all.ts'
import { explainSql, isPassing } from '../../lib/sql/trouble.ts'
import { eventually } from '../support/eventually.ts'
import { type Server, startPostgres } from '../support/services.ts'
import { unique } from '../support/unique.ts'

type Kind = abstract new (...given: never[]) => Error

describe('what Postgres says', function () {
  this.timeout(30_000)
  let server: Server
  let pool: Pool
  const pools: Pool[] = []

  before(async () => {
    server = await startPostgres()
    pool = new Pool({ connectionString: server.url }).on('error', () => {})
  })
  afterEach(async () => {
    await server.thaw()
    await Promise.all(pools.splice(0).map((it) => it.end()))
  })
  after(async () => {
    await pool?.end()
    await server?.close()
  })

  function opened(options: PoolConfig = {}, change: Partial<URL> = {}): Pool {
    const url = Object.assign(new URL(server.url), change)
    const more = new Pool({ connectionString: url.href, ...options }).on('error', () => {})
    pools.push(more)
    return more
  }

  /** What comes of it, explained. Holds no secret, neither in its text nor in its cause. */
  async function explained(doing: PromiseLike<unknown>): Promise<Error> {
    const thrown = await doing.then(
      () => expect.fail('it went well'),
      (error: unknown) => error,
    )
    const error = explainSql(thrown, 'reading the outbox')
    const secrets = new RegExp(`${new URL(server.url).password}|guessed|postgres://|secret parameter|select 1`)
    if (error !== thrown) expect(inspect(error, { depth: 9 })).to.not.match(secrets)
    return error
  }

  async function expectError(doing: PromiseLike<unknown>, kind: Kind, says: RegExp, passing: boolean): Promise<Error> {
    const error = await explained(doing)
    expect(error).to.be.instanceOf(kind)
    expect(error.message)
      .to.match(/^Reading the outbox failed at Postgres: /)
      .and.to.match(says)
    expect(isPassing(error), 'passing').to.equal(passing)
    return error
  }

  const select = (from: Pool) => from.query('SELECT 1')
  const refusals: readonly (readonly [string, RefusalReason, RegExp, () => PromiseLike<unknown>])[] = [
    ['a wrong password', 'credentials', /check user name and pass/, () => select(opened({}, { password: 'guessed' }))],
    [
      'no password',
      'credentials',
      /asks for a password, and none was given/,
      () => select(opened({}, { password: '' })),
    ],
    ['an unknown user', 'credentials', /refuses the login/, () => select(opened({}, { username: 'nobody' }))],
    ['an unknown database', 'database', /no such database/, () => select(opened({}, { pathname: '/nowhere' }))],
    ['TLS where there is none', 'tls', /speaks no TLS/, () => select(opened({}, { search: 'sslmode=verify-full' }))],
  ]
  for (const [what, reason, says, doing] of refusals)
    it(`is a refusal to connect for ${what}`, async () => {
      const error = await expectError(doing(), ConnectionRefused, says, false)
      expect(error).to.include({ reason })
    })

  const outages: readonly (readonly [string, RegExp, () => PromiseLike<unknown>])[] = [
    ['nothing listens', /nothing listens there.*ECONNREFUSED/, () => select(opened({}, { port: '1' }))],
    [
      'nothing listens at several addresses',
      /nothing listens/,
      () => select(opened({}, { hostname: 'localhost', port: '1' })),
    ],
    ['the host is unknown', /host name is not known/, () => select(opened({}, { hostname: 'nowhere.invalid' }))],
    ['all connections of the pool are taken', /no connection was to be had in time/, exhausted],
    ['all connections of the user are taken', /all its connections are taken/, crowded],
    ['a connection is ended by the server', /stopping or starting|connection was lost/, terminated],
    ['a statement takes too long for the server', /time limit.*statement timeout/, () => slow('statement_timeout')],
    [
      'a statement takes too long for the client',
      /did not answer in time/,
      () => slowFor(opened({ query_timeout: 50 })),
    ],
    ['a lock takes too long', /time limit.*lock timeout/, locked],
    ['a transaction idles too long', /time limit|connection was lost/, idle],
    ['it is read-only', /read-only, a replica perhaps/, readOnly],
    ['it does not answer', /no connection was to be had in time/, frozen],
  ]
  for (const [when, says, doing] of outages)
    it(`is an outage, which may pass, when ${when}`, () => expectError(doing(), DatabaseUnavailable, says, true))

  it('is an outage for whoever is connected while the server is killed, and after it', async () => {
    await using own = await startPostgres()
    const mine = new Pool({ connectionString: own.url }).on('error', () => {})
    const asked = expectError(mine.query('SELECT pg_sleep(60)'), DatabaseUnavailable, /connection was lost/, true)
    await eventually(
      async () => (await mine.query("SELECT 1 FROM pg_stat_activity WHERE query LIKE '%sleep(6%'")).rowCount! > 1,
    )
    await own.kill9()
    await asked
    await expectError(mine.query('SELECT 1'), DatabaseUnavailable, /nothing listens|connection was lost/, true)
    await mine.end()
  })

  for (const [what, statement] of [
    ['its tables', 'SELECT * FROM surehop.outbox'],
    ['it', 'CREATE TABLE surehop.inbox ()'],
    ['columns', 'SELECT later FROM pg_class'],
    ['functions', 'SELECT public.outbox_later(1)'],
  ])
    it(`is a mismatch of the schema where ${what} cannot be found`, async () => {
      const error = await expectError(pool.query(statement as string), SchemaMismatch, /run `surehop migrate`/, false)
      expect(error).to.include({ found: undefined, expected: MIGRATIONS.length })
    })

  it('is a lack of a right, with the one to grant', async () => {
    const role = await newRole()
    const limited = opened({}, role)
    await pool.query('CREATE TABLE IF NOT EXISTS hidden (); CREATE SEQUENCE IF NOT EXISTS counter')
    for (const [statement, says] of [
      ['SELECT * FROM hidden', /grant SELECT.*table hidden/],
      ["SELECT nextval('counter')", /grant USAGE and SELECT on the sequences/],
      ['CREATE SCHEMA mine', /grant CREATE on the database/],
      ['CREATE TABLE pg_catalog.mine ()', /grant USAGE on the schema/],
      ['SELECT pg_read_file($1)', /grant EXECUTE on the functions/],
    ] as const)
      await expectError(limited.query(statement, statement.includes('$1') ? ['x'] : []), PermissionRefused, says, false)
  })

  it('stays as it was for mistakes of a statement, and for what no database said', async () => {
    for (const statement of ['SELEC 1', 'SELECT 1/0', "SELECT 'a'::integer", 'SELECT $1', 'SELECT 1 = true']) {
      const thrown = await pool.query(statement).catch((error: unknown) => error)
      expect(explainSql(thrown, 'asking')).to.equal(thrown)
      expect(isPassing(thrown)).to.equal(false)
    }
    const own = new TypeError('mine')
    expect(explainSql(own, 'asking')).to.equal(own)
    expect(explainSql('a text', 'asking')).to.be.an('error').with.property('message', 'a text')
    const explained = new DatabaseUnavailable('said already')
    expect(explainSql(explained, 'asking')).to.equal(explained)
  })

  it('may pass for a deadlock and for a conflict of serializable transactions, and stays as it was', async () => {
    for (const conflict of [deadlock, unserializable]) {
      const error = await explained(conflict())
      expect(error).to.have.property('code').that.is.oneOf(['40P01', '40001'])
      expect(isPassing(error)).to.equal(true)
    }
  })

  it('is found in the errors of query tools, and their statements and parameters are left out', async () => {
    const statement = 'select 1 from surehop.outbox where name = '
    const made = knex({ client: 'pg', connection: server.url })
    const tool = drizzle(pool)
    const source = new DataSource({ type: 'postgres', url: server.url })
    await source.initialize()
    for (const doing of [
      () => made.raw(`${statement}?`, ['secret parameter']),
      () => tool.execute(`${statement}'secret parameter'`),
      () => source.query(`${statement}$1`, ['secret parameter']),
    ])
      await expectError(doing(), SchemaMismatch, /relation "surehop.outbox" does not exist/, false)
    await Promise.all([made.destroy(), source.destroy()])
  })

  it('is an error, and no commit, when a transaction in which something failed is to be committed', async () => {
    const table = await newTable()
    const swallowing = inTransaction(pool, async (client) => {
      await client.query(`INSERT INTO ${table} VALUES (1)`)
      await client.query('SELECT 1/0').catch(() => {})
    })
    expect(await explained(swallowing)).to.be.instanceOf(CommitRefused)
    expect((await pool.query(`SELECT * FROM ${table}`)).rows).to.deep.equal([])
  })

  async function exhausted(): Promise<unknown> {
    const small = opened({ max: 1, connectionTimeoutMillis: 50 })
    const client = await small.connect()
    return select(small).finally(() => client.release())
  }

  async function crowded(): Promise<unknown> {
    const role = await newRole('CONNECTION LIMIT 0')
    return select(opened({}, role))
  }

  async function terminated(): Promise<unknown> {
    return withClient(async (client) => {
      const { rows } = await client.query('SELECT pg_backend_pid() AS pid')
      const asked = client.query('SELECT pg_sleep(60)')
      await Promise.all([asked, pool.query('SELECT pg_terminate_backend($1)', [rows[0].pid])])
    })
  }

  function slow(setting: string): Promise<unknown> {
    return slowFor(opened({ options: `-c ${setting}=50` }))
  }

  function slowFor(from: Pool): Promise<unknown> {
    return from.query('SELECT pg_sleep(2)')
  }

  async function locked(): Promise<unknown> {
    const table = await newTable()
    return withClient(async (client) => {
      await client.query(`BEGIN; LOCK TABLE ${table}`)
      await opened({ options: '-c lock_timeout=50' }).query(`SELECT * FROM ${table}`)
    })
  }

  async function idle(): Promise<unknown> {
    const client = await opened({ options: '-c idle_in_transaction_session_timeout=50' }).connect()
    const ended = new Promise((resolve) => client.once('error', resolve))
    await client.query('BEGIN')
    await ended
    return client.query('SELECT 1').finally(() => client.release(true))
  }

  async function readOnly(): Promise<unknown> {
    const table = await newTable()
    return opened({ options: '-c default_transaction_read_only=on' }).query(`INSERT INTO ${table} VALUES (1)`)
  }

  async function frozen(): Promise<unknown> {
    await server.freeze()
    return select(opened({ connectionTimeoutMillis: 100 }))
  }

  async function deadlock(): Promise<unknown> {
    const table = await newTable(1, 2)
    const lock = (client: PoolClient, id: number) => client.query(`SELECT * FROM ${table} WHERE id = ${id} FOR UPDATE`)
    return withClient(async (one) =>
      withClient(async (two) => {
        for (const client of [one, two]) await client.query('BEGIN')
        await Promise.all([lock(one, 1), lock(two, 2)])
        const crossed = [lock(one, 2).then(() => one.query('ROLLBACK')), lock(two, 1).then(() => two.query('ROLLBACK'))]
        await Promise.all(crossed)
      }),
    )
  }

  async function unserializable(): Promise<unknown> {
    const table = await newTable(1)
    return withClient(async (client) => {
      await client.query('BEGIN ISOLATION LEVEL SERIALIZABLE')
      await client.query(`SELECT * FROM ${table}`)
      await pool.query(`UPDATE ${table} SET id = 2`)
      await client.query(`UPDATE ${table} SET id = 3`)
    })
  }

  async function withClient(work: (client: PoolClient) => Promise<unknown>): Promise<unknown> {
    const client = await pool.connect()
    client.on('error', () => {})
    return work(client).finally(() => client.release(true))
  }

  async function newTable(...ids: number[]): Promise<string> {
    const name = unique('things').replaceAll('-', '_')
    await pool.query(`CREATE TABLE ${name} (id integer)`)
    for (const id of ids) await pool.query(`INSERT INTO ${name} VALUES (${id})`)
    return name
  }

  async function newRole(options = ''): Promise<{ username: string; password: string }> {
    const username = unique('role').replaceAll('-', '_')
    await pool.query(`CREATE ROLE ${username} LOGIN PASSWORD 'guessed' ${options}`)
    return { username, password: 'guessed' }
  }
})
