import { expect } from 'chai'
import { ConnectionRefused, type PublishFailed } from '../../lib/errors.ts'
import type { Producer } from '../../lib/producer/producer.ts'
import { failure, wiring } from '../connection/wiring.ts'
import { eventOf, eventually } from '../support/eventually.ts'
import { startRabbitMq } from '../support/services.ts'
import { unique } from '../support/unique.ts'

const body = { amount: 1 }

describe('publish, when the network fails', () => {
  const wired = wiring()

  it('P6: repeats with the same id what had no answer when the connection was cut, and every confirmed message is there', async () => {
    const { proxy, surehop } = await wired.behindProxy()
    const queue = await wired.queue()
    const producer = surehop.producer()
    await producer.send(queue, { body })
    proxy.stall('to-client')
    const sent = Array.from({ length: 300 }, (_, i) => producer.send(queue, { body, messageId: `m${i}` }))
    await eventually(async () => expect(await wired.depth(queue)).equal(301))
    proxy.cut()
    await proxy.resume()
    const receipts = await Promise.all(sent)
    expect(receipts.every(({ sends }) => sends === 2)).equal(true)
    const copies = (await wired.take(queue)).map(({ id }) => id).slice(1)
    expect(copies).length(600)
    expect(new Set(copies).size).equal(300)
  })

  it('cut again and again while publishing, loses nothing that was confirmed', async () => {
    const { proxy, surehop } = await wired.behindProxy()
    const queue = await wired.queue()
    const exchange = await wired.exchange([queue])
    const producer = surehop.producer({ windowMessages: 50 })
    const ends: Promise<string>[] = []
    for (let cut = 0; cut < 6; cut++) {
      for (let i = 0; i < 100; i++) ends.push(producer.publish(exchange, { body }).then((receipt) => receipt.messageId))
      const answer = eventOf(proxy, 'data', { where: (way: string) => way === 'to-client' })
      await ends[ends.length - 100]
      await answer
      proxy.cut(cut % 2 ? 'rst' : 'fin')
    }
    const confirmed = await Promise.all(ends)
    const stored = new Set((await wired.take(queue)).map(({ id }) => id))
    expect(confirmed.filter((id) => !stored.has(id))).empty
  })

  it('P6: a publish without an answer ends as unknown at its deadline, with the ids to repeat it', async () => {
    const { proxy, surehop } = await wired.behindProxy()
    const queue = await wired.queue()
    const producer = surehop.producer()
    await producer.send(queue, { body })
    proxy.stall('to-client')
    const of = { body, messageId: 'payment-1', transactionId: 'order-1' }
    const error = await failure<PublishFailed>(producer.send(queue, of, { deadlineMs: 300 }))
    expect(error).include({ outcome: 'unknown', retryable: true, messageId: 'payment-1', transactionId: 'order-1' })
    expect(error.message).contain('It may be stored. Repeat it with the same messageId')
    await eventually(async () => expect(await wired.depth(queue)).equal(2))
    await proxy.resume()
    await producer.send(queue, of)
  })

  for (const [what, options] of Object.entries({
    'to a queue': {},
    'to an exchange': { exchange: true },
    'with a delay': { delayMs: 1_000 },
  }))
    it(`waits for the broker no longer than its deadline: ${what}`, async () => {
      const { proxy, surehop } = await wired.behindProxy()
      const queue = await wired.queue()
      const exchange = 'exchange' in options ? await wired.exchange([queue]) : ''
      const message = { body, routingKey: queue, ...('delayMs' in options ? { delayMs: options.delayMs } : {}) }
      const producer = surehop.producer()
      const lost = wired.event('connection.state', ({ to }) => to === 'connecting')
      await proxy.refuse()
      proxy.cut()
      await lost
      const started = performance.now()
      const error = await failure<PublishFailed>(producer.publish(exchange, message, { deadlineMs: 300 }))
      expect(performance.now() - started).within(295, 10_000)
      expect(error).include({ outcome: 'not-sent', retryable: true, sends: 0 })
      expect(error.message).match(/the deadline passed after \d+ ms.*(ECONNREFUSED|connection|delay queues)/)
      const aborting = new AbortController()
      const aborted = failure<PublishFailed>(producer.publish(exchange, message, { signal: aborting.signal }))
      aborting.abort()
      expect(await aborted).include({ outcome: 'not-sent', retryable: true })
      const patient = producer.publish(exchange, message)
      await proxy.accept()
      expect((await patient).outcome).equal('confirmed')
    })

  it('P5: while disconnected holds no more than maxWaiting, to an exchange too, and sends it in order afterwards', async () => {
    const { proxy, surehop } = await wired.behindProxy()
    const queue = await wired.queue()
    const exchange = await wired.exchange([queue])
    const producer = surehop.producer({ maxWaiting: 100 })
    await producer.publish(exchange, { body })
    const lost = wired.event('connection.state', ({ to }) => to === 'connecting')
    await proxy.refuse()
    proxy.cut()
    await lost
    const held = Array.from({ length: 100 }, () => producer.publish(exchange, { body }))
    expect(await failure(producer.publish(exchange, { body }))).include({ outcome: 'not-sent', retryable: true })
    await proxy.accept()
    const ids = (await Promise.all(held)).map(({ messageId }) => messageId)
    expect((await wired.take(queue)).map(({ id }) => id).slice(1)).deep.equal(ids)
  })

  it('asks the broker for each exchange once, however many publishes wait for the answer', async () => {
    const { proxy, surehop } = await wired.behindProxy()
    const queue = await wired.queue()
    const exchange = await wired.exchange([queue])
    const producer = surehop.producer()
    await producer.send(queue, { body })
    const asked: Buffer[] = []
    proxy.on('data', (way, bytes) => way === 'to-server' && asked.push(bytes))
    await Promise.all(Array.from({ length: 500 }, () => producer.publish(exchange, { body })))
    // exchange.declare: a method frame of class 40, method 10.
    const declare = Buffer.from([0, 40, 0, 10])
    expect(Buffer.concat(asked).toString('latin1').split(declare.toString('latin1'))).length(2)
  })

  it('P3: a channel that dies alone is replaced, its connection stays, and publishes go on', async () => {
    const surehop = await wired.surehop()
    const queue = await wired.queue()
    const exchange = await wired.exchange([queue])
    const producer = surehop.producer()
    await producer.publish(exchange, { body })
    const connections = wired.record('connection.state')
    const lost = wired.event('channel.state', ({ from }) => from === 'open')
    await wired.raw((channel) => channel.deleteExchange(exchange))
    await failure(producer.publish(exchange, { body }))
    expect((await lost).error?.message).contain('NOT_FOUND')
    expect((await producer.send(queue, { body })).outcome).equal('confirmed')
    expect(connections.map(({ from, to, error }) => `${from} ${to}: ${error?.message}`)).deep.equal([])
    expect(surehop.health().healthy).equal(true)
  })

  it('P9: a full write buffer is no failure: thousands at once are confirmed, each once', async () => {
    const surehop = await wired.surehop()
    const queue = await wired.queue()
    const producer = surehop.producer({ windowMessages: 10_000 })
    const body = Buffer.alloc(3_000)
    const receipts = await Promise.all(Array.from({ length: 3_000 }, () => producer.send(queue, { body })))
    expect(receipts.every(({ sends }) => sends === 1)).equal(true)
    expect(await wired.take(queue)).length(3_000)
  })

  it('starts with a broker that is not there yet for a moment', async () => {
    const { proxy, surehop } = await wired.behindProxy()
    const queue = await wired.queue()
    proxy.cut()
    const producer = surehop.producer()
    proxy.cut()
    expect((await producer.send(queue, { body })).outcome).equal('confirmed')
  })
})

