import { expect } from 'chai'
import { type CheckAnswer, HEADER, MemoryDecisionStore, onEvent, StoreUnavailable } from '../../lib/index.ts'
import { eventually, latch } from '../support/eventually.ts'
import { freePort } from '../support/ports.ts'
import { uniqueExchange, uniqueQueue } from '../support/unique.ts'
import {
  bench,
  caught,
  closeAll,
  connected,
  counts,
  event,
  exactly,
  messageTo,
  nothingWaits,
  raw,
  redisDecisions,
  senderName,
  taken,
} from './setup.ts'

describe('transactional messages', () => {
  afterEach(closeAll)

  it('begins local work only when the half message is stored, shows nothing until the commit, and then everything', async () => {
    const { payments, work, name } = await bench({ firstCheckMs: 60_000 })
    const { result, outcome, transactionId } = await payments.run(
      [messageTo(work, { n: 1 }), messageTo(work, { n: 2 })],
      async (id) => {
        expect((await counts(`${name}.half`)).messages).to.equal(1)
        expect((await counts(work)).messages).to.equal(0)
        return `done ${id}`
      },
    )
    expect({ result, outcome }).to.deep.equal({ result: `done ${transactionId}`, outcome: 'published' })
    const messages = await exactly(work, 2)
    expect(messages.map((m) => JSON.parse(m.content.toString()).n)).to.deep.equal([1, 2])
    for (const { properties } of messages) expect(properties.headers?.[HEADER.transactionId]).to.equal(transactionId)
  })

  it('carries the business transaction of a message on, sent at once or by check-back; without one it gets that of the half message', async () => {
    const { payments, work } = await bench({ check: () => 'commit' })
    const two = (n: number) => [messageTo(work, n, { transactionId: 'order-1' }), messageTo(work, n + 1)]
    const { transactionId } = await payments.run(two(1), () => {})
    const prepared = await payments.prepare(two(3))
    const ids = (await exactly(work, 4)).map(({ content, properties }) => [
      Number(content),
      properties.headers?.[HEADER.transactionId],
    ])
    expect(ids.sort((a, b) => (a[0] as number) - (b[0] as number))).to.deep.equal([
      [1, 'order-1'],
      [2, transactionId],
      [3, 'order-1'],
      [4, prepared.transactionId],
    ])
  })

  it('sends what was prepared: ids, types of headers, bytes, key, to exchanges and queues', async () => {
    const { surehop, payments } = await bench()
    const exchange = uniqueExchange()
    const [bound, direct] = [uniqueQueue(), uniqueQueue()]
    const quorum = { 'x-queue-type': 'quorum' }
    await surehop.declare({
      exchanges: [{ name: exchange, type: 'topic' }],
      queues: [
        { name: bound, arguments: quorum },
        { name: direct, arguments: quorum },
      ],
      bindings: [{ source: exchange, queue: bound, routingKey: 'payment.#' }],
    })
    const body = Buffer.from([0, 255, 1])
    const headers = {
      big: 2n ** 60n,
      when: new Date(1_700_000_000_000),
      bytes: Buffer.from('x'),
      deep: { list: [1, 'a'] },
    }
    await payments.run(
      [
        { exchange, type: 'payment.made', body: { a: 'ä' }, key: 'k1', messageId: 'm-1', correlationId: 'c' },
        { queue: direct, body, headers, contentType: 'image/png' },
      ],
      () => {},
    )
    const [one] = await taken(bound)
    expect(one!.content.toString()).to.equal('{"a":"ä"}')
    expect(one!.properties).to.include({ messageId: 'm-1', type: 'payment.made', correlationId: 'c', appId: 'test' })
    expect(one!.properties.headers).to.include({ [HEADER.key]: 'k1' })
    const [two] = await taken(direct)
    expect(two!.content.equals(body)).to.equal(true)
    expect(two!.properties.contentType).to.equal('image/png')
    expect(two!.properties.headers).to.deep.include({ deep: { list: [1, 'a'] }, bytes: Buffer.from('x') })
    expect(two!.properties.headers?.['when']).to.deep.equal({ '!': 'timestamp', value: 1_700_000_000 })
  })

  it('counts delays from the prepare, and is never early', async () => {
    const { payments, work } = await bench({ firstCheckMs: 60_000 })
    const began = Date.now()
    const prepared = await payments.prepare([
      messageTo(work, 'late', { delayMs: 1_200 }),
      messageTo(work, 'overdue', { delayMs: 100 }),
    ])
    await eventually(() => Date.now() - began > 300, { what: 'the time of the shorter delay' })
    await prepared.commit()
    const [first] = await taken(work)
    expect(first!.content.toString()).to.equal('"overdue"')
    const [second] = await taken(work)
    expect(second!.content.toString()).to.equal('"late"')
    expect(Date.now() - began).to.be.within(1_200, 10_000)
  })

  it('sends nothing after a rollback, and refuses a commit that comes after it', async () => {
    const { payments, work, name } = await bench()
    const prepared = await payments.prepare([messageTo(work)])
    await prepared.rollback()
    await prepared.rollback()
    expect(await caught(prepared.commit())).to.have.property('code', 'ALREADY_ROLLED_BACK')
    await nothingWaits(name)
    await exactly(work, 0)
  })

  it('refuses a rollback that comes after the commit; a commit may be repeated', async () => {
    const { payments, work, name } = await bench()
    const prepared = await payments.prepare([messageTo(work)])
    expect(await prepared.commit()).to.include({ outcome: 'published' })
    expect(await payments.commit(prepared.transactionId)).to.include({ outcome: 'published' })
    expect(await caught(prepared.rollback())).to.have.property('code', 'ALREADY_COMMITTED')
    await nothingWaits(name)
    await exactly(work, 1)
  })

  it('sends the messages of a commit that comes from another process, within the time of the first check', async () => {
    const { payments, work, name, decisions } = await bench()
    const elsewhere = await (await connected()).transactional(name, {
      decisions,
      check: () => 'unknown',
      firstCheckMs: 150,
    })
    const { transactionId } = await payments.prepare([messageTo(work)], { transactionId: 'order-1' })
    expect(await elsewhere.commit(transactionId)).to.deep.equal({ transactionId, outcome: 'decided' })
    await taken(work)
    await nothingWaits(name)
    expect(await elsewhere.commit(transactionId)).to.deep.equal({ transactionId, outcome: 'published' })
  })

  it('asks check when the work throws, believes its answer, and throws the error of the work in any case', async () => {
    let answer: CheckAnswer = 'commit'
    const { payments, work, name } = await bench({ check: () => answer })
    const failing = () => {
      throw new Error('no answer from the bank')
    }
    expect(await caught(payments.run([messageTo(work, 'happened')], failing))).to.have.property(
      'message',
      'no answer from the bank',
    )
    expect((await taken(work))[0]!.content.toString()).to.equal('"happened"')
    answer = 'rollback'
    expect(await caught(payments.run([messageTo(work)], failing))).to.have.property(
      'message',
      'no answer from the bank',
    )
    answer = 'unknown'
    const checkedLater = event('transaction.checked', ({ check }) => check === 1)
    expect(await caught(payments.run([messageTo(work, 'found later')], failing))).to.have.property('message')
    await checkedLater
    answer = 'commit'
    expect((await taken(work))[0]!.content.toString()).to.equal('"found later"')
    await nothingWaits(name)
    await exactly(work, 0)
  })

  it('rolls back unasked when the work says that nothing happened', async () => {
    let asked = 0
    const check = () => {
      asked++
      return 'unknown' as const
    }
    const { payments, work, name } = await bench({ check })
    const returned = await payments.run([messageTo(work)], (_, { rollback }) => rollback())
    expect(returned.outcome).to.equal('rolled-back')
    const thrown = payments.run([messageTo(work)], (_, { rollback }) => {
      rollback()
      throw new Error('declined')
    })
    expect(await caught(thrown)).to.have.property('message', 'declined')
    await nothingWaits(name)
    await exactly(work, 0)
    expect(asked).to.equal(0)
  })

  it('does not run the work when the half message is not stored', async () => {
    const { payments, work } = await bench()
    let ran = false
    const run = (messages: Parameters<typeof payments.run>[0]) =>
      caught(
        payments.run(messages, () => {
          ran = true
        }),
      )
    expect(await run([])).to.have.property('code', 'INVALID_OPTION')
    expect(await run([{ queue: work, exchange: 'x', body: 1 } as never])).to.have.property('code', 'MESSAGE_INVALID')
    expect(await run([undefined as never])).to.have.property('code', 'MESSAGE_INVALID')
    expect(await run([messageTo(work, Buffer.alloc(9 << 20)), messageTo(work, Buffer.alloc(9 << 20))]))
      .to.have.property('message')
      .that.contains('16 MiB')
    expect(ran).to.equal(false)
  })

  it('takes a transaction just below 16 MiB', async () => {
    const { payments, work } = await bench({ firstCheckMs: 60_000 })
    const body = Buffer.alloc(16 * 1024 * 1024 - 2_000, 7)
    await payments.run([messageTo(work, body)], () => {})
    expect((await taken(work))[0]!.content.equals(body)).to.equal(true)
  })

  it('refuses to prepare an id that was decided before: its messages would be lost, or sent in spite of a rollback', async () => {
    const { payments, work } = await bench()
    await payments.run([messageTo(work)], () => {}, { transactionId: 'order-1' })
    const again = payments.prepare([messageTo(work)], { transactionId: 'order-1' })
    expect(await caught(again)).to.have.property('code', 'ALREADY_COMMITTED')
    await (await payments.prepare([messageTo(work)], { transactionId: 'order-2' })).rollback()
    const back = payments.prepare([messageTo(work)], { transactionId: 'order-2' })
    expect(await caught(back)).to.have.property('code', 'ALREADY_ROLLED_BACK')
  })

  it('sends both halves of a transaction that was prepared twice under one id', async () => {
    const { payments, work, name, decisions } = await bench()
    const elsewhere = await (await connected()).transactional(name, {
      decisions,
      check: () => 'unknown',
      firstCheckMs: 150,
    })
    await payments.prepare([messageTo(work, 'a')], { transactionId: 't' })
    await elsewhere.prepare([messageTo(work, 'b')], { transactionId: 't' })
    await payments.commit('t')
    const bodies = (await taken(work, 2)).map((m) => m.content.toString())
    expect(bodies.sort()).to.deep.equal(['"a"', '"b"'])
    await nothingWaits(name)
  })

  it('says decided, and not failed, when a committed message cannot be sent now, and sends it when it can', async () => {
    const { surehop, payments, name } = await bench()
    const missing = uniqueQueue('not-yet')
    const warned = event('transaction.warning', ({ warning }) => warning.includes('left to check-back'))
    const { outcome } = await payments.run([messageTo(missing)], () => {})
    expect(outcome).to.equal('decided')
    await warned
    await event('transaction.warning', ({ warning }) => warning.includes('could not all be published'))
    expect(payments.problems.join()).to.contain('cannot be published')
    await surehop.declare({ queues: [{ name: missing, arguments: { 'x-queue-type': 'quorum' } }] })
    await taken(missing)
    await nothingWaits(name)
    expect(payments.problems).to.deep.equal([])
  })

  it('never gives a committed message up: it is tried again when all checks are long used up', async () => {
    const { surehop, payments, name } = await bench({ checks: 1, checkCapMs: 200 })
    const missing = uniqueQueue('not-yet')
    const tried = (count: number) => event('transaction.warning', ({ warning }) => warning.includes(`(try ${count})`))
    const third = tried(3)
    await payments.run([messageTo(missing)], () => {})
    await third
    expect((await counts(`${name}.half.parked`)).messages).to.equal(0)
    await surehop.declare({ queues: [{ name: missing, arguments: { 'x-queue-type': 'quorum' } }] })
    await taken(missing)
    await nothingWaits(name)
  })

  it('remembers a commit for as long as its messages cannot go out, however long that is', async () => {
    const { surehop, payments, name } = await bench({ checks: 1, checkCapMs: 200, maxAgeMs: 1_000, retentionMs: 1_000 })
    const missing = uniqueQueue('not-yet')
    // Each pause is three quarters of `checkCapMs` at least: the twelfth try comes long after `retentionMs`.
    const twelfth = event('transaction.warning', ({ warning }) => warning.includes('(try 12)'))
    await payments.run([messageTo(missing)], () => {})
    await twelfth
    expect((await counts(`${name}.half.parked`)).messages).to.equal(0)
    await surehop.declare({ queues: [{ name: missing, arguments: { 'x-queue-type': 'quorum' } }] })
    await taken(missing)
    await nothingWaits(name)
  })

  it('says undecided, and not failed, when the work is done and the store cannot be reached', async () => {
    const store = new MemoryDecisionStore()
    let down = false
    const fail = async () => {
      throw new StoreUnavailable('down')
    }
    const decisions = Object.assign(Object.create(store) as MemoryDecisionStore, {
      decide: (...args: Parameters<typeof store.decide>) => (down ? fail() : store.decide(...args)),
      look: (...args: Parameters<typeof store.look>) => (down ? fail() : store.look(...args)),
      published: (...args: Parameters<typeof store.published>) => store.published(...args),
      checked: (...args: Parameters<typeof store.checked>) => (down ? fail() : store.checked(...args)),
      check: async () => [],
    })
    const { payments, work, name } = await bench({ decisions, check: () => 'commit' })
    const unavailable = event('store.unavailable')
    const { outcome, result, transactionId } = await payments.run([messageTo(work)], () => {
      down = true
      return 42
    })
    expect({ outcome, result }).to.deep.equal({ outcome: 'undecided', result: 42 })
    expect(await caught(payments.commit(transactionId))).to.have.property('code', 'STORE_UNAVAILABLE')
    await unavailable
    expect(payments.problems.join()).to.contain('decisions cannot be reached')
    down = false
    await taken(work)
    await nothingWaits(name)
  })

  it('does not fail over a store that can never be used again when its work is done', async () => {
    const decisions = new MemoryDecisionStore()
    const { payments, work } = await bench({ decisions })
    const { outcome, result } = await payments.run([messageTo(work)], async () => {
      await decisions.close()
      return 42
    })
    expect({ outcome, result }).to.deep.equal({ outcome: 'undecided', result: 42 })
  })

  it('gives all that were prepared and not decided back to the broker when it closes, and takes no more', async () => {
    const asked = latch()
    const check = () => {
      asked.resolve()
      return 'unknown' as const
    }
    const { payments, work, name } = await bench({ check, checks: 100 })
    await payments.prepare([messageTo(work)])
    await asked.promise
    await payments.close()
    expect((await counts(`${name}.half.check`)).messages).to.equal(1)
    expect(await caught(payments.prepare([messageTo(work)]))).to.have.property('code', 'CLOSED')
    await payments.close()
  })

  it('refuses names, options and ids that cannot be', async () => {
    const surehop = await connected()
    const decisions = redisDecisions()
    const open = (name: string, options: object) =>
      caught(surehop.transactional(name, { decisions, check: () => 'unknown', ...options }))
    for (const name of ['', 'x.half', 'y.half.check', 'z.dead', 'a\0b', 'x'.repeat(201)])
      expect(await open(name, {}), name).to.have.property('code', 'INVALID_OPTION')
    for (const options of [
      { check: 1 },
      { firstCheckMs: 99 },
      { firstCheck: 1 },
      { retentionMs: 5_000 },
      { retentionMs: 5_000, maxAgeMs: 5_000, firstCheckMs: 5_000 },
      { decisions: {} },
    ])
      expect(await open('ok', options)).to.have.property('code', 'INVALID_OPTION')
    const { payments } = await bench()
    for (const id of ['', 'x'.repeat(256), undefined, 7, 'a\0'])
      expect(await caught(payments.commit(id as string))).to.have.property('code', 'INVALID_OPTION')
  })

  it('explains a changed firstCheckMs, with the way out', async () => {
    const { payments, name, decisions } = await bench()
    await payments.close()
    const again = (await connected()).transactional(name, { decisions, check: () => 'unknown', firstCheckMs: 200 })
    const error = await caught(again)
    expect(error).to.have.property('code', 'TOPOLOGY_MISMATCH')
    expect(error.message).to.contain('firstCheckMs is 200').and.contain('--if-empty')
  })

  it('does not open without its store', async () => {
    const name = senderName()
    const decisions = redisDecisions(`redis://127.0.0.1:${await freePort()}`)
    const error = await caught((await connected()).transactional(name, { decisions, check: () => 'unknown' }))
    expect(error).to.have.property('code', 'STORE_UNAVAILABLE')
  })

  it('declares its queue anew when that was deleted', async () => {
    const { surehop, payments, work, name } = await bench()
    const channel = await (await raw()).createChannel()
    await channel.deleteQueue(`${name}.half`)
    await payments.run([messageTo(work)], () => {})
    await taken(work)
    expect(await surehop.queueStatus(`${name}.half`)).to.not.equal(undefined)
  })

  it('tells what happens by events', async () => {
    const { payments, work } = await bench()
    const seen: string[] = []
    const ends = (['prepared', 'decided', 'published'] as const).map((what) =>
      onEvent(`transaction.${what}`, (data) => data.name === payments.name && seen.push(what)),
    )
    await payments.run([messageTo(work)], () => {})
    for (const end of ends) end()
    expect(seen).to.deep.equal(['prepared', 'decided', 'published'])
  })
})
