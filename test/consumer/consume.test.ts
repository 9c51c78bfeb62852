// Messages of ours and of strangers, against the real services: run once, refused with a reason, kept as they are.

import { expect } from 'chai'
import { v7 } from 'uuid'
import { z } from 'zod'
import {
  type Context,
  HEADER,
  MemoryIdempotencyStore,
  type Message,
  type Middleware,
  onEvent,
} from '../../lib/index.ts'
import { derivedMessageId } from '../../lib/message.ts'
import { latch } from '../support/eventually.ts'
import { uniqueExchange, uniqueQueue } from '../support/unique.ts'
import { closeAll, connected, event, inbox, nothingLeft, raw, sendRaw, Tally, taken } from './setup.ts'

describe('consumer: messages', function () {
  this.timeout(60_000)
  afterEach(closeAll)

  it('binds, consumes, and gives the handler what was published', async () => {
    const [queue, exchange] = [uniqueQueue(), uniqueExchange()]
    const surehop = await connected()
    const got = latch<[Message, Context]>()
    await surehop.consume(queue, { bind: [{ exchange, type: 'order.*' }], idempotency: inbox() }, (m, context) =>
      got.resolve([m, context]),
    )
    const order = { type: 'order.placed', key: 'o-1', body: { n: 1 }, headers: { mine: 'x' }, transactionId: 't-1' }
    const { messageId } = await surehop.producer().publish(exchange, order)
    const [message, context] = await got.promise
    expect(message).to.deep.include({
      messageId,
      transactionId: 't-1',
      body: { n: 1 },
      type: 'order.placed',
      key: 'o-1',
      queue,
      exchange,
    })
    expect(message).to.deep.include({ routingKey: 'order.placed', headers: { mine: 'x' }, appId: 'test' })
    expect(context).to.include({ attempt: 1, generation: 0, transactionId: 't-1', queue })
    expect(context.fencingToken).to.be.above(1e15)
  })

  it('runs two copies that come at once to two instances once', async () => {
    const [queue, store, ids] = [uniqueQueue(), inbox(), Array.from({ length: 40 }, () => v7())]
    const runs = new Tally<string>()
    const instances = [await connected(), await connected()]
    const duplicates = new Tally<string>()
    const stop = onEvent('message.duplicate', (data) => data.queue === queue && duplicates.add(data.messageId))
    for (const surehop of instances)
      await surehop.consume(queue, { idempotency: store, concurrency: 20 }, ({ messageId }) => void runs.add(messageId))
    const producers = instances.map((surehop) => surehop.producer())
    await Promise.all(ids.flatMap((messageId) => producers.map((p) => p.send(queue, { messageId, body: {} }))))
    await duplicates.reaches(ids.length, 30_000)
    stop()
    expect([...runs.seen].sort()).to.deep.equal([...ids].sort())
    await nothingLeft(queue)
  })

  // P27: a mark set before the work loses the message in a crash; here a mark in use only puts the copy off.
  it('puts a copy off while the other instance runs it, and drops it once that is completed', async () => {
    const [queue, store, messageId] = [uniqueQueue(), inbox(), v7()]
    const [started, finish] = [latch(), latch()]
    let runs = 0
    const handler = async () => {
      runs++
      started.resolve()
      await finish.promise
    }
    for (const surehop of [await connected(), await connected()])
      await surehop.consume(queue, { idempotency: store, concurrency: 1, prefetch: 1, leaseMs: 1_500 }, handler)
    const producer = (await connected()).producer()
    await producer.send(queue, { messageId, body: {} })
    await started.promise
    const putOff = event('message.put-off', (data) => data.queue === queue)
    const dropped = event('message.duplicate', (data) => data.queue === queue)
    await producer.send(queue, { messageId, body: {} })
    expect((await putOff).why).to.equal('it runs elsewhere now')
    finish.resolve()
    expect((await dropped).why).to.equal('completed')
    expect(runs).to.equal(1)
  })

  it('dead-letters the same id with another body, and does not run it', async () => {
    const [queue, messageId] = [uniqueQueue(), v7()]
    const surehop = await connected()
    const runs = new Tally<unknown>()
    await surehop.consume(queue, { idempotency: inbox() }, ({ body }) => void runs.add(body))
    await surehop.producer().send(queue, { messageId, body: { n: 1 } })
    await runs.reaches(1)
    await surehop.producer().send(queue, { messageId, body: { n: 2 } })
    const [letter] = await taken(`${queue}.dead`)
    expect(letter!.properties.headers).to.include({
      [HEADER.reason]: 'same id, other body',
      [HEADER.errorType]: 'MessageConflict',
    })
    expect(runs.seen).to.deep.equal([{ n: 1 }])
  })

  it('runs messages without a store too, and says nothing of tokens', async () => {
    const queue = uniqueQueue()
    const surehop = await connected()
    const got = latch<Context>()
    await surehop.consume(queue, {}, (_, context) => got.resolve(context))
    await surehop.producer().send(queue, { body: {} })
    expect((await got.promise).fencingToken).to.equal(undefined)
  })

  it('gives the handler the output of a schema, and dead-letters what does not fit with the path of the mistake', async () => {
    const queue = uniqueQueue()
    const schema = z.object({
      lines: z.array(z.object({ quantity: z.number().int().positive() })),
      at: z.coerce.date(),
    })
    const surehop = await connected()
    const got = latch<z.infer<typeof schema>>()
    await surehop.consume(queue, { schema, idempotency: inbox() }, ({ body }) => got.resolve(body))
    const producer = surehop.producer()
    await producer.send(queue, { body: { lines: [{ quantity: 1 }], at: '2026-01-02T00:00:00Z' } })
    expect((await got.promise).at).to.deep.equal(new Date('2026-01-02T00:00:00Z'))
    await producer.send(queue, { body: { lines: [{ quantity: 1 }, { quantity: -1 }], at: 0 } })
    const [letter] = await taken(`${queue}.dead`)
    expect(letter!.properties.headers![HEADER.errorMessage]).to.match(/^body\.lines\[1\]\.quantity/)
    expect(letter!.properties.headers![HEADER.reason]).to.equal('invalid message')
  })

  it('runs middleware around every attempt, the first outermost, and never for a dropped copy', async () => {
    const [queue, log, messageId] = [uniqueQueue(), [] as string[], v7()]
    const surehop = await connected()
    const named =
      (name: string): Middleware =>
      (next) =>
      async (m, c) => {
        log.push(`${name} ${c.attempt}`)
        await next(m, { ...c })
      }
    await surehop.consume(queue, { idempotency: inbox(), middleware: [named('outer'), named('inner')] }, () => {})
    const dropped = event('message.duplicate', (data) => data.queue === queue)
    for (let i = 0; i < 2; i++) await surehop.producer().send(queue, { messageId, body: {} })
    await dropped
    expect(log).to.deep.equal(['outer 1', 'inner 1'])
  })
})

