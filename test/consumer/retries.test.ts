// Failed attempts against the real services: how often, when, in which order, and where they end.

import { expect } from 'chai'
import { v7 } from 'uuid'
import { DeadLetterNow, fixed, HEADER, onEvent, RetryLater } from '../../lib/index.ts'
import { latch } from '../support/eventually.ts'
import { uniqueQueue } from '../support/unique.ts'
import { amqpUrl, closeAll, connected, event, inbox, nothingLeft, raw, sendRaw, Tally, taken } from './setup.ts'

const QUICK = fixed({ delayMs: 100 })
/** The least that RabbitMQ 4.1 and later agree to. */
const FRAME_BYTES = 8_192

describe('consumer: retries', function () {
  this.timeout(60_000)
  afterEach(closeAll)

  it('makes exactly the attempts allowed, over several instances and copies, then dead-letters with the story', async () => {
    const [queue, store, ids] = [uniqueQueue(), inbox(), Array.from({ length: 20 }, () => v7())]
    const attempts = new Tally<string>()
    for (let i = 0; i < 3; i++) {
      const surehop = await connected()
      await surehop.consume(
        queue,
        { idempotency: store, retry: { attempts: 4, backoff: QUICK } },
        ({ messageId }, { attempt }) => {
          attempts.add(`${messageId} ${attempt}`)
          throw new RangeError(`out of stock, try ${attempt}`)
        },
      )
    }
    const producer = (await connected()).producer()
    for (const messageId of ids)
      for (let copy = 0; copy < 2; copy++) await producer.send(queue, { messageId, body: {} })
    const letters = await taken(`${queue}.dead`, ids.length, 30_000)
    const expected = ids.flatMap((id) => [1, 2, 3, 4].map((attempt) => `${id} ${attempt}`))
    expect([...attempts.seen].sort()).to.deep.equal(expected.sort())
    expect(letters.map((letter) => letter.properties.messageId).sort()).to.deep.equal([...ids].sort())
    const { headers } = letters[0]!.properties
    expect(headers).to.include({
      [HEADER.reason]: 'failed 4 times',
      [HEADER.attempt]: 4,
      [HEADER.errorType]: 'RangeError',
      [HEADER.errorMessage]: 'out of stock, try 4',
    })
    expect(headers![HEADER.lastFailedAt]).to.be.at.least(headers![HEADER.firstFailedAt] + 300)
    await nothingLeft(queue)
  })

  it('does not call a handler again before its delay is over', async () => {
    const queue = uniqueQueue()
    const surehop = await connected()
    const times = new Tally<number>()
    await surehop.consume(queue, { retry: { attempts: 3, backoff: fixed({ delayMs: 400 }) } }, () => {
      times.add(performance.now())
      throw new Error('boom')
    })
    await surehop.producer().send(queue, { body: {} })
    const [first, second, third] = await times.reaches(3)
    expect(second! - first!).to.be.within(395, 10_000)
    expect(third! - second!).to.be.within(395, 10_000)
  })

  it('is tried again, and tells what there is room for, where its own headers leave hardly any in the broker’s frames', async () => {
    const queue = uniqueQueue()
    const url = new URL(amqpUrl())
    url.searchParams.set('frameMax', String(FRAME_BYTES))
    const surehop = await connected({ amqp: url.href })
    const [attempts, failed, messageId] = [new Tally<number>(), new Tally<string>(), v7()]
    const stop = onEvent('publish.failed', (data) => data.messageId === messageId && failed.add(data.outcome))
    await surehop.consume(queue, { retry: { attempts: 2, backoff: QUICK } }, (_, { attempt }) => {
      attempts.add(attempt)
      throw new RangeError('out of stock '.repeat(100))
    })
    await sendRaw(queue, '{}', { messageId, headers: { note: 'x'.repeat(FRAME_BYTES - 1_000) } })
    const [letter] = await taken(`${queue}.dead`)
    stop()
    expect(attempts.seen).to.deep.equal([1, 2])
    expect(failed.seen, 'a copy that was too long is no failure').to.deep.equal([])
    const { headers } = letter!.properties
    expect(headers).to.include({ [HEADER.reason]: 'failed 2 times', [HEADER.errorType]: 'RangeError' })
    expect(headers![HEADER.errorMessage]).to.match(/^out of stock/)
  })

  it('comes again when the handler says so, and counts that as an attempt', async () => {
    const queue = uniqueQueue()
    const surehop = await connected()
    const times = new Tally<number>()
    await surehop.consume(queue, { idempotency: inbox(), retry: { attempts: 2 } }, () => {
      times.add(performance.now())
      throw new RetryLater(700, 'the shop opens soon')
    })
    await surehop.producer().send(queue, { body: {} })
    const [letter] = await taken(`${queue}.dead`)
    expect(times.seen).to.have.length(2)
    expect(times.seen[1]! - times.seen[0]!).to.be.at.least(695)
    expect(letter!.properties.headers).to.include({
      [HEADER.reason]: 'failed 2 times',
      [HEADER.errorMessage]: 'the shop opens soon',
    })
  })

  // RabbitMQ 4.0 has two priorities in a quorum queue, and what has expired there waits behind what has not: at one such message
  // every 700 ms, the 30 others would leave the delay one every 700 ms.
  it('is repeated in time, whatever priorities the messages of others have that wait, too', async () => {
    const [urgent, normal] = [uniqueQueue(), uniqueQueue()]
    const surehop = await connected()
    const repeated = new Tally<unknown>()
    const once = { retry: { attempts: 2 }, concurrency: 100 }
    await surehop.consume(urgent, once, (_, { attempt }) => {
      if (attempt === 1) throw new RetryLater(800)
    })
    await surehop.consume(normal, once, ({ body }, { attempt }) => {
      if (attempt === 1) throw new RetryLater(800)
      repeated.add(body)
    })
    const producer = surehop.producer()
    const channel = await (await raw()).createChannel()
    const send = () => channel.sendToQueue(urgent, Buffer.from('1'), { messageId: v7(), priority: 9 })
    const sending = setInterval(send, 700)
    try {
      send()
      for (let body = 0; body < 30; body++) await producer.send(normal, { body })
      await repeated.reaches(30, 12_000)
    } finally {
      clearInterval(sending)
    }
  })

  it('dead-letters at once when the handler says never, and what is not retryable', async () => {
    const queue = uniqueQueue()
    const surehop = await connected()
    let runs = 0
    const retryable = (error: unknown) => !(error instanceof TypeError)
    await surehop.consume<{ never: boolean }>(queue, { idempotency: inbox(), retry: { retryable } }, ({ body }) => {
      runs++
      throw body.never ? new DeadLetterNow('no such customer') : new TypeError('undefined is not a function')
    })
    for (const never of [true, false]) await surehop.producer().send(queue, { body: { never } })
    const letters = await taken(`${queue}.dead`, 2)
    const reasons = letters.map(
      ({ properties }) => `${properties.headers![HEADER.reason]}: ${properties.headers![HEADER.errorMessage]}`,
    )
    expect(reasons.sort()).to.deep.equal([
      'error is not retryable: undefined is not a function',
      'refused by the handler: no such customer',
    ])
    expect(runs).to.equal(2)
  })

  it('gives up when the next attempt would come later than maxAgeMs after the first failure', async () => {
    const queue = uniqueQueue()
    const surehop = await connected()
    let runs = 0
    await surehop.consume(
      queue,
      { idempotency: inbox(), retry: { attempts: 1_000, maxAgeMs: 1_000, backoff: fixed({ delayMs: 300 }) } },
      () => {
        runs++
        throw new Error('boom')
      },
    )
    await surehop.producer().send(queue, { body: {} })
    const [letter] = await taken(`${queue}.dead`)
    expect(letter!.properties.headers![HEADER.reason]).to.equal('still failing 1000 ms after its first failure')
    expect(runs).to.be.within(2, 4)
  })

  // P15: neither a synchronous throw nor a rejection may close the channel or end the process.
  it('keeps its channel through handlers that throw at once, reject, and throw undefined', async () => {
    const queue = uniqueQueue()
    const surehop = await connected()
    const states = new Tally<string>()
    const stop = onEvent('consumer.state', (data) => data.queue === queue && states.add(data.to))
    await surehop.consume<number>(queue, { retry: { attempts: 1 } }, ({ body }) => {
      if (body === 0) throw new Error('at once')
      return Promise.reject(body === 1 ? new Error('later') : undefined)
    })
    for (const body of [0, 1, 2]) await surehop.producer().send(queue, { body })
    const letters = await taken(`${queue}.dead`, 3)
    stop()
    const types = letters.map(({ properties }) => properties.headers![HEADER.errorType] ?? 'none')
    expect(types.sort()).to.deep.equal(['Error', 'Error', 'none'])
    expect(states.seen).to.deep.equal(['consuming'])
  })

  it('fails an attempt that outlasts handlerTimeoutMs, and tells the handler by its signal', async () => {
    const queue = uniqueQueue()
    const surehop = await connected()
    const reasons = new Tally<string>()
    await surehop.consume(
      queue,
      { idempotency: inbox(), handlerTimeoutMs: 100, retry: { attempts: 2, backoff: QUICK } },
      (_, { signal }) => {
        return new Promise((_, reject) => {
          signal.addEventListener('abort', () => {
            reasons.add((signal.reason as Error).name)
            reject(signal.reason)
          })
        })
      },
    )
    await surehop.producer().send(queue, { body: {} })
    const [letter] = await taken(`${queue}.dead`)
    expect(reasons.seen).to.deep.equal(['HandlerTimeout', 'HandlerTimeout'])
    expect(letter!.properties.headers![HEADER.errorType]).to.equal('HandlerTimeout')
  })
})

