import { expect } from 'chai'
import { fixed } from '../../lib/backoff.ts'
import { type Child, startChild } from '../support/child.ts'
import { eventually } from '../support/eventually.ts'
import type { RelayChildSettings } from './fixtures/relay-child.ts'
import { Relaying } from './relaying.ts'

const numbers = (count: number, from = 0) => Array.from({ length: count }, (_, n) => n + from)
const FIXTURE = new URL('./fixtures/relay-child.ts', import.meta.url)

describe('relays that share an outbox', function () {
  this.timeout(180_000)
  let r: Relaying
  let queue: string
  beforeEach(async () => {
    r = await Relaying.open()
    queue = await r.queue()
  })
  afterEach(() => r.close())

  async function child(options: Partial<RelayChildSettings> = {}): Promise<Child> {
    const settings = { amqp: r.amqp, url: r.schema.url, outbox: r.name, schema: r.schema.name, ...options }
    const process = startChild(FIXTURE, { args: [JSON.stringify(settings)] })
    r.later(() => process.kill9())
    await process.next({ withinMs: 60_000 })
    return process
  }

  /** How many shards each living owner has. */
  async function shares(): Promise<number[]> {
    const rows = await r.sql(
      'SELECT count(*) AS n FROM {schema}.outbox_shards WHERE owner IS NOT NULL AND until > now() GROUP BY owner',
    )
    return rows.map(({ n }) => Number(n)).sort((a, b) => a - b)
  }

  /** Positions, by message id, as the table had them. */
  async function expectOrder(arrived: readonly { id: string; key: string | undefined }[], keys: number) {
    const rows = await r.sql<{ message_id: string; key: string }>(
      `SELECT message_id, key FROM {schema}.outbox WHERE name = $1 AND key IS NOT NULL ORDER BY position`,
      [r.name],
    )
    for (const key of numbers(keys).map((n) => `k${n}`)) {
      const expected = rows.filter((row) => row.key === key).map((row) => row.message_id)
      expect(arrived.filter((it) => it.key === key).map(({ id }) => id)).deep.equal(expected)
    }
  }

  it('divide it evenly when they come, and take over when they go', async () => {
    const first = await r.relay({ leaseMs: 3_000 })
    expect(await shares()).deep.equal([64])
    const [second, third] = [await r.relay({ leaseMs: 3_000 }), await r.relay({ leaseMs: 3_000 })]
    await eventually(async () => expect(await shares()).deep.equal([20, 22, 22]), { withinMs: 15_000 })
    await Promise.all([second.close(), third.close()])
    await eventually(async () => expect(await shares()).deep.equal([64]))
    await first.close()
    expect(await shares()).empty
  })

  it('go from one to three and back to one under load, and keep the order of keys', async () => {
    const arrivals = await r.arrivals(queue)
    let next = 0
    const add = (count: number) => r.add(...numbers(count).map((n) => ({ queue, key: `k${n % 40}`, body: next++ })))
    const options = { leaseMs: 1_500, pollMs: 20, keepSentMs: 3_600_000 }
    const first = await r.relay(options)
    await add(400)
    const [second, third] = [await r.relay(options), await r.relay(options)]
    // Few from then on: a machine on which relays are slow to share would have more to send than it can in time.
    while ((await shares()).length < 3) await add(next < 4_000 ? 200 : 1)
    await add(400)
    await Promise.all([first.close(), add(400)])
    await Promise.all([third.close(), add(400)])
    await arrivals.count(next, 90_000)
    await expectOrder(arrivals.firsts, 40)
    await eventually(async () => expect(await shares()).deep.equal([64]))
    await second.close()
  })

  it('lose nothing and keep the order of 1,000 keys while one after another is killed', async () => {
    const arrivals = await r.arrivals(queue)
    const options = { leaseMs: 1_000, pollMs: 20, keepSentMs: 3_600_000 }
    const children = await Promise.all(numbers(3).map(() => child(options)))
    const total = 12_000
    const adding = (async () => {
      for (let n = 0; n < total; n += 200)
        await r.add(...numbers(200, n).map((body) => ({ queue, key: `k${body % 1_000}`, body })))
    })()
    for (const kill of numbers(6)) {
      await arrivals.count(Math.floor(((kill + 1) * total) / 8), 120_000)
      const victim = kill % children.length
      await children[victim]!.kill9()
      children[victim] = await child(options)
    }
    await adding
    await arrivals.count(total, 120_000)
    await expectOrder(arrivals.firsts, 1_000)
    await eventually(async () => expect(new Set(await r.states())).deep.equal(new Set(['sent'])), { withinMs: 30_000 })
  })

  it('go on without one that is frozen beyond its lease; what it sends when it wakes are copies, and it holds nothing back', async () => {
    const arrivals = await r.arrivals(queue)
    const options = { leaseMs: 1_500, pollMs: 20, keepSentMs: 3_600_000 }
    const frozen = await child(options)
    await r.add(...numbers(3_000).map((body) => ({ queue, key: `k${body % 50}`, body })))
    await arrivals.count(100)
    process.kill(frozen.pid, 'SIGSTOP')
    const [seen, relay] = [new Set(arrivals.ids).size, await r.relay({ ...options, backoff: fixed({ delayMs: 50 }) })]
    expect(seen).lessThan(3_000)
    await arrivals.count(3_000, 90_000)
    await eventually(async () => expect(new Set(await r.states())).deep.equal(new Set(['sent'])))
    process.kill(frozen.pid, 'SIGCONT')
    await eventually(async () => expect(await shares()).deep.equal([32, 32]), { withinMs: 20_000 })
    await r.add(...numbers(500, 3_000).map((body) => ({ queue, key: `k${body % 50}`, body })))
    await arrivals.count(3_500, 60_000)
    await expectOrder(arrivals.firsts, 50)
    expect(new Set(await r.states()))
      .not.include('held')
      .and.not.include('parked')
    expect(relay.problems).empty
  })
})
