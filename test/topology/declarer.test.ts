import { expect } from 'chai'
import { PermissionRefused, ResourceMissing, TopologyInvalid, TopologyMismatch } from '../../lib/errors.ts'
import { administered, failure, wiring } from '../connection/wiring.ts'
import { unique, uniqueExchange, uniqueQueue } from '../support/unique.ts'

const QUORUM = { 'x-queue-type': 'quorum' }

describe('declare', () => {
  const wired = wiring()

  it('makes exchanges, queues and bindings, also again where somebody deleted them, though nobody reconnects', async () => {
    const surehop = await wired.surehop()
    const [queue, exchange, inner] = [uniqueQueue(), uniqueExchange(), uniqueExchange()]
    const topology = {
      exchanges: [
        { name: exchange, type: 'topic' as const },
        { name: inner, type: 'fanout' as const },
      ],
      queues: [{ name: queue, arguments: QUORUM }],
      bindings: [
        { source: exchange, exchange: inner, routingKey: 'order.*' },
        { source: inner, queue, routingKey: '' },
      ],
    }
    await Promise.all([surehop.declare(topology), surehop.declare(topology)])
    await wired.raw((channel) => channel.deleteExchange(exchange))
    await surehop.declare(topology)
    await surehop.producer().publish(exchange, { body: 1, type: 'order.placed' })
    expect(await wired.take(queue)).length(1)
  })

  it('starts a consumer again whose exchange was deleted meanwhile, and says nothing where all is declared', async () => {
    const surehop = await wired.surehop()
    const [queue, exchange, declared] = [uniqueQueue(), uniqueExchange(), wired.record('topology.declared')]
    const consume = () => surehop.consume(queue, { bind: [{ exchange, type: 'order.*' }] }, async () => {})
    await (await consume()).close()
    await wired.raw((channel) => channel.deleteExchange(exchange))
    await (await consume()).close()
    await surehop.producer().publish(exchange, { body: 1, type: 'order.placed' })
    expect(await wired.take(queue)).length(1)
    const { length } = declared
    await surehop.producer().send(queue, { body: 1, delayMs: 100 })
    await surehop.producer().send(queue, { body: 1, delayMs: 100 })
    expect(declared.slice(length)).empty
  })

  it('names the argument and both values when a queue exists with others, and harms nobody else', async () => {
    const surehop = await wired.surehop()
    const queue = await wired.queue({ 'x-max-length': 5 })
    const [producer, states] = [surehop.producer(), wired.record('connection.state')]
    const args = { ...QUORUM, 'x-max-length': 7 }
    const error = await failure<TopologyMismatch>(surehop.declare({ queues: [{ name: queue, arguments: args }] }))
    expect(error).instanceOf(TopologyMismatch)
    expect(error).include({ resource: `queue "${queue}"`, argument: 'x-max-length', wanted: '7', actual: '5' })
    expect(error.message).contain('use another name').contain(`delete_queue ${queue}`)
    const none = await failure<TopologyMismatch>(surehop.declare({ queues: [{ name: queue, arguments: QUORUM }] }))
    expect(none).include({ argument: 'x-max-length', wanted: 'none', actual: '5' })
    expect((await producer.send(queue, { body: 1 })).outcome).equal('confirmed')
    expect(states.filter(({ from }) => from === 'open')).empty
  })

  it('names the type when an exchange exists with another', async () => {
    const surehop = await wired.surehop()
    const name = await wired.exchange([], 'fanout')
    const error = await failure<TopologyMismatch>(surehop.declare({ exchanges: [{ name, type: 'topic' }] }))
    expect(error).include({ resource: `exchange "${name}"`, argument: 'type', wanted: 'topic', actual: 'fanout' })
  })

  it('names what is missing', async () => {
    const surehop = await wired.surehop()
    const bindings = [{ source: unique('nowhere'), queue: await wired.queue(), routingKey: '#' }]
    const error = await failure<ResourceMissing>(surehop.declare({ bindings }))
    expect(error)
      .instanceOf(ResourceMissing)
      .include({ resource: `exchange "${bindings[0]?.source}"` })
  })

  it('declares nothing of a topology that runs in a circle', async () => {
    const surehop = await wired.surehop()
    const [one, two] = [uniqueQueue(), uniqueQueue()]
    const to = (name: string) => ({ ...QUORUM, 'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': name })
    const queues = [
      { name: one, arguments: to(two) },
      { name: two, arguments: to(one) },
    ]
    expect(await failure(surehop.declare({ queues }))).instanceOf(TopologyInvalid)
    expect((await failure(wired.depth(one))).message).contain('NOT_FOUND')
  })

  it('P10: declares one thing after another, and again after a reconnect', async () => {
    const { proxy, surehop } = await wired.behindProxy()
    const queues = [{ name: uniqueQueue(), arguments: QUORUM }]
    await surehop.declare({ queues })
    await wired.raw((channel) => channel.deleteQueue(queues[0]!.name))
    const lost = wired.event('connection.state', ({ from, role }) => from === 'open' && role === 'consume')
    proxy.cut()
    await lost
    const declared = wired.record('topology.declared')
    await Promise.all([surehop.declare({ queues }), surehop.declare({ queues })])
    expect(declared).length(1)
    expect(await wired.depth(queues[0]!.name)).equal(0)
  })
})

describe('declare without permission', () => {
  const wired = wiring(administered)

  it('names the resource and the permission that is refused', async () => {
    const user = unique('user')
    await wired.broker.ctl('add_user', user, 'secret')
    await wired.broker.ctl('set_permissions', user, '^$', '.*', '.*')
    wired.later(() => wired.broker.ctl('delete_user', user))
    const surehop = await wired.surehop({ amqp: wired.broker.url.replace('guest:guest', `${user}:secret`) })
    const error = await failure(surehop.declare({ queues: [{ name: 'forbidden', arguments: QUORUM }] }))
    expect(error).instanceOf(PermissionRefused)
    expect(error.message).contain(`access to queue 'forbidden'`).contain(user).contain('set_permissions')
    expect(error.message).not.contain('secret')
  })
})
