import { connect as amqp } from 'amqplib'
import { expect } from 'chai'
import fc from 'fast-check'
import { connect, fixed, OutboxDesk, onEvent, type Surehop } from '../../lib/index.ts'
import { eventually } from '../support/eventually.ts'
import { unique, uniqueQueue } from '../support/unique.ts'
import { Writing } from './writing.ts'

const AMQP_URL = process.env['AMQP_URL'] ?? ''

describe('the desk beside a relay', function () {
  this.timeout(120_000)
  let w: Writing
  let surehop: Surehop
  const lines: object[] = []
  before(async () => {
    w = await Writing.open()
    const nothing = () => {}
    const logger = { debug: nothing, info: nothing, error: nothing, warn: (fields: object) => lines.push(fields) }
    surehop = await connect({ amqp: AMQP_URL, service: 'tests', logger })
  })
  after(async () => {
    await surehop.close()
    await w.close()
  })
  afterEach(() => w.clear())

  it('loses no message and leaves no key stuck, whatever operators do while the relay sends, fails and tries again', async () => {
    const queue = uniqueQueue('desk')
    const name = unique('desk')
    const outbox = w.open({ name })
    const messages = Array.from({ length: 60 }, (_, i) => ({ queue, key: `k${i % 5}`, body: i, messageId: `m-${i}` }))
    await w.committed((client) => outbox.add(messages, client))
    const troubles: Error[] = []
    const end = onEvent('relay.state', ({ outbox, error }) => outbox === name && error && troubles.push(error))
    const relay = await surehop.relay({
      outbox,
      pool: w.pool,
      attempts: 4,
      backoff: fixed({ delayMs: 20 }),
      pollMs: 20,
    })
    const desk = new OutboxDesk({ pool: w.pool, schema: w.schema.name, name })
    const ids = messages.map(({ messageId }) => messageId)
    const step = fc.record({ retries: fc.boolean(), rows: fc.subarray(ids, { minLength: 1, maxLength: 15 }) })
    const plans = fc.sample(fc.array(step, { minLength: 25, maxLength: 25 }), { numRuns: 3, seed: 5 })
    await Promise.all(
      plans.map(async (plan) => {
        for (const { retries, rows } of plan) await (retries ? desk.retry({ rows }) : desk.park({ rows }))
      }),
    )
    expect(await w.rows(), 'nobody takes them yet').to.have.length(60)
    const model = await amqp(AMQP_URL)
    const channel = await model.createChannel()
    await channel.assertQueue(queue, { durable: true, arguments: { 'x-queue-type': 'quorum' } })
    const got = new Set<unknown>()
    await channel.consume(queue, (message) => message && got.add(message.properties.messageId), { noAck: true })
    await eventually(
      async () => {
        await desk.retry({ state: 'parked' })
        expect((await w.rows()).map((row) => `${row.message_id} ${row.state}`)).to.deep.equal([])
      },
      { withinMs: 60_000, what: 'all are sent' },
    )
    await eventually(() => expect([...got]).to.have.members(ids))
    expect(troubles).to.deep.equal([])
    end()
    await relay.close()
    await model.close()
  })

  it('has the relay log what the outbox warns of', async () => {
    const outbox = w.open({ name: unique('warned') })
    const relay = await surehop.relay({ outbox, pool: w.pool })
    await outbox.add({ queue: uniqueQueue('warned'), body: 1 }, w.pool)
    const warned = () => lines.filter((line) => (line as { outbox?: string }).outbox === outbox.name)
    expect(JSON.stringify(warned())).to.contain('outside a transaction')
    await relay.close()
  })
})
