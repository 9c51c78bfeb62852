import { getEventListeners } from 'node:events'
import { expect } from 'chai'
import { z } from 'zod'
import { Connection } from '../../lib/connection/connection.ts'
import { pause } from '../../lib/deadline.ts'
import { InvalidOption, MessageInvalid, PermissionRefused, PublishFailed, ResourceMissing } from '../../lib/errors.ts'
import { HEADER, type OutgoingMessage } from '../../lib/message.ts'
import { Events } from '../../lib/observability/events.ts'
import { Publisher } from '../../lib/producer/publisher.ts'
import { administered, failure, wiring } from '../connection/wiring.ts'
import { eventually, within } from '../support/eventually.ts'
import { unique } from '../support/unique.ts'

function aborter(): { readonly signal: AbortSignal; readonly abort: () => void } {
  const controller = new AbortController()
  return { signal: controller.signal, abort: () => controller.abort() }
}

describe('publish', () => {
  const wired = wiring()
  const body = { amount: 1 }

  it('resolves when the message is in the queue', async () => {
    const queue = await wired.queue()
    const exchange = await wired.exchange([queue])
    const producer = (await wired.surehop()).producer()
    const direct = await producer.send(queue, { body, messageId: 'first', transactionId: 't' })
    const routed = await producer.publish(exchange, { body, type: 'order.placed' })
    expect(direct).deep.equal({ outcome: 'confirmed', messageId: 'first', transactionId: 't', sends: 1 })
    expect((await wired.take(queue)).map(({ id }) => id)).deep.equal(['first', routed.messageId])
  })

  it('P8: fails as returned when no queue takes the message, also among a thousand that are taken', async () => {
    const queue = await wired.queue()
    const producer = (await wired.surehop()).producer()
    const targets = Array.from({ length: 1_000 }, (_, i) => (i % 2 ? queue : unique('nobody')))
    const ends = await Promise.allSettled(targets.map((target) => producer.send(target, { body })))
    expect(ends.filter((end, i) => (end.status === 'fulfilled') !== (targets[i] === queue))).empty
    const [{ reason }] = ends as PromiseRejectedResult[] as [PromiseRejectedResult]
    expect(reason).instanceOf(PublishFailed).include({ outcome: 'returned', retryable: false, sends: 1 })
    expect(reason.message).contain('312 NO_ROUTE').contain('mandatory: false')
  })

  it('P8: matches a return with its message whatever the id is', async () => {
    const producer = (await wired.surehop()).producer()
    for (const messageId of ['x'.repeat(255), '\u{1F600}', '\0', '__proto__', ' '])
      expect(await failure(producer.send(unique('nobody'), { body, messageId }))).include({
        outcome: 'returned',
        messageId,
      })
  })

  it('P8: tells a return by what it has sent itself, whatever a row or a half message was forged to say', async () => {
    const queue = await wired.queue()
    const times = { heartbeatSeconds: 10, handshakeTimeoutMs: 5_000, rpcTimeoutMs: 5_000 }
    const pauses = { reconnectBaseMs: 20, reconnectCapMs: 100 }
    const of = { urls: [wired.broker.url], role: 'test', service: 'test', events: new Events(unique('instance')) }
    const connection = new Connection({ ...of, ...times, ...pauses })
    wired.later(() => connection.close())
    const publisher = new Publisher(connection, { windowMessages: 10, windowBytes: 1_000, maxWaiting: 10 })
    const publish = (messageId: string, routingKey: string, headers: Record<string, unknown>) => {
      const ids = { messageId, transactionId: messageId }
      const properties = { messageId, headers }
      const message = { ...ids, exchange: '', routingKey, content: Buffer.from('1'), properties }
      return publisher.publish(message, { mandatory: true, deadlineMs: 5_000 })
    }
    const forged = failure(publish('forged', unique('nobody'), { [HEADER.publishId]: 'neighbour' }))
    const neighbour = publish('neighbour', queue, {})
    expect(await forged).include({ outcome: 'returned', messageId: 'forged' })
    expect(await neighbour).include({ outcome: 'confirmed', sends: 1 })
    await publisher.close(0)
  })

  it('lets an event go that nobody needs, when asked to', async () => {
    const exchange = await wired.exchange()
    const surehop = await wired.surehop()
    const { outcome } = await surehop.producer().publish(exchange, { body }, { mandatory: false })
    expect(outcome).equal('confirmed')
    expect((await surehop.producer({ mandatory: false }).publish(exchange, { body })).outcome).equal('confirmed')
  })

  it('headers larger than the broker’s frames fail their own message only, and the connection lives', async () => {
    const queue = await wired.queue()
    const url = new URL(wired.broker.url)
    url.searchParams.set('frameMax', '8192')
    const producer = (await wired.surehop({ amqp: url.href })).producer()
    await producer.send(queue, { body })
    const states = wired.record('connection.state')
    const [good, bad, listed, more] = [
      producer.send(queue, { body, headers: { note: 'x'.repeat(7_000) } }),
      failure(producer.send(queue, { body, headers: { note: 'x'.repeat(9_000) } })),
      failure(producer.send(queue, { body, headers: { notes: ['x'.repeat(9_000)] } })),
      producer.send(queue, { body: Buffer.alloc(30_000) }),
    ]
    for (const error of await Promise.all([bad, listed]))
      expect(error)
        .include({ outcome: 'not-sent', retryable: false, sends: 0 })
        .property('message')
        .contain('frame_max')
    expect(await Promise.all([good, more])).to.have.length(2)
    expect(states).empty
  })

  it('names what the broker cannot be asked for an exchange with, where a connection may have one channel only', async () => {
    const url = new URL(wired.broker.url)
    url.searchParams.set('channelMax', '1')
    const surehop = await wired.surehop({ amqp: url.href })
    const late = failure(surehop.producer({ deadlineMs: 1_500 }).publish('amq.topic', { body }, { mandatory: false }))
    await eventually(() => expect(surehop.health().reasons.join()).contain('all channels of its connection are taken'))
    expect(await late)
      .include({ outcome: 'not-sent', retryable: true })
      .property('message')
      .contain('exchange "amq.topic"')
      .contain('channel_max')
    expect(surehop.health().healthy).equal(true)
  })

  it('a missing exchange fails its own messages only', async () => {
    const queue = await wired.queue()
    const producer = (await wired.surehop()).producer()
    const lost = wired.record('channel.state')
    const missing = unique('missing')
    const good = Array.from({ length: 200 }, () => producer.send(queue, { body }))
    const bad = [failure(producer.publish(missing, { body })), failure(producer.publish(missing, { body }))]
    const more = Array.from({ length: 200 }, () => producer.send(queue, { body }))
    for (const error of await Promise.all(bad)) {
      expect(error).include({ outcome: 'not-sent', retryable: false, sends: 0 })
      expect(error.cause).instanceOf(ResourceMissing)
      expect(error.message).contain(`exchange "${missing}" does not exist`)
    }
    for (const { sends } of await Promise.all([...good, ...more])) expect(sends).equal(1)
    expect(lost.filter(({ from }) => from === 'open')).empty
  })

  it('a missing exchange whose name the broker cannot even complain about costs no connection', async () => {
    const queue = await wired.queue()
    const producer = (await wired.surehop()).producer()
    await producer.send(queue, { body })
    const states = wired.record('connection.state')
    for (const [exchange, cause] of [
      ['漢'.repeat(85), MessageInvalid],
      ['é'.repeat(76), MessageInvalid],
      ['half\uD800', MessageInvalid],
      ['é'.repeat(75), ResourceMissing],
      ['e'.repeat(255), ResourceMissing],
    ] as const) {
      const error = await failure(producer.publish(exchange, { body }))
      expect(error).include({ outcome: 'not-sent', retryable: false })
      expect(error.cause, exchange).instanceOf(cause)
    }
    expect((await producer.send(queue, { body })).sends).equal(1)
    expect(states.map(({ error }) => error?.message)).deep.equal([])
  })

  it('an exchange deleted under messages in flight fails its own messages only, and soon', async () => {
    const [queue, other] = [await wired.queue(), await wired.queue()]
    const exchange = await wired.exchange([other])
    const producer = (await wired.surehop()).producer()
    await producer.publish(exchange, { body })
    const neighbours = Array.from({ length: 300 }, () => producer.send(queue, { body }))
    const doomed: Promise<unknown>[] = []
    const deleted = wired.raw((channel) => channel.deleteExchange(exchange))
    for (let i = 0; i < 300; i++) {
      doomed.push(producer.publish(exchange, { body }).catch((error) => error))
      if (i % 50 === 0) await producer.send(queue, { body })
    }
    await deleted
    await producer.publish(exchange, { body }).catch(() => {})
    await Promise.all(neighbours)
    const failed = (await Promise.all(doomed)).filter((end) => end instanceof PublishFailed)
    for (const { outcome, retryable } of failed) {
      expect(['not-sent', 'unknown', 'nacked', 'returned']).include(outcome)
      expect(retryable).equal(false)
    }
    expect(await failure(producer.publish(exchange, { body }))).include({ outcome: 'not-sent' })
    const ids = (await wired.take(queue)).map(({ id }) => id)
    const confirmed = (await Promise.all(neighbours)).map(({ messageId }) => messageId)
    expect(ids).include.members(confirmed)
  })

  it('publishes of one id at the same time end one after another, each with its own outcome', async () => {
    const queue = await wired.queue()
    const producer = (await wired.surehop()).producer()
    const ends = await Promise.allSettled([
      producer.send(queue, { body, messageId: 'same' }),
      producer.send('nobody', { body, messageId: 'same' }),
      producer.send(queue, { body, messageId: 'same' }),
      producer.publish(unique('missing'), { body, messageId: 'same' }),
    ])
    expect(ends.map((end) => (end.status === 'fulfilled' ? 'confirmed' : end.reason.outcome))).deep.equal([
      'confirmed',
      'returned',
      'confirmed',
      'not-sent',
    ])
    expect((await wired.take(queue)).map(({ id }) => id)).deep.equal(['same', 'same'])
  })

  it('keeps the order of publishing, to an exchange not yet known too', async () => {
    const queue = await wired.queue()
    const exchange = await wired.exchange([queue])
    const producer = (await wired.surehop()).producer()
    const sent = await Promise.all(Array.from({ length: 200 }, () => producer.publish(exchange, { body })))
    expect((await wired.take(queue)).map(({ id }) => id)).deep.equal(sent.map(({ messageId }) => messageId))
  })

  it('P5: has no more unanswered than the window, no more waiting than maxWaiting and maxWaitingBytes', async () => {
    const { proxy, surehop } = await wired.behindProxy()
    const queue = await wired.queue()
    const producer = surehop.producer({ windowMessages: 5, maxWaiting: 10, maxWaitingBytes: 10_000 })
    await producer.send(queue, { body })
    proxy.stall('to-client')
    const first = Array.from({ length: 15 }, () => producer.send(queue, { body }))
    const one = await failure<PublishFailed>(producer.send(queue, { body }))
    expect(one).include({ outcome: 'not-sent', retryable: true })
    expect(one.message).contain('10 publishes wait already (maxWaiting)')
    await eventually(async () => expect(await wired.depth(queue)).equal(6))
    await proxy.resume()
    await Promise.all(first)
    proxy.stall('to-client')
    const large = Array.from({ length: 6 }, () => producer.send(queue, { body: Buffer.alloc(9_000) }))
    const two = await failure(producer.send(queue, { body: Buffer.alloc(2_000) }))
    expect(two.message).contain('9000 bytes wait already (maxWaitingBytes)')
    await proxy.resume()
    await Promise.all(large)
  })

  it('sends a message larger than the window alone', async () => {
    const queue = await wired.queue()
    const producer = (await wired.surehop()).producer({ windowBytes: 1_000 })
    const sizes = [10, 5_000, 10, 900, 900, 3_000]
    await Promise.all(sizes.map((size) => producer.send(queue, { body: Buffer.alloc(size) })))
    expect((await wired.take(queue)).map((m) => m.body.length)).deep.equal(sizes)
  })

  it('ends at its signal: not sent while it waits, unknown once it was sent', async () => {
    const { proxy, surehop } = await wired.behindProxy()
    const queue = await wired.queue()
    const producer = surehop.producer({ windowMessages: 1 })
    await producer.send(queue, { body })
    const { signal } = new AbortController()
    expect(await failure(producer.send(queue, { body }, { signal: AbortSignal.abort() }))).include({
      outcome: 'not-sent',
    })
    proxy.stall('to-client')
    const aborting = new AbortController()
    const sent = failure<PublishFailed>(producer.send(queue, { body, messageId: 'sent' }, { signal: aborting.signal }))
    const waits = failure<PublishFailed>(
      producer.send(queue, { body, messageId: 'waits' }, { signal: aborting.signal }),
    )
    const after = producer.send(queue, { body, messageId: 'after' }, { signal })
    aborting.abort(new Error('the request was cancelled'))
    expect(await sent).include({ outcome: 'unknown', retryable: true, sends: 1 })
    expect((await sent).cause).include({ message: 'the request was cancelled' })
    expect(await waits).include({ outcome: 'not-sent', retryable: true, sends: 0 })
    await proxy.resume()
    await after
    expect((await wired.take(queue)).map(({ id }) => id).slice(1)).deep.equal(['sent', 'after'])
  })

  it('one signal serves many publishes without a warning, also while they are prepared, and is let go afterwards', async () => {
    const queue = await wired.queue()
    const slow = z.number().refine(async () => pause(20).then(() => true))
    const producer = (await wired.surehop()).producer({ schemas: { slow } })
    const warnings: unknown[] = []
    const warn = (warning: unknown) => warnings.push(warning)
    process.on('warning', warn)
    wired.later(() => process.off('warning', warn))
    const { signal } = new AbortController()
    for (const message of [{ body }, { body: 1, type: 'slow' }, { body, delayMs: 100 }])
      await Promise.all(Array.from({ length: 50 }, () => producer.send(queue, message, { signal })))
    await new Promise((resolve) => setImmediate(resolve))
    expect(warnings).empty
    expect(getEventListeners(signal, 'abort')).empty
  })

  it('repeats what a full queue refuses until there is room, else ends as nacked at the deadline', async () => {
    const queue = await wired.queue({ 'x-max-length': 1, 'x-overflow': 'reject-publish' })
    const producer = (await wired.surehop()).producer()
    // A deadline that passes while a repeat is on the wire ends it as unknown.
    await eventually(async () => {
      const [filled] = await producer.publishMany('', [{ body, routingKey: queue }], { deadlineMs: 1_000 })
      expect(filled?.outcome).equal('nacked')
    })
    await eventually(async () => {
      const full = await failure<PublishFailed>(producer.send(queue, { body }, { deadlineMs: 1_000 }))
      expect(full).include({ outcome: 'nacked', retryable: true })
      expect(full.sends).above(1)
      expect(full.message).contain('the queue may be full')
    })
    const refused = wired.event('publish.resent', ({ messageId }) => messageId === 'patient')
    const patient = producer.send(queue, { body, messageId: 'patient' })
    expect((await refused).outcome).equal('nacked')
    await eventually(async () => {
      await wired.take(queue)
      expect(await wired.depth(queue)).equal(0)
    })
    expect((await patient).sends).above(1)
  })

  it('tells the outcome of each message of publishMany in the order given, and never rejects for one', async () => {
    const queue = await wired.queue()
    const producer = (await wired.surehop()).producer({ windowMessages: 3, maxBodyBytes: 1_000 })
    let taken = 0
    async function* messages() {
      for (let i = 0; i < 40; i++) {
        taken++
        if (i % 10 === 1) yield { body, routingKey: 'nobody' }
        else if (i % 10 === 2) yield { body: 'x'.repeat(2_000), routingKey: queue }
        else yield { body: { i }, routingKey: queue }
      }
    }
    const results = await producer.publishMany('', messages())
    const expected = Array.from({ length: 40 }, (_, i) => ({ 1: 'returned', 2: 'not-sent' })[i % 10] ?? 'confirmed')
    expect(results.map(({ outcome }) => outcome)).deep.equal(expected)
    expect(taken).equal(40)
    const bodies = (await wired.take(queue)).map((m) => JSON.parse(String(m.body)).i)
    expect(bodies).deep.equal(bodies.toSorted((a, b) => a - b))
  })

  it('publishMany takes no more from its source than it can send', async () => {
    const { proxy, surehop } = await wired.behindProxy()
    const queue = await wired.queue()
    const producer = surehop.producer({ windowMessages: 10 })
    await producer.send(queue, { body })
    proxy.stall('to-client')
    let taken = 0
    function* endless() {
      for (; taken < 100_000; taken++) yield { body, routingKey: queue }
    }
    const results = producer.publishMany('', endless())
    await eventually(async () => expect(await wired.depth(queue)).equal(11))
    expect(taken).most(21)
    taken = 200_000
    await proxy.resume()
    expect((await results).every(({ outcome }) => outcome === 'confirmed')).equal(true)
  })

  it('publishMany asks an endless source for no more once its signal has fired or its producer is closed, and lets it clean up', async () => {
    const surehop = await wired.surehop()
    const queue = await wired.queue()
    for (const by of ['a signal', 'a close']) {
      const producer = surehop.producer()
      const enough = new AbortController()
      const end = () => (by === 'a signal' ? enough.abort() : void producer.close())
      const taken = { sync: 0, async: 0, cleaned: 0 }
      function* endless() {
        try {
          for (; taken.sync < 10_000; taken.sync++) {
            if (taken.sync === 5) end()
            yield { body, routingKey: queue }
          }
        } finally {
          taken.cleaned++
        }
      }
      async function* endlessLater() {
        try {
          for (; taken.async < 10_000; taken.async++) yield { body, routingKey: queue }
        } finally {
          taken.cleaned++
        }
      }
      const results = await producer.publishMany('', endless(), { signal: enough.signal })
      expect(taken.sync, by).equal(5)
      expect(results.at(-1), by).include({ outcome: 'not-sent' })
      expect(results, by).length(6)
      const [asked, begun] = by === 'a signal' ? [0, 1] : [1, 2]
      expect(await producer.publishMany('', endlessLater(), { signal: enough.signal }), by).length(asked)
      expect(taken.cleaned, by).equal(begun)
      // A list has an end, and whoever gave it counts on an outcome for each.
      expect(await producer.publishMany('', Array(3).fill({ body }), { signal: enough.signal }), by).length(3)
    }
  })

  it('publishMany is not kept, once its signal has fired, by a source that gives no more, nor are outcomes lost with one that fails to end', async () => {
    const queue = await wired.queue()
    const producer = (await wired.surehop()).producer()
    const broken = () => {
      throw new Error('the cursor cannot be closed')
    }
    const sources: Record<string, (end: () => void) => Iterable<OutgoingMessage> | AsyncIterable<OutgoingMessage>> = {
      async *'gives no more'(end) {
        yield { body, routingKey: queue }
        setImmediate(end)
        await new Promise(() => {})
      },
      async *'ends with the signal'(end) {
        yield { body, routingKey: queue }
        end()
        throw new Error('aborted')
      },
      async *'cannot be closed, as a generator'(end) {
        try {
          for (; ; setImmediate(end)) yield { body, routingKey: queue }
        } finally {
          broken()
        }
      },
      *'cannot be closed'(end) {
        try {
          for (; ; end()) yield { body, routingKey: queue }
        } finally {
          broken()
        }
      },
      'cannot be closed, later': (end) => ({
        [Symbol.asyncIterator]: () => ({
          next: async () => {
            setImmediate(end)
            return { done: false, value: { body, routingKey: queue } }
          },
          return: broken,
        }),
      }),
    }
    for (const [kind, source] of Object.entries(sources)) {
      const { signal, abort } = aborter()
      const results = await within(producer.publishMany('', source(abort), { signal }), { what: kind })
      expect(results.length, kind).above(0)
      expect(
        results.filter((result) => !result?.outcome),
        kind,
      ).empty
    }
  })

  it('publishMany is not kept by a source that gives no more once its producer is closed, with or without a signal', async () => {
    const queue = await wired.queue()
    const surehop = await wired.surehop()
    const silent = new ReadableStream<OutgoingMessage>({ start: (to) => to.enqueue({ body, routingKey: queue }) })
    async function* waiting() {
      yield { body, routingKey: queue }
      await new Promise(() => {})
    }
    const { signal } = new AbortController()
    const producers = [surehop.producer(), surehop.producer()]
    const confirmed = wired.record('publish.confirmed')
    const many = [producers[0]!.publishMany('', waiting()), producers[1]!.publishMany('', silent, { signal })]
    await eventually(() => expect(confirmed).length(2))
    await producers[0]!.close()
    await surehop.close()
    for (const results of await within(Promise.all(many), { what: 'publishMany()' }))
      expect(results.map(({ outcome }) => outcome)).deep.equal(['confirmed'])
    expect(getEventListeners(signal, 'abort')).empty
  })

  it('publishMany sends in the order given, and no more at a time, also what takes time to prepare', async () => {
    const queue = await wired.queue()
    const slow = z.object({ i: z.number() }).refine(async () => pause(1).then(() => true))
    const producer = (await wired.surehop()).producer({ windowMessages: 5, maxWaiting: 10, schemas: { slow } })
    const messages = Array.from({ length: 60 }, (_, i) => ({
      body: { i },
      routingKey: queue,
      ...(i % 3 === 2 ? {} : { type: 'slow' }),
    }))
    const results = await producer.publishMany('', messages)
    expect(results.filter(({ outcome }) => outcome !== 'confirmed')).deep.equal([])
    const bodies = (await wired.take(queue)).map((m) => JSON.parse(String(m.body)).i)
    expect(bodies).deep.equal(messages.map((_, i) => i))
  })

  it('publishMany waits for room where others have filled the line, by number and by bytes, and is refused nothing', async () => {
    const { proxy, surehop } = await wired.behindProxy()
    const queue = await wired.queue()
    const producer = surehop.producer({ windowMessages: 5, maxWaiting: 10, maxWaitingBytes: 10_000 })
    await producer.send(queue, { body })
    proxy.stall('to-client')
    const others = Array.from({ length: 15 }, () => producer.send(queue, { body }))
    const many = producer.publishMany('', [
      { body, routingKey: queue },
      ...Array.from({ length: 20 }, () => ({ body: Buffer.alloc(4_000), routingKey: queue })),
    ])
    await eventually(async () => expect(await wired.depth(queue)).equal(6))
    const gone = AbortSignal.abort(new Error('enough'))
    const [aborted] = await producer.publishMany('', [{ body, routingKey: queue }], { signal: gone })
    expect(aborted).include({ outcome: 'not-sent' })
    await proxy.resume()
    await Promise.all(others)
    expect((await many).filter(({ outcome }) => outcome !== 'confirmed')).deep.equal([])
  })

  it('publishMany hands on a mistake in the options and in the source, with nothing left unhandled', async () => {
    const producer = (await wired.surehop()).producer()
    const wrong = { deadlineMs: -1 }
    expect(await failure(producer.publishMany('', [{ body }, { body }], wrong))).instanceOf(InvalidOption)
    async function* broken() {
      yield { body, routingKey: 'nobody' }
      throw new Error('the cursor was closed')
    }
    expect(await failure(producer.publishMany('', broken()))).include({ message: 'the cursor was closed' })
  })

  it('refuses a body that its schema does not take, and sends what the schema makes of it', async () => {
    const queue = await wired.queue()
    const order = z.object({ lines: z.array(z.object({ quantity: z.number().default(1) })) })
    const producer = (await wired.surehop()).producer({ schemas: { order } })
    const error = await failure<PublishFailed>(
      producer.send(queue, { type: 'order', body: { lines: [{ quantity: 'x' }] } }),
    )
    expect(error).include({ outcome: 'not-sent', retryable: false })
    expect(error.cause).instanceOf(MessageInvalid).include({ path: 'body.lines[0].quantity' })
    await producer.send(queue, { type: 'order', body: { lines: [{}] } })
    await producer.send(queue, { type: 'constructor', body })
    const [first] = await wired.take(queue)
    expect(JSON.parse(String(first?.body))).deep.equal({ lines: [{ quantity: 1 }] })
  })

  it('waits for a schema that never answers no longer than its deadline and its signal', async () => {
    const mute = { '~standard': { version: 1, vendor: 'test', validate: () => new Promise<never>(() => {}) } } as const
    const producer = (await wired.surehop()).producer({ schemas: { mute } })
    const late = await failure<PublishFailed>(producer.send('q', { body, type: 'mute' }, { deadlineMs: 50 }))
    expect(late).include({ outcome: 'not-sent', retryable: true })
    expect(late.message).contain('the deadline passed after 50 ms while its schema checked it')
    const abort = new AbortController()
    const waiting = failure<PublishFailed>(producer.send('q', { body, type: 'mute' }, { signal: abort.signal }))
    abort.abort(new Error('enough'))
    expect((await waiting).message).contain('its signal was aborted')
  })

  it('P4: refuses what cannot be encoded, and its neighbours are confirmed', async () => {
    const queue = await wired.queue()
    const producer = (await wired.surehop()).producer({ maxBodyBytes: 10_000 })
    const good = Array.from({ length: 20 }, () => producer.send(queue, { body }))
    const bad = [
      { body: Buffer.alloc(10_001) },
      { body, headers: { big: 'x'.repeat(61 * 1024) } },
      { body, headers: { odd: (() => {}) as unknown as string } },
      { body, headers: { odd: Number.POSITIVE_INFINITY } },
      { body, messageId: 'a\uD800' },
      { body: undefined },
    ]
    for (const message of bad) expect(await failure(producer.send(queue, message))).include({ outcome: 'not-sent' })
    const edge = {
      body,
      headers: { big: 'x'.repeat(60 * 1024 - 100) },
      key: 'k'.repeat(255),
      messageId: 'm'.repeat(255),
    }
    await producer.send(queue, edge)
    await Promise.all(good)
    expect(await wired.depth(queue)).equal(21)
  })

  it('rejects, never throws, for a wrong target or option', async () => {
    const producer = (await wired.surehop()).producer()
    expect(await failure(producer.send('', { body }))).instanceOf(InvalidOption)
    expect(await failure(producer.send('q'.repeat(256), { body }))).instanceOf(InvalidOption)
    expect(await failure(producer.publish(7 as unknown as string, { body }))).instanceOf(InvalidOption)
    const typo = { mandatary: true } as object
    expect((await failure(producer.publish('', { body }, typo))).message).contain('did you mean "mandatory"?')
    expect(await failure(producer.send('q', { body }, { deadlineMs: 0 }))).include({ outcome: 'not-sent' })
  })

  it('P7: close() sends what was taken before it, and takes no more', async () => {
    const queue = await wired.queue()
    const exchange = await wired.exchange([queue])
    const surehop = await wired.surehop()
    const slow = {
      '~standard': { version: 1, vendor: 'test', validate: async (value: unknown) => ({ value }) },
    } as const
    const producer = surehop.producer({ schemas: { checked: slow } })
    const taken = [
      ...Array.from({ length: 200 }, () => producer.send(queue, { body })),
      producer.publish(exchange, { body, type: 'checked' }),
      producer.publish(exchange, { body, delayMs: 100, type: 'later' }),
    ]
    await surehop.close()
    const late = await failure<PublishFailed>(producer.send(queue, { body }))
    expect((await Promise.all(taken)).every(({ outcome }) => outcome === 'confirmed')).equal(true)
    expect(late).include({ outcome: 'not-sent', retryable: false })
    expect(late.message).contain('the producer is closed')
    await eventually(async () => expect(await wired.depth(queue)).equal(202))
  })

  it('P7: what is not ready to be sent when close() has waited long enough ends as not sent', async () => {
    const queue = await wired.queue()
    let pass: (() => void) | undefined
    const validate = (value: unknown) => new Promise<{ value: unknown }>((done) => (pass = () => done({ value })))
    const slow = { '~standard': { version: 1, vendor: 'test', validate } } as const
    const producer = (await wired.surehop({ drainMs: 50 })).producer({ schemas: { slow } })
    await producer.send(queue, { body })
    const taken = failure<PublishFailed>(producer.send(queue, { body, type: 'slow' }, { deadlineMs: 60_000 }))
    await producer.close()
    pass?.()
    expect(await taken).include({ outcome: 'not-sent', retryable: true })
    expect((await taken).message).contain('the producer was closed')
  })

  it('close() of one producer sends what it took, and leaves the others and the health as they were', async () => {
    const queue = await wired.queue()
    const surehop = await wired.surehop()
    const [one, other] = [surehop.producer(), surehop.producer()]
    const taken = Array.from({ length: 50 }, () => one.send(queue, { body }))
    await Promise.all([one.close(), one.close()])
    expect((await Promise.all(taken)).every(({ outcome }) => outcome === 'confirmed')).equal(true)
    expect(await failure(one.send(queue, { body }))).include({ outcome: 'not-sent', retryable: false })
    expect((await other.send(queue, { body })).outcome).equal('confirmed')
    expect(surehop.health()).deep.equal({ healthy: true, reasons: [] })
  })
})