describe('publish, when the broker fails', () => {
  const wired = wiring(startRabbitMq)

  it('waits while the broker blocks publishers over memory, says so, and goes on afterwards', async () => {
    const surehop = await wired.surehop()
    const queue = await wired.queue()
    const producer = surehop.producer()
    await producer.send(queue, { body })
    await wired.broker.ctl('set_vm_memory_high_watermark', '0.000001')
    const blocked = wired.event('connection.blocked')
    const first = producer.send(queue, { body })
    expect((await blocked).reason).contain('memory')
    expect(surehop.health().reasons.join()).contain('blocked by the broker')
    const late = await failure<PublishFailed>(producer.send(queue, { body }, { deadlineMs: 200 }))
    expect(late).include({ outcome: 'not-sent', retryable: true })
    expect(late.message).contain('blocked by the broker')
    const other = await failure<PublishFailed>(producer.publish('amq.topic', { body }, { deadlineMs: 200 }))
    expect(other.outcome).equal('not-sent')
    const patient = producer.send(queue, { body })
    const unblocked = wired.event('connection.unblocked')
    await wired.broker.ctl('set_vm_memory_high_watermark', '0.6')
    await unblocked
    await Promise.all([first, patient])
    expect(surehop.health()).deep.equal({ healthy: true, reasons: [] })
    expect(await wired.depth(queue)).equal(3)
  })

  it('a queue that was full takes again once its limit is gone, within the deadline: a broker that does not say so is asked on a new channel', async function () {
    this.timeout(60_000)
    const surehop = await wired.surehop()
    const queue = await wired.queue({ 'x-overflow': 'reject-publish' })
    const producer = surehop.producer({ deadlineMs: 30_000 })
    const policy = `full-${queue}`
    await wired.broker.ctl('set_policy', policy, `^${queue}$`, '{"max-length": 3}', '--apply-to', 'queues')
    // The limit is in force once a publish is refused.
    await eventually(
      async () =>
        expect((await failure<PublishFailed>(producer.send(queue, { body }, { deadlineMs: 300 }))).outcome).equal(
          'nacked',
        ),
      { withinMs: 20_000 },
    )
    const patient = producer.send(queue, { body })
    await wired.broker.ctl('clear_policy', policy)
    expect((await patient).outcome).equal('confirmed')
  })

  it('close() ends within its drain time while the broker blocks', async () => {
    const surehop = await wired.surehop({ drainMs: 200 })
    const queue = await wired.queue()
    const producer = surehop.producer()
    await producer.send(queue, { body })
    await wired.broker.ctl('set_vm_memory_high_watermark', '0.000001')
    wired.later(() => wired.broker.ctl('set_vm_memory_high_watermark', '0.6'))
    const blocked = wired.event('connection.blocked')
    const open = [failure(producer.send(queue, { body })), blocked.then(() => failure(producer.send(queue, { body })))]
    await blocked
    const started = performance.now()
    await surehop.close()
    expect(performance.now() - started).below(3_000)
    expect((await Promise.all(open)).map((error) => (error as PublishFailed).outcome)).deep.equal([
      'unknown',
      'not-sent',
    ])
  })

  it('a broker killed in mid-flow and restarted has every confirmed message', async function () {
    this.timeout(60_000)
    const surehop = await wired.surehop()
    const queue = await wired.queue()
    const producer = surehop.producer({ windowMessages: 200 })
    const confirmed: string[] = []
    const flow = keepPublishing(producer, queue, confirmed)
    await eventually(() => confirmed.length > 500)
    await wired.broker.kill9()
    await wired.broker.start()
    const before = confirmed.length
    await eventually(() => confirmed.length > before + 500, { withinMs: 30_000 })
    const { failed, sent } = await flow.end()
    expect(failed).empty
    const stored = (await wired.take(queue)).map(({ id }) => id)
    const ids = new Set(stored)
    expect(confirmed.filter((id) => !ids.has(id))).empty
    expect(ids.size).equal(sent)
  })

  it('a password rotated while it runs ends it with the reason, at once for everything that waits', async function () {
    this.timeout(60_000)
    const user = unique('user')
    await wired.broker.ctl('add_user', user, 'first')
    await wired.broker.ctl('set_permissions', user, '.*', '.*', '.*')
    const url = wired.broker.url.replace('guest:guest', `${user}:first`)
    const surehop = await wired.surehop({ amqp: url, reconnectBaseMs: 5, reconnectCapMs: 20 })
    const queue = await wired.queue()
    const producer = surehop.producer()
    await producer.send(queue, { body })
    const failed = wired.event('connection.state', ({ to }) => to === 'failed')
    const lost = wired.event('connection.state', ({ from }) => from === 'open')
    await wired.broker.ctl('change_password', user, 'second')
    await wired.broker.ctl('close_all_user_connections', user, 'rotated')
    await lost
    const waiting = failure<PublishFailed>(producer.send(queue, { body }))
    expect((await failed).error?.message).contain('refused the user name or password')
    expect(await waiting).include({ outcome: 'not-sent', retryable: false })
    expect((await waiting).cause).instanceOf(ConnectionRefused)
    expect(await failure(producer.send(queue, { body }))).include({ outcome: 'not-sent' })
    const { healthy, reasons } = surehop.health()
    expect(healthy).equal(false)
    expect(reasons.join()).contain('refused the user name or password').and.not.contain('first')
  })
})

/** Publishes 50 at a time until told to end. */
function keepPublishing(producer: Producer, queue: string, confirmed: string[]) {
  const failed: unknown[] = []
  let [sent, ending] = [0, false]
  const one = async (): Promise<void> => {
    while (!ending) {
      sent++
      await producer.send(queue, { body }).then(
        ({ messageId }) => confirmed.push(messageId),
        (error) => failed.push(error),
      )
    }
  }
  const all = Array.from({ length: 50 }, one)
  const end = async () => {
    ending = true
    await Promise.all(all)
    return { failed, sent }
  }
  return { end }
}
