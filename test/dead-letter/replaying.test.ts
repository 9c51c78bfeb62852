import { expect } from 'chai'
import {
  type Handler,
  HEADER,
  type IdempotencyStore,
  MemoryIdempotencyStore,
  onEvent,
  type ReplayOutcome,
} from '../../lib/index.ts'
import { workQueueTopology } from '../../lib/topology/queues.ts'
import { eventually, latch, within } from '../support/eventually.ts'
import { uniqueQueue } from '../support/unique.ts'
import { all, Bench, ids } from './support.ts'

const FAST = { perSecond: 0, watch: false }

describe('dead letters: sending again', function () {
  this.timeout(120_000)
  let bench: Bench
  let store: IdempotencyStore
  beforeEach(async () => {
    bench = await Bench.open()
    store = new MemoryIdempotencyStore()
    await bench.surehop.declare({ queues: workQueueTopology(bench.queue).queues })
  })
  afterEach(() => bench.close())

  /** Lets `count` messages die for real, so that the store knows of them. */
  async function die(count: number, fails: (id: string) => boolean = () => false) {
    let mended = false
    const handled: string[] = []
    const handler = (message: { messageId: string }) => {
      if (!mended || fails(message.messageId)) throw new TypeError('not yet')
      handled.push(message.messageId)
    }
    const consumer = await bench.consume(handler, { idempotency: store })
    for (let i = 0; i < count; i++)
      await bench.surehop.producer().send(bench.queue, { body: { i }, messageId: `m-${i}` })
    await bench.holds(count)
    return { handled, consumer, mend: () => (mended = true) }
  }

  it('runs a dead message once more, from its first attempt, and takes the letter away', async () => {
    const { handled, mend } = await die(3)
    mend()
    const seen: string[] = []
    const end = onEvent('dead-letter.replayed', ({ messageId, generation }) => seen.push(`${messageId}#${generation}`))
    const result = await bench.letters(store).replay()
    end()
    expect(result).to.include({ replayed: 3, completed: 3, skipped: 0, failed: 0, stopped: 'done' })
    expect(handled.sort()).to.deep.equal(['m-0', 'm-1', 'm-2'])
    expect(seen.sort()).to.deep.equal(['m-0#1', 'm-1#1', 'm-2#1'])
    expect(await bench.count()).to.equal(0)
  })

  it('runs a letter once where a replay that died in between has sent it twice, also when that run fails', async () => {
    const generations: number[] = []
    const handler: Handler = (_, { generation }) => {
      generations.push(generation)
      throw new TypeError('not yet')
    }
    await bench.consume(handler, { idempotency: store })
    await bench.surehop.producer().send(bench.queue, { body: { i: 0 }, messageId: 'm-0' })
    await bench.holds(1)
    await bench.bury(1)
    const dropped = latch<string>()
    const end = onEvent('message.duplicate', ({ queue, why }) => queue === bench.queue && dropped.resolve(why))
    expect(await bench.letters(store).replay({}, FAST)).to.include({ replayed: 2 })
    expect(await within(dropped.promise, { what: 'the end of the copy' })).to.equal('superseded')
    end()
    expect(generations).to.deep.equal([0, 1])
    await bench.holds(1)
    expect((await all(bench.letters().list())).map(({ generation }) => generation)).to.deep.equal([1])
  })

  it('sends a message on without its story, as the next generation', async () => {
    await bench.bury(1, () => ({ generation: 2, headers: { 'x-mine': 'kept' } }))
    await bench.letters().replay({}, FAST)
    await bench.holds(1, bench.queue)
    const message = await bench.channel.get(bench.queue)
    if (!message) throw new Error('nothing came')
    const { headers = {} } = message.properties
    expect(headers).to.include({ 'x-mine': 'kept', [HEADER.generation]: 3, [HEADER.exchange]: 'shop.events' })
    for (const name of [HEADER.attempt, HEADER.reason, HEADER.errorStack, HEADER.deadAt, HEADER.firstFailedAt])
      expect(headers).not.to.have.property(name)
    expect(message.properties.messageId).to.equal('m-0')
  })

  it('counts a forged generation as none, and leaves one at the limit where it is', async () => {
    await bench.bury(2, (i) => ({ headers: { [HEADER.generation]: i === 0 ? 'lots' : 1_000 } }))
    const outcomes: ReplayOutcome[] = []
    const result = await bench.letters().replay({}, { ...FAST, onOutcome: (o) => outcomes.push(o) })
    expect(result).to.include({ replayed: 1, skipped: 1 })
    expect(outcomes.map((o) => [o.letter.id, o.outcome])).to.deep.equal([
      ['m-1', 'skipped'],
      ['m-0', 'replayed'],
    ])
    expect(await ids(bench.letters().list())).to.deep.equal(['m-1'])
  })

  it('skips what was completed or has a newer generation, says so before, and sends it when forced', async () => {
    const { mend, handled } = await die(2)
    mend()
    await bench.letters(store).replay({ ids: ['m-0'] })
    await bench.bury(1)
    await bench.bury(1, () => ({ id: 'm-1', generation: 0 }))
    await bench.letters(store).edit('m-1', { body: { i: 99 } })
    const outcomes: string[] = []
    const note = (o: ReplayOutcome) =>
      outcomes.push(`${o.letter.id}#${o.letter.generation} ${o.outcome} ${o.outcome === 'skipped' ? o.why.skip : ''}`)
    const dry = await bench.letters(store).replay({ ids: ['m-0'] }, { dryRun: true, onOutcome: note })
    expect(outcomes).to.deep.equal(['m-0#0 skipped completed'])
    expect(dry).to.include({ replayed: 0, skipped: 1, selected: 1 })
    const real = await bench.letters(store).replay({ ids: ['m-0'] })
    expect(real).to.include({ replayed: 0, skipped: 1 })
    const forced = await bench.letters(store).replay({ ids: ['m-0'] }, { ...FAST, force: true })
    expect(forced).to.include({ replayed: 1, skipped: 0 })
    await bench.holds(0, bench.queue)
    expect(handled).to.deep.equal(['m-0'])
  })

  it('skips a letter whose message has died in a newer generation', async () => {
    await die(1)
    await bench.letters(store).replay({}, FAST)
    await eventually(async () => expect((await all(bench.letters().list()))[0]?.generation).to.equal(1))
    await bench.bury(1)
    const outcomes: string[] = []
    const onOutcome = (o: ReplayOutcome) =>
      outcomes.push(`#${o.letter.generation} ${o.outcome === 'skipped' ? o.why.skip : o.outcome}`)
    await bench.letters(store).replay({}, { dryRun: true, onOutcome })
    expect(outcomes.sort()).to.deep.equal(['#0 newer-generation', '#1 would-replay'])
  })

  it('a dry run publishes nothing and moves nothing', async () => {
    await bench.bury(5)
    const result = await bench.letters().replay({ limit: 3 }, { dryRun: true })
    expect(result).to.include({ selected: 3, replayed: 3 })
    expect(await bench.count()).to.equal(5)
    expect(await bench.count(bench.queue)).to.equal(0)
  })

  it('goes in growing batches and stops when more than a fifth of one fail again', async () => {
    const { mend } = await die(40, (id) => Number(id.slice(2)) >= 6)
    mend()
    const batches: number[][] = []
    const onBatch = (b: { size: number; completed: number; failed: number }) =>
      batches.push([b.size, b.completed, b.failed > 1 ? 1 : 0])
    const result = await bench.letters(store).replay({}, { perSecond: 0, onBatch })
    expect(batches.slice(0, 2)).to.deep.equal([
      [1, 1, 0],
      [5, 5, 0],
    ])
    expect(batches).to.have.length(3)
    expect(result).to.include({ stopped: 'failing', completed: 6, replayed: 31 })
    expect(result.failedAgain).to.be.greaterThan(5)
    await bench.holds(34)
  })

  it('goes on while a fifth of a batch fails again, and stops at one more', async () => {
    for (const [count, stopped] of [
      [5, 'done'],
      [6, 'failing'],
    ] as const) {
      await using own = await Bench.open()
      let failing: ReadonlySet<string> | undefined
      const handler: Handler = ({ messageId }) => {
        if (!failing || failing.has(messageId)) throw new TypeError('not yet')
      }
      const store = new MemoryIdempotencyStore()
      await own.consume(handler, { idempotency: store })
      for (let i = 0; i < 32; i++) await own.surehop.producer().send(own.queue, { body: {}, messageId: `m-${i}` })
      await own.holds(32)
      // Of the third batch, after one of 1 and one of 5.
      failing = new Set((await ids(own.letters().list())).slice(6, 6 + count))
      const result = await own.letters(store).replay({}, { perSecond: 0 })
      expect(result, `${count} of 25`).to.include({ stopped })
    }
  })

  it('without a store it stops when letters come back', async () => {
    const consumer = await bench.consume(() => {
      throw new Error('still broken')
    })
    await bench.bury(20)
    const result = await bench.letters().replay({}, { perSecond: 0, watchMs: 5_000 })
    expect(result).to.include({ stopped: 'failing', replayed: 1, failedAgain: 1 })
    await consumer.close()
    await bench.holds(20)
  })

  it('sends no faster than told', async () => {
    await bench.bury(30)
    const started = performance.now()
    const result = await bench.letters().replay({}, { perSecond: 40, watch: false })
    expect(result.replayed).to.equal(30)
    expect(performance.now() - started).to.be.greaterThan(650)
  })

  it('holds no more letters than it sends in five minutes, so that the broker does not end a slow one', async () => {
    await bench.bury(100)
    const stop = new AbortController()
    let waiting = 0 // in the queue, when the first was sent
    const onOutcome = () =>
      void bench
        .count()
        .then((count) => (waiting = count))
        .finally(() => stop.abort())
    await bench.letters().replay({}, { perSecond: 0.01, watch: false, signal: stop.signal, onOutcome })
    expect(waiting).to.be.at.least(96)
  })

  it('stops at a signal after the letters at hand, and says what was done', async () => {
    await bench.bury(200)
    const stop = new AbortController()
    let told = 0
    const onOutcome = () => ++told === 20 && stop.abort()
    const result = await bench.letters().replay({}, { perSecond: 500, watch: false, signal: stop.signal, onOutcome })
    expect(result.stopped).to.equal('interrupted')
    expect(result.replayed).to.be.within(20, 60)
    await bench.holds(200 - result.replayed)
    await bench.holds(result.replayed, bench.queue)
  })

  it('keeps a letter whose queue does not exist, and goes on with the others', async () => {
    const gone = uniqueQueue('gone')
    await bench.bury(3, (i) => (i === 1 ? { headers: { [HEADER.queue]: gone } } : {}))
    const outcomes: ReplayOutcome[] = []
    const result = await bench.letters().replay({}, { ...FAST, onOutcome: (o) => outcomes.push(o) })
    expect(result).to.include({ replayed: 2, failed: 1, stopped: 'done' })
    const failed = outcomes.find((o) => o.outcome === 'failed')
    const told = failed?.outcome === 'failed' ? failed.error.message : undefined
    expect(told).to.contain(`queue "${gone}" does not exist`).and.contain('start its consumer').and.not.contain('"to"')
    expect(await ids(bench.letters().list())).to.deep.equal(['m-1'])
  })

  it('shows and sends again what others put there: dead-lettered by the broker, without ids, by hand', async () => {
    const foreign = uniqueQueue('foreign')
    await bench.channel.assertQueue(foreign, {
      durable: true,
      arguments: {
        'x-queue-type': 'quorum',
        'x-dead-letter-exchange': '',
        'x-dead-letter-routing-key': bench.dead,
        'x-delivery-limit': 1,
      },
    })
    for (const body of ['rejected', 'limit']) bench.put(foreign, { body }, { type: 'legacy' })
    bench.put(bench.dead, { body: 'by hand' })
    await bench.confirmed()
    await consumeBadly(bench, foreign)
    await bench.holds(3)
    const letters = await all(bench.letters().list())
    const seen = letters.map(({ by, reason, queue, messageId }) => ({ by, reason, queue, messageId }))
    expect(seen).to.have.deep.members([
      { by: 'unknown', reason: 'unknown', queue: undefined, messageId: undefined },
      { by: 'broker', reason: 'rejected', queue: foreign, messageId: undefined },
      { by: 'broker', reason: 'delivery_limit', queue: foreign, messageId: undefined },
    ])
    for (const { id } of letters) expect(id).to.match(/^~[0-9a-f]{16}$/)
    const one = letters.find(({ reason }) => reason === 'rejected')!
    expect(await ids(bench.letters().list({ ids: [one.id] }))).to.deep.equal([one.id])
    const result = await bench.letters().replay({}, FAST)
    expect(result).to.include({ replayed: 3, failed: 0 })
    await bench.holds(2, foreign)
    await bench.holds(1, bench.queue)
  })

  it('never takes a letter without an id for sent when no queue took it', async () => {
    bench.put(bench.dead, { body: 'nowhere' })
    await bench.confirmed()
    await bench.channel.deleteQueue(bench.queue)
    const result = await bench.letters().replay({}, FAST)
    expect(result).to.include({ replayed: 0, failed: 1 })
    expect(await bench.count()).to.equal(1)
    const to = uniqueQueue('elsewhere')
    await bench.channel.assertQueue(to, { durable: true, arguments: { 'x-queue-type': 'quorum' } })
    expect(await bench.letters().replay({}, { ...FAST, to })).to.include({ replayed: 1 })
    await bench.holds(1, to)
  })

  it('does not send again in one run what comes back meanwhile', async () => {
    const consumer = await bench.consume(() => {
      throw new Error('at once')
    })
    await bench.bury(50)
    const result = await bench.letters().replay({}, { perSecond: 200, watch: false })
    expect(result).to.include({ replayed: 50, seen: 50, stopped: 'done' })
    await bench.holds(50)
    await consumer.close()
  })

  it('tells what was done when its connection is lost', async () => {
    await bench.bury(100)
    const cut = latch()
    let told = 0
    const run = bench.letters().replay(
      {},
      {
        perSecond: 300,
        watch: false,
        onOutcome: () => void (++told === 10 && cut.resolve()),
      },
    )
    await cut.promise
    await bench.channel.deleteQueue(bench.dead)
    const result = await run
    expect(result.stopped).to.equal('unreachable')
    expect(result.error?.message).to.match(/was the queue deleted\?|does not exist/)
    expect(result.replayed).to.be.greaterThan(9)
  })
})

/** Rejects the first message, and lets the second run into the delivery limit. */
async function consumeBadly(bench: Bench, queue: string): Promise<void> {
  const done = latch()
  let rejected = false
  let returns = 0
  const { consumerTag } = await bench.channel.consume(queue, (message) => {
    if (!message) return
    const { body } = JSON.parse(message.content.toString()) as { body: string }
    if (body === 'rejected' && !rejected) {
      rejected = true
      bench.channel.nack(message, false, false)
    } else {
      returns++
      // RabbitMQ 4.3 counts a reject towards the delivery limit, and no nack; older ones count both.
      bench.channel.reject(message, true)
    }
    if (rejected && returns === 2) done.resolve()
  })
  await done.promise
  await bench.channel.cancel(consumerTag)
}