describe('consumer: messages of strangers', function () {
  this.timeout(60_000)
  afterEach(closeAll)

  it('takes the transaction id header for the identity where there is no message id, through retries too', async () => {
    const queue = uniqueQueue()
    const surehop = await connected()
    const seen = new Tally<string>()
    const backoff = { delayMs: () => 0, maxDelayMs: () => 0 }
    await surehop.consume(
      queue,
      { idempotency: inbox(), retry: { backoff } },
      ({ messageId, transactionId }, { attempt }) => {
        seen.add(`${messageId} ${transactionId} ${attempt}`)
        if (attempt < 3) throw new Error('boom')
      },
    )
    await sendRaw(queue, '{}', { headers: { transaction_id: 'py-1' } })
    expect(await seen.reaches(3)).to.deep.equal(['py-1 py-1 1', 'py-1 py-1 2', 'py-1 py-1 3'])
    const dropped = event('message.duplicate', (data) => data.queue === queue)
    await sendRaw(queue, '{}', { headers: { transaction_id: 'py-1' } })
    await dropped
    expect(seen.seen).to.have.length(3)
  })

  it('dead-letters a message without any identity, with a reason that says what to do', async () => {
    const queue = uniqueQueue()
    await (await connected()).consume(queue, { idempotency: inbox() }, () => {})
    await sendRaw(queue, '{"n":1}')
    const [letter] = await taken(`${queue}.dead`)
    expect(letter!.content.toString()).to.equal('{"n":1}')
    expect(letter!.properties.headers).to.include({
      [HEADER.reason]: 'invalid message',
      [HEADER.errorType]: 'MessageInvalid',
    })
    expect(letter!.properties.headers![HEADER.errorMessage]).to.match(/no identity/)
  })

  it('runs equal bodies without identity once under "digest", each under "unguarded"', async () => {
    for (const [identity, expected] of [
      ['digest', 1],
      ['unguarded', 2],
    ] as const) {
      const queue = uniqueQueue()
      const surehop = await connected()
      const runs = new Tally<string>()
      await surehop.consume(
        queue,
        { idempotency: inbox(), identity, concurrency: 1 },
        ({ body }) => void runs.add(body as string),
      )
      for (const body of ['"same"', '"same"', '"last"']) await sendRaw(queue, body)
      expect(await runs.reaches(expected + 1)).to.deep.equal([
        ...Array.from({ length: expected }, () => 'same'),
        'last',
      ])
      await surehop.close()
    }
  })

  it('carries every type of header a stranger can send through a retry unchanged', async () => {
    const queue = uniqueQueue()
    const seen = new Tally<Message>()
    await (await connected()).consume(
      queue,
      { retry: { backoff: { delayMs: () => 0, maxDelayMs: () => 0 } } },
      (message, { attempt }) => {
        seen.add(message)
        if (attempt === 1) throw new Error('boom')
      },
    )
    const headers = {
      text: 'grün',
      empty: '',
      yes: true,
      nothing: null,
      small: 1,
      negative: -3,
      int: 100_000,
      long: 2 ** 40,
      double: 1.5,
      when: { '!': 'timestamp', value: 1_700_000_000 },
      price: { '!': 'decimal', value: { places: 2, digits: 995 } },
      bytes: Buffer.from([1, 2]),
      list: [1, 'a', [true]],
      table: { inner: { deep: 1 } },
    }
    await sendRaw(queue, '{}', { messageId: 'm', headers })
    const [first, second] = await seen.reaches(2)
    expect(first!.headers).to.deep.equal(headers)
    expect(second!.headers).to.deep.equal(headers)
  })

  it('refuses forged counters by name, without running the message', async () => {
    const queue = uniqueQueue()
    let runs = 0
    await (await connected()).consume(queue, { idempotency: inbox() }, () => void runs++)
    for (const headers of [
      { [HEADER.attempt]: 1e9 },
      { [HEADER.generation]: -1 },
      { [HEADER.firstFailedAt]: 'x'.repeat(10_000) },
    ])
      await sendRaw(queue, '{}', { messageId: v7(), headers })
    const letters = await taken(`${queue}.dead`, 3)
    const messages = letters.map(({ properties }) => String(properties.headers![HEADER.errorMessage]))
    expect(messages.map((text) => /surehop-[a-z-]+/.exec(text)?.[0]).sort()).to.deep.equal(
      [HEADER.attempt, HEADER.firstFailedAt, HEADER.generation].sort(),
    )
    expect(runs).to.equal(0)
  })

  // P4, P25: what no client can publish again with a story is kept by the broker as it is.
  it('leaves a message that cannot be published again to the dead-lettering of the broker', async () => {
    const queue = uniqueQueue()
    await (await connected()).consume(queue, { idempotency: inbox(), retry: { attempts: 2 } }, () => {
      throw new Error('boom')
    })
    const dead = event('message.dead-lettered', (data) => data.queue === queue)
    await sendRaw(queue, '{"kept":true}', { messageId: v7(), headers: { big: 'x'.repeat(65_300) } })
    expect((await dead).reason).to.match(/cannot be published again/)
    const [letter] = await taken(`${queue}.dead`)
    expect(letter!.content.toString()).to.equal('{"kept":true}')
    expect(letter!.properties.headers!['big']).to.have.length(65_300)
    expect(letter!.properties.headers!['x-death']![0]).to.include({ queue, reason: 'rejected' })
  })

  it('refuses a message whose orderBy throws, whatever it throws, and keeps its connection', async () => {
    const queue = uniqueQueue()
    const thrown = [
      Symbol('s'),
      Object.create(null),
      { message: Symbol('s') },
      new Proxy(new Error('x'), {
        get: () => {
          throw new Error('gotcha')
        },
      }),
    ]
    const orderBy = ({ body }: { body: unknown }): string => {
      throw thrown[body as number]
    }
    const surehop = await connected()
    await surehop.consume(queue, { orderBy, identity: 'unguarded' }, () => {})
    const states: string[] = []
    const stop = onEvent('consumer.state', (data) => data.queue === queue && states.push(data.to))
    for (const n of thrown.keys()) await sendRaw(queue, String(n), { contentType: 'application/json' })
    const letters = await taken(`${queue}.dead`, thrown.length)
    for (const { properties } of letters) expect(properties.headers![HEADER.errorMessage]).to.match(/^orderBy failed: /)
    stop()
    expect(states).to.deep.equal([])
  })

  it('survives an error that trips whoever reads it, or asks what it is', async () => {
    const queue = uniqueQueue()
    const trap = new Proxy(new Error('x'), {
      get: () => {
        throw new Error('gotcha')
      },
    })
    const { proxy: revoked, revoke } = Proxy.revocable(new Error('x'), {})
    revoke()
    await (await connected()).consume<boolean>(queue, { retry: { attempts: 1 } }, ({ body }) => {
      throw body ? revoked : trap
    })
    for (const body of [false, true]) {
      await sendRaw(queue, JSON.stringify(body), { messageId: 'm' })
      const [letter] = await taken(`${queue}.dead`)
      expect(letter!.properties.headers![HEADER.reason]).to.equal('failed 1 times')
    }
    const ordered = uniqueQueue()
    const orderBy = () => {
      throw revoked
    }
    await (await connected()).consume(ordered, { orderBy, retry: { attempts: 1 } }, () => {})
    await sendRaw(ordered, '{}', { messageId: 'm' })
    const [letter] = await taken(`${ordered}.dead`)
    expect(letter!.properties.headers![HEADER.errorMessage]).to.match(/^orderBy failed: /)
  })
})

