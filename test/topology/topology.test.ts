import { expect } from 'chai'
import { TopologyInvalid } from '../../lib/errors.ts'
import { arrivalAtQueue, delayTopology } from '../../lib/topology/delay.ts'
import { NO_DELIVERY_LIMIT, workQueueTopology } from '../../lib/topology/queues.ts'
import { declareSteps, EMPTY, inDeclareOrder, merge, type Queue, type Topology } from '../../lib/topology/topology.ts'

function queue(name: string, deadExchange?: string, deadKey?: string): Queue {
  const to = deadExchange === undefined ? {} : { 'x-dead-letter-exchange': deadExchange }
  return { name, arguments: { ...to, ...(deadKey === undefined ? {} : { 'x-dead-letter-routing-key': deadKey }) } }
}

const names = (topology: Topology) => inDeclareOrder(topology).map((q) => q.name)

describe('topology', () => {
  it('asks for what it has always asked for: a queue that exists with other arguments is refused by the broker', () => {
    const quorum = { 'x-queue-type': 'quorum', 'x-delivery-limit': 2_147_483_647 }
    const reliably = { 'x-dead-letter-strategy': 'at-least-once', 'x-overflow': 'reject-publish' }
    const argumentsOf = ({ queues }: Topology) => Object.fromEntries(queues.map((q) => [q.name, q.arguments]))
    expect(argumentsOf(workQueueTopology('orders'))).deep.equal({
      orders: {
        ...quorum,
        ...reliably,
        'x-delivery-limit': 20,
        'x-dead-letter-exchange': '',
        'x-dead-letter-routing-key': 'orders.dead',
      },
      'orders.dead': quorum,
      'orders.archive': { ...quorum, 'x-message-ttl': 14 * 24 * 3_600_000 },
    })
    expect(argumentsOf(delayTopology(1))).deep.equal({
      'surehop.undeliverable.dead': quorum,
      'surehop.delay.sink': { ...quorum, 'x-max-length': 1 },
      'surehop.delay.00': {
        ...quorum,
        ...reliably,
        'x-message-ttl': 100,
        'x-dead-letter-exchange': 'surehop.delay.end',
      },
      'surehop.delay.01': {
        ...quorum,
        ...reliably,
        'x-message-ttl': 200,
        'x-dead-letter-exchange': 'surehop.delay.00',
      },
    })
  })

  it('declares dead-letter targets before their sources', () => {
    const topology = { ...EMPTY, queues: [queue('work', '', 'dead'), queue('delay', '', 'work'), queue('dead')] }
    expect(names(topology)).deep.equal(['dead', 'work', 'delay'])
  })

  it('follows dead letters through exchanges bound to exchanges', () => {
    const topology: Topology = {
      exchanges: [
        { name: 'a', type: 'topic' },
        { name: 'b', type: 'topic' },
      ],
      queues: [queue('source', 'a'), queue('target')],
      bindings: [
        { source: 'a', exchange: 'b', routingKey: '#' },
        { source: 'b', queue: 'target', routingKey: '#' },
        { source: 'b', exchange: 'a', routingKey: '#' },
      ],
    }
    expect(names(topology)).deep.equal(['target', 'source'])
  })

  it('refuses a circle of dead-lettering, and names it', () => {
    const circle = { ...EMPTY, queues: [queue('work', '', 'wait'), queue('wait', '', 'work')] }
    expect(() => declareSteps(circle)).throw(TopologyInvalid, 'work -> wait -> work')
    expect(() => declareSteps({ ...EMPTY, queues: [queue('self', '', 'self')] })).throw(TopologyInvalid, 'self -> self')
    const around = {
      ...EMPTY,
      queues: [queue('work', 'x'), queue('wait', '', 'work')],
      bindings: [{ source: 'x', queue: 'wait', routingKey: '#' }],
    }
    expect(() => declareSteps(around)).throw(TopologyInvalid)
  })

  it('refuses a queue without arguments, which the broker would make a classic one', () => {
    const bare = { ...EMPTY, queues: [{ name: 'work' } as unknown as Queue] }
    expect(() => declareSteps(bare)).throw(TopologyInvalid, /queue "work": expected arguments .* got nothing; .*quorum/)
  })

  it('has no circle in what a consumer declares, and declares exchanges first, bindings last', () => {
    const whole = merge(workQueueTopology('q'), delayTopology(24), { ...EMPTY, bindings: [arrivalAtQueue('q')] })
    const order = names(whole)
    expect(order.indexOf('q.dead')).below(order.indexOf('q'))
    expect(order.indexOf('q')).below(order.indexOf('surehop.delay.00'))
    expect(order.indexOf('surehop.delay.00')).below(order.indexOf('surehop.delay.24'))
    const verbs = declareSteps(whole).map(
      ({ doing }) => /exchange|queue/.exec(doing.replace(/^bind.*/, 'bind'))?.[0] ?? 'bind',
    )
    expect(verbs.join(' ')).match(/^(exchange )+(queue )+(bind ?)+$/)
  })

  it('keeps repeated entries once, and refuses one name asked for in two ways', () => {
    const one = { ...EMPTY, queues: [{ name: 'q', arguments: { a: 1, b: 2 } }] }
    const same = { ...EMPTY, queues: [{ name: 'q', arguments: { b: 2, a: 1 } }] }
    const other = { ...EMPTY, queues: [{ name: 'q', arguments: { a: 1, b: 3 } }] }
    expect(merge(one, same).queues).length(1)
    expect(() => merge(one, other)).throw(TopologyInvalid, '"q" is asked for in two ways')
  })

  it('P21, P23: a work queue dead-letters at least once, refuses when full, and counts 20 deliveries', () => {
    const work = workQueueTopology('q').queues.find(({ name }) => name === 'q')
    expect(work?.arguments).deep.equal({
      'x-queue-type': 'quorum',
      'x-dead-letter-exchange': '',
      'x-dead-letter-routing-key': 'q.dead',
      'x-dead-letter-strategy': 'at-least-once',
      'x-overflow': 'reject-publish',
      'x-delivery-limit': 20,
    })
  })

  it('P22: looking into dead letters, archive and delays never uses up a delivery limit; none of them is a way back', () => {
    const { queues } = merge(workQueueTopology('q'), delayTopology(24))
    for (const { name, arguments: args } of queues.filter((q) => q.name !== 'q')) {
      expect(args['x-delivery-limit'], name).equal(NO_DELIVERY_LIMIT)
      expect(args['x-queue-type'], name).equal('quorum')
    }
    for (const { arguments: args } of queues.filter((q) => /dead$|archive$/.test(q.name)))
      expect(args).not.property('x-dead-letter-exchange')
  })
})
