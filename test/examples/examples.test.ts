// The short examples run as a reader would run them, each as a process of its own, and do what their first line says.

import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { connect } from 'amqplib'
import { expect } from 'chai'
import { startChild } from '../support/child.ts'
import { within } from '../support/eventually.ts'
import { uniqueQueue } from '../support/unique.ts'

const FILES = [
  '01-publish.ts',
  '02-consume.ts',
  '03-retry.ts',
  '04-ordered.ts',
  '05-delayed.ts',
  '06-outbox.ts',
  '07-inbox.ts',
  '08-half-message.ts',
]

/** Runs one to its end and gives what it printed. */
async function run(file: string, queue = uniqueQueue('example')): Promise<string> {
  await using child = startChild(pathOf(file), { args: [queue] })
  const { code } = await within(child.ended, { what: `the end of ${file}`, withinMs: 50_000 })
  expect(code, child.output).to.equal(0)
  return child.output
}

/** The queues of its half messages, which `uniqueQueue` does not know of. */
async function deleteHalves(name: string): Promise<void> {
  const connection = await connect(process.env['AMQP_URL'] as string)
  const channel = await connection.createChannel()
  for (const end of ['half', 'half.check', 'half.parked']) await channel.deleteQueue(`${name}.${end}`)
  await connection.close()
}

function pathOf(file: string): string {
  return fileURLToPath(new URL(`../../examples/${file}`, import.meta.url))
}

describe('short examples', () => {
  for (const file of FILES)
    it(`${file} is short and imports nothing but the front door, and pg where it needs a database`, () => {
      const text = readFileSync(pathOf(file), 'utf8')
      const imports = [...text.matchAll(/from '([^']+)'/g)].map(([, from]) => from)
      expect(text.split('\n').length).to.be.below(40)
      expect(imports.filter((from) => !from?.startsWith('node:') && from !== 'pg')).to.deep.equal(['../lib/index.ts'])
    })

  it('01: a publish is confirmed, and one that no queue takes says so', async () => {
    const output = await run('01-publish.ts')
    expect(output).to.match(/^confirmed: message \S+, transaction \S+$/m)
    expect(output).to.include('not routed: returned, and no repeat would help')
  })

  it('02: a copy is dropped unhandled', async () => {
    const output = await run('02-consume.ts')
    const [, messageId] = /^handled (\S+), attempt 1:/m.exec(output) ?? []
    expect(output.match(/^handled/gm)).to.have.length(1)
    expect(output).to.include(`dropped a copy of ${messageId}`)
  })

  it('03: failures come back, and what cannot succeed is dead-lettered at once', async () => {
    const output = await run('03-retry.ts')
    expect(output.match(/^4990 cents, attempt \d$/gm)).to.deep.equal([1, 2, 3].map((n) => `4990 cents, attempt ${n}`))
    expect(output.match(/^0 cents/gm)).to.have.length(1)
    expect(output).to.match(/one is paid, one is in \S+\.dead: refused by the handler/)
  })

  it('04: messages of one key stay in order, although one is repeated', async () => {
    const output = await run('04-ordered.ts')
    for (const account of ['account-1', 'account-2'])
      expect(output).to.include(`'${account}': [ 'open', 'withdraw', 'close' ]`)
  })

  it('05: a delayed message never comes early', async () => {
    const output = await run('05-delayed.ts')
    const lines = [...output.matchAll(/asked for (\d+) ms, came after (\d+) ms/g)]
    const arrivals = lines.map(([, asked, came]) => [Number(asked), Number(came)] as const)
    expect(arrivals.map(([asked]) => asked).sort((a, b) => a - b)).to.deep.equal([0, 700, 1_500])
    for (const [asked, came] of arrivals) expect(came).to.be.at.least(asked)
  })

  it('06: what is rolled back is not sent, what is committed is', async () => {
    const output = await run('06-outbox.ts')
    expect(output).to.include('A-1 is rolled back, out of stock').and.include('A-2 is sent')
    expect(output).to.include("orders: [ { id: 'A-2' } ]")
  })

  it('07: of three attempts only the one that ended has an effect', async () => {
    const output = await run('07-inbox.ts')
    expect(output.match(/^attempt \d$/gm)).to.deep.equal(['attempt 1', 'attempt 2', 'attempt 3'])
    expect(output.match(/stock.reserved is sent/g)).to.have.length(1)
    expect(output).to.include('stock: 9')
  })

  it('08: a message whose process never came to its commit is sent, one whose work failed is not', async () => {
    const queue = uniqueQueue('example')
    const output = await run('08-half-message.ts', queue).finally(() => deleteHalves(queue))
    expect(output).to.include('refused').and.include('checked back: 700 was charged')
    expect(output.match(/^told: \d+$/gm)).to.deep.equal(['told: 4990', 'told: 700'])
  })
})