describe('consumer: publishing from a handler', function () {
  this.timeout(60_000)
  afterEach(closeAll)

  it('carries the transaction on, and publishes the same ids when the run is repeated, whatever the bodies, confirmed before it is completed', async () => {
    const [queue, next, messageId] = [uniqueQueue(), uniqueQueue('next'), v7()]
    const surehop = await connected()
    const ids = new Tally<string>()
    const order: string[] = []
    const stops = [
      onEvent('publish.confirmed', (data) => data.routingKey === next && order.push('confirmed')),
      onEvent('message.completed', (data) => data.queue === queue && order.push('completed')),
    ]
    await surehop.consume(next, { idempotency: inbox() }, (m) => void ids.add(`${m.messageId} ${m.transactionId}`))
    const completed = event('message.completed', (data) => data.queue === queue)
    const backoff = { delayMs: () => 0, maxDelayMs: () => 0 }
    await surehop.consume(queue, { idempotency: inbox(), retry: { backoff } }, (_, { send, attempt }) => {
      void send(next, { body: { n: 1, attempt } })
      void send(next, { body: { n: 2 } }, { name: 'second' })
      if (attempt === 1) throw new Error('after its publishes')
    })
    const dropped = new Tally<string>()
    stops.push(onEvent('message.duplicate', (data) => data.queue === next && dropped.add(data.messageId)))
    await surehop.producer().send(queue, { messageId, transactionId: 't-9', body: {} })
    await completed
    await dropped.reaches(2)
    for (const stop of stops) stop()
    const expected = ['0', 'name:second'].map((name) => `${derivedMessageId(messageId, queue, name)} t-9`)
    expect([...ids.seen].sort()).to.deep.equal(expected.sort())
    expect(order.at(-1)).to.equal('completed')
    expect(order).to.have.length(5)
  })

  it('fails the attempt when nobody takes what it publishes, awaited or not', async () => {
    const queue = uniqueQueue()
    await (await connected()).consume(queue, { retry: { attempts: 1 } }, (_, { send }) => {
      void send(`${queue}-nobody`, { body: {} })
    })
    await sendRaw(queue, '{}', { messageId: 'm' })
    const [letter] = await taken(`${queue}.dead`)
    expect(letter!.properties.headers![HEADER.errorType]).to.equal('PublishFailed')
  })
})

describe('consumer: memory store', () => {
  afterEach(closeAll)

  it('serves a single process as well', async () => {
    const [queue, messageId] = [uniqueQueue(), v7()]
    const surehop = await connected()
    let runs = 0
    await surehop.consume(queue, { idempotency: new MemoryIdempotencyStore() }, () => void runs++)
    const dropped = event('message.duplicate', (data) => data.queue === queue)
    for (let i = 0; i < 2; i++) await surehop.producer().send(queue, { messageId, body: {} })
    await dropped
    expect(runs).to.equal(1)
    await raw()
  })
})
