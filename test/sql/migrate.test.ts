import { expect } from 'chai'
import { Pool, type PoolConfig } from 'pg'
import {
  checkSchema,
  DatabaseUnavailable,
  InvalidOption,
  type MigrationResult,
  migrate,
  migrationSql,
  PermissionRefused,
  SchemaMismatch,
  type SqlPool,
  schemaVersion,
} from '../../lib/index.ts'
import { Outbox } from '../../lib/outbox/outbox.ts'
import { VERSIONS_TABLE } from '../../lib/sql/migration-text.ts'
import { MIGRATIONS } from '../../lib/sql/migrations/all.ts'
import { inSchema } from '../../lib/sql/schema.ts'
import { startChild } from '../support/child.ts'
import { eventOf, eventually, within } from '../support/eventually.ts'
import { type Server, startPostgres } from '../support/services.ts'
import { type Direction, startProxy } from '../support/tcp-proxy.ts'
import { unique } from '../support/unique.ts'
import { objectsOf, stepsOf } from './catalog.ts'

const LATEST = MIGRATIONS.length
const STEPS = MIGRATIONS.map(({ version, name }) => `${version} ${name}`)
const MIGRATOR = new URL('./fixtures/migrator.ts', import.meta.url)

describe('migrate', function () {
  this.timeout(60_000)
  let server: Server
  let pool: Pool
  const pools: Pool[] = []

  before(async () => {
    server = await startPostgres()
  })
  beforeEach(() => {
    pool = opened()
  })
  afterEach(() => Promise.all(pools.splice(0).map((it) => it.end())))
  after(() => server?.close())

  function opened(options: PoolConfig = {}): Pool {
    const more = new Pool({ connectionString: server.url, ...options }).on('error', () => {})
    pools.push(more)
    return more
  }

  it('does not keep others waiting when its line is lost before its COMMIT', async () => {
    const line = await startProxy(server.url)
    const schema = unique('lost').replaceAll('-', '_')
    const isCommit = (_: unknown, bytes: Buffer) => bytes.includes('COMMIT\0')
    line.on('data', (way, bytes) => {
      if (isCommit(way, bytes)) line.stall()
    })
    const stalled = eventOf<[Direction, Buffer]>(line, 'data', { where: isCommit })
    const lost = migrate(opened({ connectionString: line.url }), { schema }).catch((error: Error) => error)
    await stalled
    const { version } = await within(migrate(pool, { schema }), { what: 'the other migration', withinMs: 30_000 })
    expect(version).to.equal(LATEST)
    await line.close()
    expect(await lost).to.be.instanceOf(DatabaseUnavailable)
  })

  it('makes the tables in schema surehop, and finds nothing to do the second time', async () => {
    expect(await schemaVersion(pool)).to.equal(0)
    const applied = MIGRATIONS.map(({ version, name }) => ({ version, name }))
    expect(await migrate(pool)).to.deep.equal({ schema: 'surehop', version: LATEST, applied })
    expect(await migrate(pool)).to.deep.equal({ schema: 'surehop', version: LATEST, applied: [] })
    expect(await checkSchema(pool)).to.equal(LATEST)
    expect(await stepsOf(pool, 'surehop')).to.deep.equal(STEPS)
  })

  it('completes a schema that somebody made for it, and that another user owns', async () => {
    const [schema, role] = [named(), await newRole(pool)]
    await pool.query(`CREATE SCHEMA ${schema}; GRANT CREATE, USAGE ON SCHEMA ${schema} TO ${role.name}`)
    await migrate(opened(role.login), { schema })
    expect(await stepsOf(pool, schema)).to.deep.equal(STEPS)
  })

  for (const isolation of ['read committed', 'repeatable read', 'serializable']) {
    it(`applies each step once when five processes start together, ${isolation} being the default`, async () => {
      const options = `-c default_transaction_isolation=${isolation.replaceAll(' ', '\\ ')}`
      const five = Array.from({ length: 5 }, () => opened({ options }))
      for (let round = 0; round < 8; round++) {
        const schema = named()
        const results = await Promise.all(five.map((it) => migrate(it, { schema })))
        const applied = results.flatMap(namesOf)
        expect(applied.sort()).to.deep.equal(STEPS)
        expect(results.map(({ version }) => version)).to.deep.equal(Array(5).fill(LATEST))
        expect(await stepsOf(pool, schema)).to.deep.equal(STEPS)
      }
    })
  }

  it('takes a table that another process is just making for there or not there, never for a stranger’s', async () => {
    const [schema, client] = [named(), await opened().connect()]
    // What the statement saw when it began, and what is committed while it runs: here with all the time in the world between.
    await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1')
    await migrate(pool, { schema })
    const earlier: SqlPool = {
      query: (sql: string, values?: unknown[]) => client.query(sql, values),
      connect: () => Promise.reject(new Error('nobody asks')),
    }
    expect(await schemaVersion(earlier, { schema })).to.equal(0)
    await client.query('COMMIT')
    expect(await schemaVersion(earlier, { schema })).to.equal(LATEST)
    client.release()
  })

  for (const [where, word, number, left] of [
    ['between two steps', 'BEGIN', 2, 1],
    ['in the first one, which makes the schema', 'INSERT', 1, 0],
    ['before the commit of the second one', 'COMMIT', 2, 1],
  ] as const) {
    it(`leaves whole steps when its process is killed ${where}`, async () => {
      const schema = named()
      await using child = startChild(MIGRATOR, { args: [server.url, schema, word, `${number}`] })
      await child.next({ withinMs: 30_000 })
      await child.kill9()
      expect(await completed(pool, schema)).to.deep.equal(STEPS.slice(left))
    })
  }

  it('leaves whole steps when its connection is lost before any of its statements', async () => {
    const versions = new Set<number>()
    for (let lost = 1; ; lost++) {
      const schema = named()
      const error = await migrate(losing(pool, lost), { schema }).then(
        () => undefined,
        (thrown: unknown) => thrown,
      )
      if (!error) break
      expect(error).to.be.instanceOf(DatabaseUnavailable)
      versions.add(LATEST - (await completed(pool, schema)).length)
    }
    expect([...versions]).to.deep.equal(MIGRATIONS.map(({ version }) => version - 1))
  })

  it('waits for a process that is migrating, and goes on with the rest when that one dies', async () => {
    const schema = named()
    await using child = startChild(MIGRATOR, { args: [server.url, schema, 'COMMIT', '2'] })
    await child.next({ withinMs: 30_000 })
    const waiting = migrate(pool, { schema })
    await eventually(async () => (await waitingForLock(pool)) > 0)
    await child.kill9()
    expect(namesOf(await waiting)).to.deep.equal(STEPS.slice(1))
  })

  it('refuses a schema that is newer than this version of the library, and leaves it alone', async () => {
    const schema = named()
    await migrate(pool, { schema })
    await pool.query(`INSERT INTO ${schema}.migrations (version, name) VALUES (${LATEST + 1}, 'future')`)
    for (const refused of [migrate(pool, { schema }), checkSchema(pool, { schema })]) {
      const error = await refusal(refused, SchemaMismatch)
      expect(error).to.include({ found: LATEST + 1, expected: LATEST })
      expect(error.message).to.match(/is at version \d+, and this version of Surehop knows \d+: upgrade the package/)
    }
    expect(await schemaVersion(pool, { schema })).to.equal(LATEST + 1)
  })

  it('tells a schema that lacks steps, or all of them, and what to do', async () => {
    const schema = named()
    const none = await refusal(checkSchema(pool, { schema }), SchemaMismatch)
    expect(none).to.include({ found: 0, expected: LATEST })
    expect(none.message).to.match(/has no tables of Surehop, expected version \d+: run `surehop migrate`/)
    await partly(pool, schema, 1)
    const older = await refusal(checkSchema(pool, { schema }), SchemaMismatch)
    expect(older).to.include({ found: 1, expected: LATEST })
    expect(older.message).to.match(/is at version 1, expected version \d+: run `surehop migrate`/)
  })

  it("refuses a schema whose table of migrations is another tool's", async () => {
    const schema = named()
    await pool.query(`CREATE SCHEMA ${schema}; CREATE TABLE ${schema}.migrations (id int, timestamp bigint, name text)`)
    for (const refused of [migrate(pool, { schema }), checkSchema(pool, { schema })])
      expect((await refusal(refused, SchemaMismatch)).message).to.contain(`"${schema}.migrations" is not Surehop's`)
  })

  it('says what a user lacks who may not create, and needs no right to create when nothing is missing', async () => {
    const [schema, role] = [named(), await newRole(pool)]
    const limited = opened(role.login)
    const forbidden = await refusal(migrate(limited, { schema }), PermissionRefused)
    expect(forbidden.message).to.match(/grant CREATE on the database.*permission denied for database/)
    await migrate(pool, { schema })
    const unseen = await refusal(checkSchema(limited, { schema }), PermissionRefused)
    expect(unseen.message).to.match(/grant USAGE on the schema.*permission denied for schema/)
    await pool.query(`GRANT USAGE ON SCHEMA ${schema} TO ${role.name}`)
    const unread = await refusal(checkSchema(limited, { schema }), PermissionRefused)
    expect(unread.message).to.match(/grant SELECT.*permission denied for table migrations/)
    await pool.query(`GRANT SELECT ON ALL TABLES IN SCHEMA ${schema} TO ${role.name}`)
    expect(await checkSchema(limited, { schema })).to.equal(LATEST)
    expect((await migrate(limited, { schema })).applied).to.deep.equal([])
  })

  it('needs no more than these rights where messages are added', async () => {
    const [schema, role] = [named(), await newRole(pool)]
    await migrate(pool, { schema })
    await pool.query(`GRANT USAGE ON SCHEMA ${schema} TO ${role.name};
      GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA ${schema} TO ${role.name};
      GRANT USAGE ON ALL SEQUENCES IN SCHEMA ${schema} TO ${role.name}`)
    const outbox = new Outbox({ name: 'shop', schema, pool: opened(role.login) })
    await outbox.transaction((client) => outbox.add({ queue: 'orders', key: 'a', body: {} }, client))
    expect((await pool.query(`SELECT placed FROM ${schema}.outbox`)).rows).to.deep.equal([{ placed: true }])
  })

  it('says that the database is not there when it is not', async () => {
    const url = new URL(server.url)
    url.port = '1'
    for (const ask of [migrate, schemaVersion, checkSchema]) {
      const error = await refusal(ask(opened({ connectionString: url.href })), DatabaseUnavailable)
      expect(error.message).to.match(/nothing listens there.*ECONNREFUSED 127.0.0.1:1/)
      expect(error.message).to.not.contain(url.password)
    }
  })

  it('refuses names that PostgreSQL would not take as they are, all its own words among them', async () => {
    const { rows } = await pool.query("SELECT word FROM pg_get_keywords() WHERE catcode IN ('R', 'T')")
    expect(rows).to.have.length.greaterThan(90)
    const words = rows.map(({ word }) => word as string)
    for (const schema of [...words, 'Upper', 'a-b', 'a"b', "a'b", 'a b', '', '1a', 'pg_mine', 'x'.repeat(52)])
      await refusal(migrate(pool, { schema }), InvalidOption)
    const { rows: others } = await pool.query("SELECT word FROM pg_get_keywords() WHERE catcode = 'C'")
    for (const { word } of others) expect(await schemaVersion(pool, { schema: word as string })).to.equal(0)
  })

  it('refuses what is no pool', async () => {
    const error = await refusal(migrate({} as SqlPool), InvalidOption)
    expect(error.message).to.contain("expected pool to be a pool such as pg's Pool, got an object")
  })

  describe('printed', () => {
    it('makes what migrate makes, in one go or from any step on', async () => {
      const applied = named()
      await migrate(pool, { schema: applied })
      for (let from = 1; from <= LATEST; from++) {
        const schema = named()
        await partly(pool, schema, from - 1)
        await pool.query(migrationSql({ schema, from }))
        expect(await objectsOf(pool, schema)).to.deep.equal(await objectsOf(pool, applied))
        expect(await stepsOf(pool, schema)).to.deep.equal(STEPS)
        expect(await checkSchema(pool, { schema })).to.equal(LATEST)
      }
    })

    it('is refused as a whole by a schema that it does not start from', async () => {
      const schema = named()
      for (const [applied, from, says] of [
        [0, 2, /is at version 0, this text is for version 1: print the text with --from 1; nothing was changed/],
        [1, 1, /is at version 1, this text is for version 0: print the text with --from 2; nothing was changed/],
        [LATEST, 1, /is at version \d+, this text is for version 0: there is nothing to do; nothing was changed/],
      ] as const) {
        await partly(pool, schema, applied)
        const before = await objectsOf(pool, schema)
        const client = await pool.connect()
        const error = await client.query(migrationSql({ schema, from })).catch((thrown: Error) => thrown)
        client.release(true)
        expect(error).to.be.an('error').with.property('message').that.match(says)
        expect(await objectsOf(pool, schema)).to.deep.equal(before)
      }
    })

    it('refuses steps that there are not', () => {
      for (const from of [0, LATEST + 1, 1.5])
        expect(() => migrationSql({ from })).to.throw(InvalidOption, /from 1 to \d+/)
    })
  })

  function named(): string {
    return unique('schema').replaceAll('-', '_')
  }

  async function newRole(admin: Pool): Promise<{ name: string; login: PoolConfig }> {
    const name = unique('role').replaceAll('-', '_')
    await admin.query(`CREATE ROLE ${name} LOGIN PASSWORD 'secret'`)
    const url = new URL(server.url)
    Object.assign(url, { username: name, password: 'secret' })
    return { name, login: { connectionString: url.href } }
  }
})