describe('consumer: order', function () {
  this.timeout(60_000)
  afterEach(closeAll)

  it('runs the messages of a key one after another, repeats included, and other keys meanwhile', async () => {
    const queue = uniqueQueue()
    const surehop = await connected()
    const log = new Tally<string>()
    const busy = new Set<string>()
    const overlaps: string[] = []
    const parallel = latch()
    await surehop.consume<number>(
      queue,
      { idempotency: inbox(), orderBy: 'key', concurrency: 8, prefetch: 100, retry: { attempts: 3, backoff: QUICK } },
      async ({ key, body }, { attempt }) => {
        if (busy.has(key!)) overlaps.push(`${key}${body}`)
        busy.add(key!)
        if (busy.size > 1) parallel.resolve()
        await new Promise((resolve) => setTimeout(resolve, 5))
        busy.delete(key!)
        log.add(`${key}${body}.${attempt}`)
        if (body % 3 === 0 && attempt < 3) throw new Error('not yet')
      },
    )
    const keys = ['a', 'b', 'c', 'd']
    const producer = surehop.producer()
    for (let body = 0; body < 6; body++) for (const key of keys) await producer.send(queue, { key, body })
    await log.reaches(keys.length * 10)
    await parallel.promise
    expect(overlaps).to.deep.equal([])
    for (const key of keys) {
      const expected = ['0.1', '0.2', '0.3', '1.1', '2.1', '3.1', '3.2', '3.3', '4.1', '5.1'].map((run) => key + run)
      expect(log.seen.filter((run) => run.startsWith(key))).to.deep.equal(expected)
    }
    await nothingLeft(queue)
  })

  it('lends the slot of a message that waits for its repeat to other keys', async () => {
    const queue = uniqueQueue()
    const surehop = await connected()
    const log = new Tally<string>()
    await surehop.consume(
      queue,
      { orderBy: 'key', concurrency: 1, prefetch: 10, retry: { attempts: 2, backoff: fixed({ delayMs: 800 }) } },
      ({ key }, { attempt }) => {
        log.add(`${key}${attempt}`)
        if (key === 'a' && attempt === 1) throw new Error('not yet')
      },
    )
    for (const key of ['a', 'b', 'c']) await surehop.producer().send(queue, { key, body: {} })
    expect(await log.reaches(4)).to.deep.equal(['a1', 'b1', 'c1', 'a2'])
  })

  it('lets any number of messages wait in place without a warning of a leak', async () => {
    const queue = uniqueQueue()
    const surehop = await connected()
    const warnings: string[] = []
    const note = ({ name }: Error) => void warnings.push(name)
    process.on('warning', note)
    const log = new Tally<number>()
    const retry = { attempts: 2, backoff: fixed({ delayMs: 1_000 }) }
    await surehop.consume(queue, { orderBy: ({ messageId }) => messageId, prefetch: 60, retry }, (_, { attempt }) => {
      log.add(attempt)
      if (attempt === 1) throw new Error('not yet')
    })
    await surehop.producer().publishMany(
      '',
      Array.from({ length: 50 }, (_, body) => ({ routingKey: queue, body })),
    )
    await log.reaches(100)
    process.off('warning', note)
    expect(warnings).to.deep.equal([])
  })

  it('lets the next message of a key pass when one is dead-lettered', async () => {
    const queue = uniqueQueue()
    const surehop = await connected()
    const log = new Tally<number>()
    await surehop.consume<number>(
      queue,
      { idempotency: inbox(), orderBy: () => 'all', retry: { attempts: 2, backoff: QUICK } },
      ({ body }) => {
        log.add(body)
        if (body === 1) throw new Error('boom')
      },
    )
    for (const body of [1, 2]) await surehop.producer().send(queue, { body })
    expect(await log.reaches(3)).to.deep.equal([1, 1, 2])
    await taken(`${queue}.dead`)
  })

  it('gives a repeat in place the message as it came, whatever the handler did to it', async () => {
    const queue = uniqueQueue()
    const surehop = await connected()
    const seen = new Tally<string>()
    await surehop.consume<{ n: number }>(
      queue,
      { orderBy: 'key', retry: { attempts: 2, backoff: QUICK } },
      ({ body }, { attempt }) => {
        seen.add(JSON.stringify(body))
        body.n = 99
        if (attempt === 1) throw new Error('boom')
      },
    )
    await surehop.producer().send(queue, { key: 'a', body: { n: 1 } })
    expect(await seen.reaches(2)).to.deep.equal(['{"n":1}', '{"n":1}'])
  })

  // Closing the channel, not cancelling, hands a single active consumer's messages on in order (plain cancel lets the next one overtake).
  it('hands a single active queue over in order, with nothing run twice and nothing overtaking', async () => {
    const queue = uniqueQueue()
    const [store, log] = [inbox(), new Tally<string>()]
    const options = {
      idempotency: store,
      orderBy: () => 'all',
      singleActiveConsumer: true,
      concurrency: 4,
      drainMs: 5_000,
    }
    const [first, second] = [await connected(), await connected()]
    const start = (surehop: typeof first, name: string) =>
      surehop.consume<number>(queue, options, async ({ body }) => {
        await new Promise((resolve) => setTimeout(resolve, 10))
        log.add(`${name} ${body}`)
      })
    const active = await start(first, 'first')
    await start(second, 'second')
    const producer = second.producer()
    await Promise.all(Array.from({ length: 40 }, (_, body) => producer.send(queue, { body })))
    await log.reaches(10)
    await active.close()
    const all = await log.reaches(40)
    expect(all.map((run) => Number(run.split(' ')[1]))).to.deep.equal(Array.from({ length: 40 }, (_, n) => n))
    expect(all.at(-1)).to.match(/^second/)
    await nothingLeft(queue)
  })

  it('hands a message that waits for its repeat in place back when it closes, and lets nothing of its key overtake it', async () => {
    const queue = uniqueQueue()
    const [store, log] = [inbox(), [] as string[]]
    const options = {
      idempotency: store,
      orderBy: () => 'all',
      retry: { attempts: 3, backoff: fixed({ delayMs: 20_000 }) },
    }
    const surehop = await connected()
    const failed = event('message.retried', (data) => data.queue === queue)
    const consumer = await surehop.consume<number>(queue, options, ({ body }, { attempt }) => {
      log.push(`${body}.${attempt}`)
      throw new Error('boom')
    })
    for (const body of [1, 2]) await surehop.producer().send(queue, { body })
    await failed
    const began = performance.now()
    await consumer.close()
    expect(performance.now() - began, 'far from the 20 s of the repeat').to.be.below(10_000)
    expect(log).to.deep.equal(['1.1'])
    const rest = await taken(queue, 2)
    expect(rest.map(({ content }) => content.toString()).sort()).to.deep.equal(['1', '2'])
  })
})
