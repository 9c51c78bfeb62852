import { hostname } from 'node:os'
import { expect } from 'chai'
import { Connection } from '../../lib/connection/connection.ts'
import { Reader } from '../../lib/dead-letter/reader.ts'
import { connect, ResourceBusy, ResourceMissing } from '../../lib/index.ts'
import { Events } from '../../lib/observability/events.ts'
import { eventually } from '../support/eventually.ts'
import { unique } from '../support/unique.ts'
import { AMQP_URL, all, Bench, ids } from './support.ts'

describe('dead letters: looking', function () {
  this.timeout(120_000)
  let bench: Bench
  beforeEach(async () => {
    bench = await Bench.open()
  })
  afterEach(() => bench.close())

  it('tells the whole story of a letter', async () => {
    await bench.bury(1)
    const [letter] = await all(bench.letters().list())
    expect(letter).to.include({
      id: 'm-0',
      transactionId: 't-m-0',
      by: 'consumer',
      reason: 'failed 8 times',
      errorType: 'TimeoutError',
      queue: bench.queue,
      service: 'inventory',
      publisher: 'shop',
      type: 'order.placed',
      exchange: 'shop.events',
      attempt: 8,
      generation: 0,
    })
    expect(letter?.deadAt?.toISOString()).to.equal('2025-06-30T12:00:00.000Z')
    const [shown] = await bench.letters().show('m-0')
    expect(shown?.body.toString()).to.equal('{"i":0}')
  })

  it('tells where a message died, when, and over which error, as its consumer has seen it', async () => {
    const before = Date.now()
    await bench.consume(() => {
      throw new RangeError('out of stock')
    })
    await bench.surehop.producer().send(bench.queue, { body: {}, messageId: 'm-0' })
    await bench.holds(1)
    const [letter] = await bench.letters().show('m-0')
    const died = { by: 'consumer', reason: 'failed 1 times', queue: bench.queue, service: 'tests', host: hostname() }
    expect(letter).to.include({ ...died, errorType: 'RangeError', errorMessage: 'out of stock', attempt: 1 })
    expect(letter?.errorStack).to.match(/^at .*looking\.test\.ts/)
    expect(letter?.fingerprint).to.match(/^[0-9a-f]{12}$/)
    for (const at of [letter?.firstFailedAt, letter?.lastFailedAt, letter?.deadAt])
      expect(at?.getTime()).to.be.within(before, Date.now())
  })

  it('changes neither count nor order, a hundred times over', async () => {
    await bench.bury(40)
    const before = Array.from({ length: 40 }, (_, i) => `m-${i}`)
    for (let i = 0; i < 100; i++) {
      const limit = 1 + (i % 40)
      expect(await ids(bench.letters().list({ limit })), `look ${i}`).to.deep.equal(before.slice(0, limit))
    }
    expect(await bench.count()).to.equal(40)
    expect(await ids(bench.letters().list())).to.deep.equal(before)
  })

  it('declares the dead letters and the archive so that looking never uses up their delivery limit', async () => {
    for (const queue of [bench.dead, `${bench.queue}.archive`]) {
      const channel = await connectChannel()
      const wrong = { durable: true, arguments: { 'x-queue-type': 'quorum', 'x-delivery-limit': 20 } }
      const refusal = await channel.assertQueue(queue, wrong).then(
        () => '',
        (error: Error) => error.message,
      )
      expect(refusal).to.match(/x-delivery-limit.*current is.*2147483647/)
    }
  })

  it('keeps the order of a queue that is read in several legs, and reads on over letters it holds', async () => {
    const count = 1_500
    await bench.bury(count)
    const before = Array.from({ length: count }, (_, i) => `m-${i}`)
    for (let look = 0; look < 3; look++) expect(await ids(bench.letters().list())).to.deep.equal(before)
    expect(await bench.count()).to.equal(count)
  })

  it('ends an iteration that is left early, and gives the letters back at once', async () => {
    await bench.bury(100)
    for await (const letter of bench.letters().list()) if (letter.id === 'm-3') break
    expect(await bench.count()).to.equal(100)
    expect(await ids(bench.letters().list({ limit: 2 }))).to.deep.equal(['m-0', 'm-1'])
  })

  it('tells a second inspector that somebody is at it, here or elsewhere, and lets it in afterwards', async () => {
    await bench.bury(3)
    const first = bench.letters().list()
    await first.next()
    const other = await connect({ amqp: AMQP_URL, service: 'other' })
    for (const deadLetters of [bench.letters(), other.deadLetters(bench.queue)]) {
      const refusal = await all(deadLetters.list()).catch((error: Error) => error)
      expect(refusal).to.be.instanceOf(ResourceBusy)
      expect((refusal as Error).message).to.contain('being looked at or replayed by somebody else')
    }
    await first.return(undefined)
    expect(await ids(other.deadLetters(bench.queue).list())).to.have.length(3)
    await other.close()
  })

  it('says which queue is missing', async () => {
    const missing = unique('missing')
    const error = await all(bench.surehop.deadLetters(missing).list()).catch((e: Error) => e)
    expect(error).to.be.instanceOf(ResourceMissing)
    expect((error as Error).message).to.contain(`${missing}.dead`)
  })

  it('groups by what went wrong', async () => {
    await bench.bury(6, (i) =>
      i % 3 === 0
        ? { error: 'TypeError', fingerprint: 'f1', message: `no sku ${i}`, reason: `failed ${i + 1} times` }
        : { deadAt: Date.UTC(2025, 5, 30, 12, i) },
    )
    const groups = await bench.letters().groups()
    expect(groups.map(({ errorType, count, sampleId }) => ({ errorType, count, sampleId }))).to.deep.equal([
      { errorType: 'TimeoutError', count: 4, sampleId: 'm-1' },
      { errorType: 'TypeError', count: 2, sampleId: 'm-0' },
    ])
    expect(groups[0]?.firstAt?.toISOString()).to.equal('2025-06-30T12:01:00.000Z')
    expect(groups[0]?.lastAt?.toISOString()).to.equal('2025-06-30T12:05:00.000Z')
  })

  it('selects by id, filter, time and limit', async () => {
    await bench.bury(6, (i) => ({ type: i < 3 ? 'order.placed' : 'payment.made', deadAt: Date.UTC(2025, 0, 1 + i) }))
    const letters = bench.letters()
    expect(await ids(letters.list({ ids: ['m-4', 'm-1'] }))).to.deep.equal(['m-1', 'm-4'])
    expect(await ids(letters.list({ where: 'type=order.*', limit: 2 }))).to.deep.equal(['m-0', 'm-1'])
    expect(await ids(letters.list({ since: '2025-01-03', until: '2025-01-05' }))).to.deep.equal(['m-2', 'm-3'])
    expect(await ids(letters.list({ since: '2h' }))).to.deep.equal([])
  })

  it('gives up on letters that somebody else took away meanwhile, instead of waiting for them', async () => {
    await bench.bury(5)
    const connection = ownConnection()
    const reader = await Reader.open(connection, bench.dead, { first: 1 })
    await reader.next()
    await bench.channel.purgeQueue(bench.dead)
    expect(await reader.nextMany(100)).to.have.length.lessThan(5)
    while (await reader.next());
    await reader.close()
    await connection.close()
  })

  it('goes on with a bounded number of letters at hand', async () => {
    await bench.bury(600, () => ({ body: 'x'.repeat(100_000) }))
    const connection = ownConnection()
    const reader = await Reader.open(connection, bench.dead)
    let most = 0
    for (let taken = await reader.next(); taken; taken = await reader.next()) {
      if (reader.given === 70) await eventually(() => reader.buffered > 50, { what: 'a leg at hand' })
      most = Math.max(most, reader.buffered)
    }
    expect(reader.given).to.equal(600)
    expect(most).to.be.greaterThan(50).and.lessThan(400)
    await reader.close()
    await connection.close()
  })
})

function ownConnection(): Connection {
  return new Connection({
    urls: [AMQP_URL],
    role: 'test',
    service: 'tests',
    heartbeatSeconds: 10,
    handshakeTimeoutMs: 10_000,
    rpcTimeoutMs: 10_000,
    reconnectBaseMs: 250,
    reconnectCapMs: 1_000,
    events: new Events('test'),
  })
}

async function connectChannel() {
  const { connect: amqp } = await import('amqplib')
  const model = await amqp(AMQP_URL)
  const channel = await model.createChannel()
  channel.on('error', () => {})
  channel.on('close', () => void model.close().catch(() => {}))
  return channel
}
