import { expect } from 'chai'
import { Pool } from 'pg'
import { checkSchema, migrationSql } from '../../lib/index.ts'
import { type Server, startPostgres } from '../support/services.ts'
import { unique } from '../support/unique.ts'
import { lines, type Ran, surehop } from './command.ts'

describe('the command: migrate', function () {
  this.timeout(60_000)
  let server: Server
  let pool: Pool
  let schema: string

  before(async () => {
    server = await startPostgres()
    pool = new Pool({ connectionString: server.url }).on('error', () => {})
  })
  beforeEach(() => {
    schema = unique('schema').replaceAll('-', '_')
  })
  after(async () => {
    await pool?.end()
    await server?.close()
  })

  /** No broker is named: it must do without. */
  async function migrate(args: readonly string[], url: string | undefined = server.url): Promise<Ran> {
    const env = { DATABASE_URL: url, AMQP_URL: undefined, REDIS_URL: undefined }
    const ran = await surehop(['migrate', '--schema', schema, ...args], { env })
    for (const secret of [new URL(server.url).password, 'gues%23sed', 'gues'])
      expect(ran.stdout + ran.stderr).to.not.contain(secret)
    return ran
  }

  function changed(change: Partial<URL>): string {
    return Object.assign(new URL(server.url), change).href
  }

  it('applies what is missing, without a broker, and the second time says that there is nothing to do', async () => {
    const first = await migrate([])
    expect(first).to.include({ code: 0, stderr: '' })
    expect(first.stdout).to.match(
      /^applied 1 outbox\napplied 2 inbox\n(applied .*\n)*schema "schema_\w+" is at version \d+\n$/,
    )
    await checkSchema(pool, { schema })
    const second = await migrate(['--database', server.url], 'postgres://nowhere.invalid/')
    expect(second).to.include({ code: 0, stderr: '' })
    expect(second.stdout).to.match(/^schema "schema_\w+" is at version \d+, nothing to do\n$/)
  })

  it('writes one JSON object', async () => {
    const [object, ...others] = lines((await migrate(['--json'])).stdout)
    const version = await checkSchema(pool, { schema })
    expect(object).to.include({ schema, version })
    expect((object as { applied: unknown[] }).applied[0]).to.deep.equal({ version: 1, name: 'outbox' })
    expect(others).to.deep.equal([])
  })

  it('checks and changes nothing: 1 while something is missing, 0 when all is there', async () => {
    const missing = await migrate(['--check'])
    expect(missing).to.include({ code: 1, stdout: '' })
    expect(missing.stderr).to.match(/has no tables of Surehop, expected version \d+: run `surehop migrate`/)
    const { code, stdout } = await migrate(['--check', '--json'])
    expect(code).to.equal(1)
    expect(lines(stdout)[0]).to.include({ ok: false, found: 0 })
    await pool.query(migrationSql({ schema }))
    const complete = await migrate(['--check'])
    expect(complete.code).to.equal(0)
    expect(complete.stdout).to.match(/is at version \d+, as expected/)
  })

  it('refuses a newer schema with 1', async () => {
    await pool.query(migrationSql({ schema }))
    await pool.query(`INSERT INTO ${schema}.migrations (version, name) VALUES (99, 'future')`)
    for (const args of [[], ['--check']]) {
      const { code, stdout, stderr } = await migrate(args)
      expect({ code, stdout }).to.deep.equal({ code: 1, stdout: '' })
      expect(stderr).to.match(
        /is at version 99, and this version of Surehop knows \d+: upgrade the package surehop here/,
      )
    }
  })

  it('prints what migrationSql gives, and needs no database for it', async () => {
    const all = await migrate(['--print'], '')
    expect(all).to.deep.equal({ code: 0, stdout: migrationSql({ schema }), stderr: '' })
    const rest = await migrate(['--print', '--from', '2'], '')
    expect(rest.stdout).to.equal(migrationSql({ schema, from: 2 }))
  })

  for (const [what, url, says] of [
    ['it is down', () => changed({ port: '1' }), /nothing listens there: start it, or correct the address/],
    ['the password is wrong', () => changed({ password: 'gues%23sed' }), /check user name and password/],
    ['there is no such database', () => changed({ pathname: '/nowhere' }), /there is no such database: create it/],
    ['it speaks no TLS', () => changed({ search: 'sslmode=verify-full' }), /it speaks no TLS: remove sslmode/],
  ] as const)
    it(`ends with 3 when ${what}, and says what to do`, async () => {
      const { code, stdout, stderr } = await migrate([], url())
      expect({ code, stdout }).to.deep.equal({ code: 3, stdout: '' })
      expect(stderr)
        .to.match(says)
        .and.to.match(/^surehop: .*\n$/)
    })

  it('names the file of an address that cannot be read', async () => {
    const { code, stderr } = await migrate(['--check'], `${server.url}?sslrootcert=/no/such/ca.pem`)
    expect(stderr).to.contain('expected DATABASE_URL').and.to.contain('/no/such/ca.pem')
    expect(code).to.equal(2)
  })

  it('ends with 1 for a user who may not create, and names the right', async () => {
    const role = unique('role').replaceAll('-', '_')
    await pool.query(`CREATE ROLE ${role} LOGIN PASSWORD 'gues#sed'`)
    const { code, stderr } = await migrate([], changed({ username: role, password: 'gues%23sed' }))
    expect(code).to.equal(1)
    expect(stderr).to.match(/a right is missing, grant CREATE on the database/)
  })

  for (const [what, args, url, says] of [
    ['no database', [], '', /give --database URL or set DATABASE_URL/],
    [
      'an address with a plain # in its password',
      [],
      'postgres://me:gues#sed@localhost/',
      /expected DATABASE_URL, with .* \(# as %23\), to be like/,
    ],
    [
      'an address of something else',
      ['--database', 'mysql://me:gues@localhost/'],
      '',
      /expected --database, with .*, to be like/,
    ],
    ['an address without //, which names no host', [], 'postgres:orders', /expected DATABASE_URL, with .*, to be like/],
    [
      'a schema with another name',
      ['--schema', 'Upper'],
      'postgres://localhost:1/',
      /expected schema to be a lower-case SQL identifier/,
    ],
    ['a step that is not there', ['--print', '--from', '99'], '', /expected from to be an integer from 1 to/],
    ['a step that is no number', ['--print', '--from', 'x'], '', /expected the number of a step/],
    ['--from alone', ['--from', '2'], '', /--from belongs to --print/],
    ['--print and --check', ['--print', '--check'], '', /expected --print or --check, got both/],
  ] as const)
    it(`ends with 2 for ${what}`, async () => {
      const { code, stdout, stderr } = await migrate(args, url)
      expect({ code, stdout }).to.deep.equal({ code: 2, stdout: '' })
      expect(stderr).to.match(says)
    })
})