async function refusal<E extends Error>(
  doing: Promise<unknown>,
  kind: abstract new (...given: never[]) => E,
): Promise<E> {
  const error = await doing.then(
    (done) => expect.fail(`it was not refused: ${JSON.stringify(done)}`),
    (thrown: unknown) => thrown,
  )
  expect(error).to.be.instanceOf(kind)
  return error as E
}

/** A schema after so many steps, made by hand. */
async function partly(pool: Pool, schema: string, version: number): Promise<void> {
  await pool.query(`DROP SCHEMA IF EXISTS ${schema} CASCADE`)
  if (version === 0) return
  await pool.query(inSchema(schema, VERSIONS_TABLE.create))
  for (const { version: number, name, sql } of MIGRATIONS.slice(0, version)) {
    await pool.query(inSchema(schema, sql))
    await pool.query(`INSERT INTO ${schema}.migrations (version, name) VALUES ($1, $2)`, [number, name])
  }
}

/** Expects whole steps in the schema, completes it, and tells which steps were missing. */
async function completed(pool: Pool, schema: string): Promise<string[]> {
  const version = await eventually(() => schemaVersion(pool, { schema }))
  const { rows } = await pool.query('SELECT to_regnamespace($1) IS NOT NULL AS there', [schema])
  expect(rows[0].there).to.equal(version > 0)
  const model = unique('model').replaceAll('-', '_')
  await partly(pool, model, version)
  if (version > 0) expect(await objectsOf(pool, schema)).to.deep.equal(await objectsOf(pool, model))
  return namesOf(await migrate(pool, { schema }))
}

function namesOf({ applied }: MigrationResult): string[] {
  return applied.map(({ version, name }) => `${version} ${name}`)
}

/** A pool whose connection is ended by the server before the statement of that number. */
function losing(pool: Pool, number: number): SqlPool {
  let asked = 0
  return {
    query: (sql, parameters) => pool.query(sql, parameters),
    connect: async () => {
      const client = await pool.connect()
      const query = async (sql: string, parameters?: unknown[]) => {
        if (++asked === number) {
          const { rows } = await client.query('SELECT pg_backend_pid() AS pid')
          const ended = new Promise((resolve) => client.once('end', resolve))
          await pool.query('SELECT pg_terminate_backend($1)', [rows[0].pid])
          await ended
        }
        return client.query(sql, parameters)
      }
      const on = (event: 'error' | 'end' | 'notification', listener: (it?: unknown) => void) =>
        client.on(event, listener)
      return { query, on, release: (destroy?: boolean | Error) => client.release(destroy) }
    },
  }
}

async function waitingForLock(pool: Pool): Promise<number> {
  const { rows } = await pool.query("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
  return Number(rows[0].count)
}
