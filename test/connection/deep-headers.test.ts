// Headers nested so deep that amqplib's recursion would overflow the stack, and with it end the connection.

import { expect } from 'chai'
import { withoutDeepHeaders } from '../../lib/connection/deep-headers.ts'
import { connect, MemoryIdempotencyStore } from '../../lib/index.ts'
import { RawPublisher, type Table } from '../fuzz/wire.ts'
import { eventually, latch } from '../support/eventually.ts'
import { uniqueQueue } from '../support/unique.ts'

const URL = process.env['AMQP_URL']!
const named = (name: string) => Buffer.from(name)
const DEEP: Table = [
  [named('before'), { t: 'S', v: named('kept') }],
  [named('deep'), { t: 'deep', of: 'F', levels: 6_000 }],
  [named('after'), { t: 'I', v: 7n }],
]

describe('headers nested too deep', () => {
  let publisher: RawPublisher
  beforeEach(async () => {
    publisher = await RawPublisher.open(URL)
  })
  afterEach(() => publisher.close())

  const send = (queue: string, messageId: string, headers: Table) =>
    publisher.publish({
      exchange: '',
      routingKey: named(queue),
      properties: { headers, messageId: named(messageId) },
      body: named('1'),
    })

  it('do not end the connection: the message becomes a dead letter as it is, and its neighbours are handled', async () => {
    await using surehop = await connect({ amqp: URL, service: 'deep' })
    const queue = uniqueQueue()
    const handled = latch<string>()
    let begun = 0
    await surehop.consume(queue, { idempotency: new MemoryIdempotencyStore() }, async ({ messageId }) => {
      begun++
      handled.resolve(messageId)
    })
    await send(queue, 'poison', DEEP)
    await send(queue, 'neighbour', [])
    expect(await handled.promise).to.equal('neighbour')
    const letters = surehop.deadLetters(queue)
    await eventually(async () => (await letters.count()) === 1)
    const [letter] = await letters.show('poison')
    expect(letter!.headers).to.deep.equal({ before: 'kept', after: 7 })
    expect(letter!.by).to.equal('broker')
    expect(letter!.reason).to.match(/rejected.*nested too deep.*deep/)
    expect(begun).to.equal(1)
  })

  it('keep no message from being handled where they are forged bookkeeping of the broker, which is never sent on', async () => {
    await using surehop = await connect({ amqp: URL, service: 'deep' })
    const queue = uniqueQueue()
    const handled = latch<object>()
    await surehop.consume(queue, { identity: 'unguarded' }, async ({ headers }) => handled.resolve(headers))
    const prototype: Table = [[named('__proto__'), { t: 'D', places: 0, digits: 0 }]]
    await send(queue, 'm', [
      [named('x-delivery-count'), { t: 'A', v: [{ t: 'F', v: prototype }] }],
      [named('x-last-death-queue'), { t: 'deep', of: 'F', levels: 6_000 }],
      [named('theirs'), { t: 'S', v: named('kept') }],
    ])
    expect(await handled.promise).to.deep.equal({ theirs: 'kept' })
  })

  it('are never lost on the way: the letter is not sent again, and does not keep the others', async () => {
    await using surehop = await connect({ amqp: URL, service: 'deep' })
    const queue = uniqueQueue()
    await (await surehop.consume(queue, {}, async () => {})).close()
    await send(`${queue}.dead`, 'poison', DEEP)
    await send(`${queue}.dead`, 'neighbour', [])
    const letters = surehop.deadLetters(queue)
    const moved = await letters.discard()
    expect(moved).to.include({ moved: 1, failed: 1, stopped: 'done' })
    expect(moved.error!.message).to.match(/nested too deep.*deep/)
    expect(await letters.replay({}, { perSecond: 0 })).to.include({ failed: 1, stopped: 'done' })
    expect(await letters.count()).to.equal(1)
    for await (const line of letters.exportTo()) expect(line).to.include('"surehop-unreadable":"deep"')
  })

  it('are read up to the depth that may be sent', async () => {
    await using surehop = await connect({ amqp: URL, service: 'deep' })
    const queue = uniqueQueue()
    const handled = latch<object>()
    await surehop.consume(queue, { identity: 'unguarded' }, async ({ headers }) => handled.resolve(headers))
    await send(queue, 'm', [[named('deep'), { t: 'deep', of: 'A', levels: 31 }]])
    expect(JSON.stringify(await handled.promise)).to.equal(`{"deep":${'['.repeat(31)}${']'.repeat(31)}}`)
  })

  it('of a type that amqplib does not know are read as the numbers they are', async () => {
    await using surehop = await connect({ amqp: URL, service: 'deep' })
    const queue = uniqueQueue()
    const handled = latch<object>()
    await surehop.consume(queue, { identity: 'unguarded' }, async ({ headers }) => handled.resolve(headers))
    const inner: Table = [[named('inner'), { t: 'L', v: -5n }]]
    await send(queue, 'm', [
      [named('outer'), { t: 'F', v: inner }],
      [named('L'), { t: 'L', v: 7n }],
    ])
    expect(await handled.promise).to.deep.equal({ outer: { inner: -5 }, L: 7 })
  })

  it('that fill a frame are read also when the broker has added its own', async () => {
    await using surehop = await connect({ amqp: URL, service: 'deep' })
    const queue = uniqueQueue()
    await surehop.consume(queue, {}, async () => {
      throw new Error('it cannot be sent on, and the broker moves it')
    })
    await send(queue, 'full', [[named('full'), { t: 'S', v: Buffer.alloc(131_000, 'x') }]])
    const letters = surehop.deadLetters(queue)
    await eventually(async () => (await letters.count()) === 1)
    const [letter] = await letters.show('full')
    expect(letter!.by).to.equal('broker')
  })

  it('that fill a frame lower no limit: where larger frames were agreed on, larger ones are read', () => {
    const limitOf = (maxFrameSize: number) => {
      const reader = { rest: Buffer.alloc(0), maxFrameSize, recvFrame: () => undefined }
      withoutDeepHeaders(reader)
      return reader.maxFrameSize
    }
    const mebibyte = 1024 ** 2
    expect([131_072, 64 * mebibyte, 0].map(limitOf)).to.deep.equal([mebibyte, 64 * mebibyte, 0])
  })

  it('are read as little as one named "__proto__", which would change what the others are: it stops neither consuming nor looking', async () => {
    const proto = named('__proto__')
    const inner: Table = [[named('toJSON'), { t: 'S', v: named('x') }]]
    const values: Table[0][1][] = [
      { t: 'x', v: named('bytes') },
      { t: 'F', v: inner },
      { t: 'A', v: [] },
      { t: 'V' },
      { t: 'T', v: 1n },
      { t: 'D', places: 1, digits: 5 },
    ]
    await using surehop = await connect({ amqp: URL, service: 'deep' })
    const queue = uniqueQueue()
    const handled = latch<string>()
    const begun: string[] = []
    await surehop.consume(queue, { idempotency: new MemoryIdempotencyStore() }, async ({ messageId }) => {
      begun.push(messageId)
      handled.resolve(messageId)
    })
    for (const [i, value] of values.entries()) {
      await send(queue, `top-${i}`, [[proto, value]])
      await send(queue, `nested-${i}`, [[named('in'), { t: 'A', v: [{ t: 'F', v: [[proto, value]] }] }]])
    }
    await send(queue, 'neighbour', [])
    expect(await handled.promise).to.equal('neighbour')
    expect(begun).to.deep.equal(['neighbour'])
    const letters = surehop.deadLetters(queue)
    await eventually(async () => (await letters.count()) === 2 * values.length)
    let [listed, exported] = [0, 0]
    for await (const { reason } of letters.list()) if (/rejected.*(__proto__|in\b)/.test(reason)) listed++
    for await (const line of letters.exportTo()) if (line.includes('surehop-unreadable')) exported++
    expect([listed, exported]).to.deep.equal([2 * values.length, 2 * values.length])
    const { stopped, failed } = await letters.discard()
    expect([stopped, failed]).to.deep.equal(['done', 2 * values.length])
  })
})