describe('publish without permission', () => {
  const wired = wiring(administered)
  const body = { amount: 1 }

  it('an exchange without permission fails its own messages only', async () => {
    const queue = await wired.queue()
    const forbidden = await wired.exchange([queue])
    const user = await newUser('.*', `^(?!${forbidden}).*`)
    const producer = (await wired.surehop({ amqp: user.url })).producer()
    const good = Array.from({ length: 100 }, () => producer.send(queue, { body }))
    const bad = await Promise.all([1, 2, 3].map(() => failure<PublishFailed>(producer.publish(forbidden, { body }))))
    for (const error of bad) {
      expect(['nacked', 'unknown', 'not-sent']).include(error.outcome)
      expect(error.retryable).equal(false)
      expect(error.cause).instanceOf(PermissionRefused)
      expect(error.message).contain(forbidden)
    }
    for (const receipt of await Promise.all(good)) expect(receipt.outcome).equal('confirmed')
    expect(await failure(producer.publish(forbidden, { body }))).include({ outcome: 'not-sent', retryable: false })
    expect((await producer.send(queue, { body })).sends).equal(1)
  })

  it('a message the broker closes the channel over fails alone', async () => {
    const queue = await wired.queue()
    const exchange = await wired.exchange([queue])
    const user = await newUser('.*', '.*')
    await wired.broker.ctl('set_topic_permissions', user.name, exchange, '^good', '.*')
    const producer = (await wired.surehop({ amqp: user.url })).producer()
    const good = Array.from({ length: 50 }, () => producer.publish(exchange, { body, type: 'good.one' }))
    const bad = failure<PublishFailed>(producer.publish(exchange, { body, type: 'bad.one' }))
    const more = Array.from({ length: 50 }, () => producer.publish(exchange, { body, type: 'good.two' }))
    expect((await bad).message).contain('refused')
    expect(await bad).include({ retryable: false })
    expect((await Promise.all([...good, ...more])).every(({ outcome }) => outcome === 'confirmed')).equal(true)
  })

  async function newUser(configure: string, write: string): Promise<{ name: string; url: string }> {
    const name = unique('user')
    await wired.broker.ctl('add_user', name, 'secret')
    await wired.broker.ctl('set_permissions', name, configure, write, '.*')
    wired.later(() => wired.broker.ctl('delete_user', name))
    return { name, url: wired.broker.url.replace('guest:guest', `${name}:secret`) }
  }
})
