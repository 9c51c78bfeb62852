// The store forgets, or cannot be reached; the broker is gone: nothing is lost, and what comes twice has the same ids.

import { expect } from 'chai'
import { Redis } from 'ioredis'
import { type CheckAnswer, connect, HEADER } from '../../lib/index.ts'
import { eventually } from '../support/eventually.ts'
import { type Server, startRabbitMq, startRedis } from '../support/services.ts'
import { startProxy } from '../support/tcp-proxy.ts'
import { uniqueQueue } from '../support/unique.ts'
import {
  amqpUrl,
  bench,
  caught,
  closeAll,
  connected,
  counts,
  event,
  messageTo,
  nothingWaits,
  raw,
  redisDecisions,
  senderName,
  taken,
  toClose,
} from './setup.ts'

describe('losses', () => {
  let redis: Server
  let client: Redis

  before(async function () {
    this.timeout(60_000)
    redis = await startRedis()
    client = new Redis(redis.url)
    client.on('error', () => {})
  })
  after(async () => {
    client.disconnect()
    await redis.close()
  })
  afterEach(closeAll)

  /** All that came, once or more, as the ids of messages. */
  async function idsIn(queue: string): Promise<Set<string>> {
    await eventually(async () => expect((await counts(queue)).messages).to.be.greaterThan(0))
    const { messages } = await counts(queue)
    return new Set((await taken(queue, messages)).map((m) => String(m.properties.messageId)))
  }

  const steps: Record<string, { readonly commit: 'here' | 'elsewhere' | 'never'; readonly flush: string }> = {
    'after the prepare': { commit: 'here', flush: 'prepared' },
    'between the decision and the publish': { commit: 'elsewhere', flush: 'decided' },
    'after the publish, before the half message comes': { commit: 'here', flush: 'committed' },
    'while it is being checked': { commit: 'never', flush: 'checked' },
    'when it is parked': { commit: 'elsewhere', flush: 'parked' },
  }

  for (const [when, { commit, flush }] of Object.entries(steps))
    it(`sends a message whose work was done, with one id, although the store forgets everything ${when}`, async () => {
      let answer: CheckAnswer = 'unknown'
      const decisions = redisDecisions(redis.url)
      const { payments, work, name, surehop } = await bench({ decisions, check: () => answer, checks: 2 })
      const elsewhere = await (await connected()).transactional(name, {
        decisions,
        check: () => answer,
        firstCheckMs: 150,
        checkCapMs: 300,
        checks: 2,
      })
      const checked = event('transaction.checked', (data) => data.name === name)
      const parked = event('transaction.parked', (data) => data.name === name)
      for (const unheard of [checked, parked]) unheard.catch(() => {})
      const { transactionId } = await payments.prepare([messageTo(work)])
      if (flush === 'prepared') await client.flushall()
      if (flush === 'checked') await checked
      if (flush === 'parked') await parked
      answer = 'commit'
      if (flush === 'parked') await client.flushall()
      if (commit === 'here') await payments.commit(transactionId)
      if (commit === 'elsewhere') await elsewhere.commit(transactionId)
      if (flush !== 'prepared' && flush !== 'parked') await client.flushall()
      if (flush === 'parked')
        await surehop
          .transactions(name)
          .send(transactionId, 'check')
          .catch(() => {})
      await nothingWaits(name)
      expect((await idsIn(work)).size).to.equal(1)
    })

  it('sends nothing of a rolled-back transaction although the store forgets, as long as check tells the truth', async () => {
    const decisions = redisDecisions(redis.url)
    const { payments, work, name } = await bench({ decisions, check: () => 'rollback' })
    const prepared = await payments.prepare([messageTo(work)])
    await prepared.rollback()
    await client.flushall()
    await nothingWaits(name)
    expect((await counts(work)).messages).to.equal(0)
  })

  it('asks nobody and acks nothing while the store is down, and goes on when it is back', async function () {
    this.timeout(60_000)
    const own = toClose(await startRedis())
    let asked = 0
    const check = () => {
      asked++
      return 'commit' as const
    }
    const decisions = redisDecisions(own.url)
    const { payments, work, name } = await bench({ decisions, check })
    await own.kill9()
    const unavailable = event('store.unavailable')
    await payments.prepare([messageTo(work)])
    await unavailable
    expect(payments.problems.join()).to.contain('decisions cannot be reached')
    expect(asked).to.equal(0)
    const available = event('store.available')
    await own.start()
    await available
    await taken(work)
    await nothingWaits(name)
    expect(payments.problems).to.deep.equal([])
  })

  it('says decided when the connection breaks between decision and publish, and sends the message afterwards', async function () {
    this.timeout(60_000)
    const proxy = await startProxy(amqpUrl())
    toClose(proxy)
    const name = senderName()
    const work = uniqueQueue('work')
    const decisions = redisDecisions()
    await (await connected()).declare({ queues: [{ name: work, arguments: { 'x-queue-type': 'quorum' } }] })
    const surehop = toClose(await connect({ amqp: proxy.url, service: 'cut', drainMs: 500, reconnectBaseMs: 50 }))
    const options = { decisions, check: () => 'unknown' as const, firstCheckMs: 150, checkCapMs: 300 }
    const payments = await surehop.transactional(name, options)
    const prepared = await payments.prepare([messageTo(work)])
    proxy.stall('to-server')
    const { outcome } = await prepared.commit()
    expect(outcome).to.equal('decided')
    await (await connected()).transactional(name, options)
    proxy.cut()
    await taken(work)
    await eventually(async () => {
      const { messages } = await counts(work)
      if (messages > 0) await taken(work, messages)
      await nothingWaits(name)
    })
  })

  it('survives kill -9 of the broker at any time: what is committed comes', async function () {
    this.timeout(120_000)
    const broker = toClose(await startRabbitMq())
    const surehop = toClose(await connect({ amqp: broker.url, service: 'kill', drainMs: 500, reconnectBaseMs: 50 }))
    const work = 'work'
    await surehop.declare({ queues: [{ name: work, arguments: { 'x-queue-type': 'quorum' } }] })
    const truth = new Set<string>()
    const payments = await surehop.transactional('payments', {
      decisions: redisDecisions(),
      check: (id) => (truth.has(id) ? 'commit' : 'rollback'),
      firstCheckMs: 300,
      checkCapMs: 300,
    })
    const ids = await Promise.all(Array.from({ length: 40 }, (_, i) => payments.prepare([messageTo(work, i)])))
    for (const { transactionId } of ids.slice(0, 30)) truth.add(transactionId)
    const commits = ids.slice(0, 20).map((prepared) => caught(prepared.commit()).catch(() => undefined))
    await broker.kill9()
    await broker.start()
    await Promise.all(commits)
    await eventually(
      async () => {
        const check = await surehop.queueStatus('payments.half.check')
        const half = await surehop.queueStatus('payments.half')
        expect([check?.messages, half?.messages, payments.undecided]).to.deep.equal([0, 0, 0])
      },
      { withinMs: 60_000 },
    )
    const channel = await (await raw(broker.url)).createChannel()
    const { messageCount } = await channel.checkQueue(work)
    const seen = new Set<unknown>()
    for (let i = 0; i < messageCount; i++) {
      const message = await channel.get(work, { noAck: true })
      if (message) seen.add(message.properties.headers?.[HEADER.transactionId])
    }
    expect([...seen].sort()).to.deep.equal([...truth].sort())
  })
})
