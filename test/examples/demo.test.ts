// The demo through the same entry as `npm run demo`, with fewer orders: its books balance, it refuses orders it cannot read,
// and an interruption leaves nothing behind.

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { connect } from 'amqplib'
import { expect } from 'chai'
import { Redis } from 'ioredis'
import { Client } from 'pg'
import { asLines, sample } from '../../examples/order-inventory/generate-orders.ts'
import { eventOf } from '../support/eventually.ts'
import { guard } from '../support/guard.ts'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))
const ENTRY = ['test/support/first-run.mjs', '--services', 'examples/order-inventory/demo.ts']
const EXIT = { balanced: 0, usage: 2, terminated: 143 }

/** Every twelfth order, and those whose payment method the first version does not know. */
function fewer(): string {
  return asLines(sample().orders.filter(({ payment }, n) => n % 12 === 0 || payment.method === 'twint'))
}

class Demo {
  readonly child: ChildProcess
  out = ''
  err = ''

  constructor(folder: string, args: readonly string[], input?: string) {
    const env = { ...process.env, TMPDIR: folder, FORCE_COLOR: undefined }
    this.child = spawn(process.execPath, [...ENTRY, ...args], { cwd: ROOT, env })
    const release = guard({ pid: this.child.pid as number })
    this.child.once('exit', release)
    this.child.stdout?.setEncoding('utf8').on('data', (text: string) => (this.out += text))
    this.child.stderr?.setEncoding('utf8').on('data', (text: string) => (this.err += text))
    this.child.stdin?.on('error', () => {}).end(input)
  }

  async exitCode(): Promise<number | null> {
    const [code] = await once(this.child, 'close')
    return code
  }

  /** Waits until it has printed that. */
  async printed(pattern: RegExp): Promise<void> {
    while (!pattern.test(this.out)) await eventOf(this.child.stdout!, 'data', { withinMs: 30_000 })
  }

  /** A number of the first (0) or second (1) table. */
  count(name: string, table: number): number {
    const rows = [...this.out.matchAll(new RegExp(`^ +${name} +([\\d,]+)`, 'gm'))]
    return Number(rows[table]?.[1]?.replaceAll(',', ''))
  }
}

describe('the demo', function () {
  this.timeout(900_000)
  this.slow(60_000)
  let folder: string
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'demo-test-'))
  })
  afterEach(() => rm(folder, { recursive: true }))

  /** Folders of the demo; the loader of TypeScript keeps its cache beside them. */
  async function leftBehind(): Promise<string[]> {
    return (await readdir(folder)).filter((name) => name.startsWith('surehop-demo'))
  }

  it('proves the books over duplicates, poison, an outage and kill -9, and again after a replay', async () => {
    const file = join(folder, 'fewer.ndjson')
    await writeFile(file, fewer())
    const demo = new Demo(folder, ['--orders', file, '--rate', '25'])
    expect(await demo.exitCode(), demo.out + demo.err).to.equal(EXIT.balanced)
    for (const name of ['orders', 'stock', 'money', 'once', 'poison'])
      expect(demo.out.match(new RegExp(`^ +✔ ${name} `, 'gm')), name).to.have.length(2)
    expect(demo.out).not.to.include('✘').and.not.to.include('\u001b')
    expect(demo.out)
      .to.match(/kill -9 of the inventory service/)
      .and.to.match(/kill -9 of the payments service/)
    expect(demo.out).to.match(/kill -9 of the orders service/)
    expect(demo.count('kill -9 in mid-work', 0)).to.be.at.least(3)
    for (const table of [0, 1]) expect(demo.count('duplicate effects', table)).to.equal(0)
    expect(demo.count('retries', 0)).to.be.at.least(1)
    expect(demo.count('duplicates suppressed', 0)).to.be.at.least(10)
    expect(demo.count('replayed', 0)).to.equal(0)
    expect(demo.count('replayed', 1)).to.be.at.least(5)
    expect(demo.count('paid', 1)).to.be.above(demo.count('paid', 0))
    expect(await leftBehind()).to.deep.equal([])
  })

  it('refuses a wrong line on standard input with its number and path, before anything starts', async () => {
    const wrong = fewer().replace('"quantity":1', '"quantity":0')
    const demo = new Demo(folder, ['--orders', '-'], wrong)
    expect(await demo.exitCode()).to.equal(EXIT.usage)
    expect(demo.err).to.match(/standard input, line 1: lines\[\d\]\.quantity: /)
    expect(demo.out).to.equal('')
  })

  it('leaves nothing behind when it is interrupted: no file, queue, table or key', async () => {
    const demo = new Demo(folder, ['--orders', '-', '--rate', '10'], fewer())
    await demo.printed(/kill -9/)
    const [name = ''] = await leftBehind()
    const run = /shop-[0-9a-f]+$/.exec(name)?.[0] ?? 'none'
    expect(await schemasOf(run)).to.have.length(2)
    demo.child.kill('SIGTERM')
    expect(await demo.exitCode()).to.equal(EXIT.terminated)
    expect(demo.out).to.include('interrupted').and.not.to.include('The books')
    expect(await leftBehind()).to.deep.equal([])
    expect(await schemasOf(run)).to.deep.equal([])
    expect(await keysOf(run)).to.deep.equal([])
    for (const queue of ['inventory.reserve', 'payments.half', 'payments.half.check'])
      expect(await hasQueue(`${run}.${queue}`), queue).to.equal(false)
  })
})

async function hasQueue(name: string): Promise<boolean> {
  const connection = await connect(process.env['AMQP_URL'] as string)
  const channel = await connection.createChannel()
  channel.on('error', () => {})
  const found = await channel.checkQueue(name).then(
    () => true,
    (error: Error) => !/NOT_FOUND/.test(error.message),
  )
  await connection.close()
  return found
}

async function schemasOf(run: string): Promise<unknown[]> {
  const client = new Client(process.env['DATABASE_URL'])
  await client.connect()
  const sql = 'SELECT nspname FROM pg_namespace WHERE starts_with(nspname, $1)'
  const { rows } = await client.query(sql, [run.replaceAll('-', '_')])
  await client.end()
  return rows
}

async function keysOf(run: string): Promise<string[]> {
  const redis = new Redis(process.env['REDIS_URL'] as string)
  const keys = await redis.keys(`*${run}*`)
  redis.disconnect()
  return keys
}
