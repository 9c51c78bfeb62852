import { expect } from 'chai'
import fc from 'fast-check'
import { MAX_DELAY_MS } from '../../lib/backoff.ts'
import {
  arrivalAtExchange,
  arrivalAtQueue,
  delayRoute,
  delayTopology,
  levelFor,
  roundedDelayMs,
  TOP_LEVEL,
  UNIT_MS,
} from '../../lib/topology/delay.ts'
import { type Binding, EMPTY, merge, type Topology } from '../../lib/topology/topology.ts'

const delays = fc.oneof(
  fc.integer({ min: 0, max: MAX_DELAY_MS }),
  fc.integer({ min: 0, max: 20_000 }),
  fc.double({ min: 0, max: 100_000, noNaN: true }),
  fc.integer({ min: 0, max: 24 }).map((n) => Math.min(MAX_DELAY_MS, UNIT_MS * 2 ** n)),
)

interface Arrival {
  readonly waitedMs: number
  readonly waits: number
  readonly queues: readonly string[]
  readonly routingKey: string
}

/** What the broker would do with a delayed message: headers and direct exchanges, TTL, dead-lettering. */
function journey(topology: Topology, route: ReturnType<typeof delayRoute>): Arrival {
  let [exchange, waitedMs, waits] = [route.exchange, 0, 0]
  for (let hops = 0; hops < 60; hops++) {
    const reached = queuesFrom(topology, exchange, route)
    const level = topology.queues.find((q) => reached.includes(q.name) && q.arguments['x-message-ttl'] !== undefined)
    if (!level) return { waitedMs, waits, queues: reached, routingKey: route.routingKey }
    expect(reached, 'a message waits in one queue at a time').deep.equal([level.name])
    waitedMs += Number(level.arguments['x-message-ttl'])
    waits++
    exchange = String(level.arguments['x-dead-letter-exchange'])
  }
  throw new Error('it goes round and round')
}

function queuesFrom(topology: Topology, exchange: string, route: ReturnType<typeof delayRoute>): string[] {
  const { type, alternate } = topology.exchanges.find((e) => e.name === exchange) ?? {
    type: 'topic',
    alternate: undefined,
  }
  const taken = topology.bindings.filter((b) => b.source === exchange && matches(type, b, route))
  if (taken.length === 0 && alternate) return queuesFrom(topology, alternate, route)
  return [
    ...new Set(taken.flatMap((b) => (b.queue === undefined ? queuesFrom(topology, b.exchange!, route) : [b.queue]))),
  ]
}

function matches(
  type: string,
  { routingKey, arguments: args }: Binding,
  route: ReturnType<typeof delayRoute>,
): boolean {
  if (type === 'headers') return Object.entries(args ?? {}).every(([n, v]) => n === 'x-match' || route.headers[n] === v)
  return type === 'fanout' || routingKey === '#' || routingKey === route.routingKey
}

const TARGETS: Topology = {
  ...EMPTY,
  bindings: [
    arrivalAtQueue('work'),
    arrivalAtQueue('other'),
    arrivalAtExchange('events'),
    arrivalAtExchange('others'),
    { source: 'events', queue: 'listener', routingKey: '#' },
  ],
}
const WHOLE = merge(delayTopology(TOP_LEVEL), TARGETS)

describe('delays', () => {
  it('are never early, at most 12.5 % late (or one unit), and wait at most 4 times', () => {
    fc.assert(
      fc.property(delays, (delayMs) => {
        const { waitedMs, waits, queues } = journey(WHOLE, delayRoute(delayMs, '', 'work'))
        expect(waitedMs).equal(roundedDelayMs(delayMs))
        expect(waitedMs).least(delayMs)
        expect(waitedMs - delayMs).below(Math.max(delayMs * 0.125, UNIT_MS) + UNIT_MS)
        expect(waits).within(1, 4)
        expect(queues).deep.equal(['work'])
      }),
      { numRuns: 2_000 },
    )
  })

  it('are exact for every sum of up to four neighbouring levels', () => {
    for (let low = 0; low <= TOP_LEVEL - 3; low++)
      for (let bits = 1; bits < 16; bits++) {
        const delayMs = Math.min(MAX_DELAY_MS, bits * 2 ** low * UNIT_MS)
        expect(journey(WHOLE, delayRoute(delayMs, '', 'work')).waitedMs).equal(roundedDelayMs(delayMs))
        if (bits * 2 ** low * UNIT_MS <= MAX_DELAY_MS) expect(roundedDelayMs(delayMs)).equal(delayMs)
      }
  })

  it('need only the levels up to the one they enter at', () => {
    fc.assert(
      fc.property(delays, (delayMs) => {
        const enough = merge(delayTopology(levelFor(delayMs)), TARGETS)
        expect(journey(enough, delayRoute(delayMs, 'events', 'a.b'))).deep.include({
          waitedMs: roundedDelayMs(delayMs),
        })
        expect(levelFor(delayMs)).most(TOP_LEVEL)
      }),
    )
  })

  it('arrive at an exchange with their own routing key, and nowhere else', () => {
    const { queues, routingKey } = journey(WHOLE, delayRoute(1_234, 'events', 'order.placed'))
    expect(queues).have.members(['listener', 'surehop.delay.sink'])
    expect(routingKey).equal('order.placed')
  })

  it('always find a queue at the end, whatever became of their target', () => {
    fc.assert(
      fc.property(delays, fc.constantFrom('', 'others', 'gone'), (delayMs, exchange) => {
        const { queues } = journey(WHOLE, delayRoute(delayMs, exchange, 'nobody'))
        expect(queues).not.empty
        if (exchange !== 'others') expect(queues).include('surehop.undeliverable.dead')
      }),
    )
  })

  it('are returned on the way in, and kept apart on the way, when a level was deleted', () => {
    const without = (name: string): Topology => ({ ...WHOLE, bindings: WHOLE.bindings.filter((b) => b.queue !== name) })
    const route = delayRoute(1_100, '', 'work')
    expect(queuesFrom(without('surehop.delay.03'), route.exchange, route)).empty
    expect(journey(without('surehop.delay.01'), route))
      .include({ waits: 1 })
      .deep.include({
        queues: ['surehop.undeliverable.dead'],
      })
  })

  it('end apart for a message that came into a level without headers', () => {
    for (const { name, alternate } of WHOLE.exchanges)
      if (/^surehop\.delay\.(\d\d|end)$/.test(name)) expect(alternate, name).equal('surehop.undeliverable.dead')
  })

  it('survive the headers of an earlier delay', () => {
    fc.assert(
      fc.property(delays, delays, (first, second) => {
        const old = delayRoute(first, 'events', 'work')
        const { exchange, routingKey, headers } = delayRoute(second, '', 'work')
        const { waitedMs, queues } = journey(WHOLE, { exchange, routingKey, headers: { ...old.headers, ...headers } })
        expect(waitedMs).equal(roundedDelayMs(second))
        expect(queues).deep.equal(['work'])
      }),
    )
  })

  it('P20: no queue mixes delays: each level has one TTL for the whole queue, at-least-once and never dropped when full', () => {
    const levels = WHOLE.queues.filter((q) => q.arguments['x-message-ttl'] !== undefined)
    expect(levels.map((q) => q.arguments['x-message-ttl'])).deep.equal(
      Array.from({ length: TOP_LEVEL + 1 }, (_, level) => UNIT_MS * 2 ** level),
    )
    for (const { arguments: args } of levels)
      expect(args).include({ 'x-dead-letter-strategy': 'at-least-once', 'x-overflow': 'reject-publish' })
  })
})
