// Rows that a program in another language writes, just as the README says.

import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { expect } from 'chai'
import fc from 'fast-check'
import { newMessageId } from '../../lib/message.ts'
import { shardOf } from '../../lib/outbox/packing.ts'
import { eventually } from '../support/eventually.ts'
import { type Arrival, Relaying } from './relaying.ts'

const README = readFileSync(new URL('../../README.md', import.meta.url), 'utf8')
const [, section = ''] = README.split('#### Rows written in another language\n')
const code = (language: string) => new RegExp(`\`\`\`${language}\\n(.*?)\`\`\``, 's').exec(section)![1]!

/** The README's formula, by other means than ours. */
function shard(key: string | null, id: string): number {
  return (
    createHash('sha1')
      .update(Buffer.from(key ?? id, 'utf8'))
      .digest()[1]! % 64
  )
}

describe('a row written as the README says', function () {
  this.timeout(60_000)
  let r: Relaying
  beforeEach(async () => {
    r = await Relaying.open()
  })
  afterEach(() => r.close())

  /** Of what the README shows, with ids of its own. */
  function parameters(queue: string, key: string | null, body: unknown): unknown[] {
    const id = newMessageId()
    const properties = JSON.parse(code('json').replaceAll('0198f5c2-7d1e-7c4e-b5a0-3f2f1f6f5a11', id))
    properties.headers.transaction_id = 'tx-1'
    if (key === null) delete properties.headers['surehop-key']
    else properties.headers['surehop-key'] = key
    const ids = [r.name, shard(key, id), id, 'tx-1', key]
    return [...ids, '', queue, JSON.stringify(properties), Buffer.from(JSON.stringify(body))]
  }

  const write = (queue: string, key: string | null, body: unknown) =>
    r.sql(code('sql').replaceAll('surehop.', `${r.schema.name}.`), parameters(queue, key, body))

  it('has the shard that Surehop gives it, whatever its key', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme', maxLength: 60 }), (key) => {
        expect(shard(key, '')).equal(shardOf(key))
      }),
    )
  })

  it('has every column that has no default', async () => {
    const columns = await r.sql<{ name: string }>(
      `SELECT column_name AS name FROM information_schema.columns
       WHERE table_schema = $1 AND table_name = 'outbox' AND is_nullable = 'NO' AND column_default IS NULL`,
      [r.schema.name],
    )
    expect(columns).not.empty
    for (const { name } of columns) expect(code('sql')).match(new RegExp(`\\b${name}\\b`))
  })

  it('is sent as one that Surehop wrote, in the order of its key, also among others', async () => {
    const queue = await r.queue()
    const arrivals = await r.arrivals(queue)
    await write(queue, null, 'alone')
    await write(queue, 'é-1', 0)
    await r.add({ queue, key: 'é-1', type: 'order.placed', transactionId: 'tx-1', body: 1 })
    await write(queue, 'é-1', 2)
    for (let i = 0; i < 2; i++) await r.relay({ pollMs: 20 })
    const all = (await arrivals.count(4)).all
    expect(arrivals.bodies('é-1')).deep.equal([0, 1, 2])
    const [foreign, ours] = [0, 1].map((body) => all.find((it) => it.body === body)!)
    expect(shape(foreign!)).deep.equal(shape(ours!))
    expect(all.every(({ id }) => id.length === 36)).equal(true)
    await eventually(async () => expect(await r.states()).empty)
  })

  it('can be told to relays as Surehop tells it', async () => {
    const client = await r.pool.connect()
    const heard: (string | undefined)[] = []
    client.on('notification', ({ channel, payload }) => void heard.push(`${channel} ${payload}`))
    await client.query('LISTEN surehop_outbox')
    r.anOutbox({ pool: r.pool }).wake()
    await eventually(() => expect(heard).length(1))
    const [, told = ''] = /`(SELECT pg_notify\(.*?\))`/.exec(section)!
    await r.sql(told.replace('surehop.orders', `${r.schema.name}.${r.name}`))
    await eventually(() => expect(heard).length(2))
    client.release(true)
    expect(heard[1]).equal(heard[0])
  })
})

/** All but the ids and the time. */
function shape({ key, message }: Arrival): object {
  const { messageId, timestamp, appId, ...properties } = message.properties
  return { key, properties, types: [typeof messageId, typeof timestamp, typeof appId] }
}
