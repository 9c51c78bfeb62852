// What travels with a message that is sent on: its story, and nothing that would harm.

import { expect } from 'chai'
import fc from 'fast-check'
import { deadLetter } from '../../lib/dead-letter/letter.ts'
import { forwardedProperties } from '../../lib/forward.ts'
import { HEADER } from '../../lib/message.ts'
import { errorHeaders, fingerprint } from '../../lib/reason.ts'
import { retryCopy } from '../../lib/retry/scheduler.ts'
import { delayRoute } from '../../lib/topology/delay.ts'
import { rawDelivery, run } from '../consumer/fakes.ts'

const ORIGIN = { queue: 'work', service: 'stock', host: 'here' }

/** An error with a stack as another machine, version or build would have it. */
function thrownAt(...frames: string[]): Error {
  return Object.assign(new TypeError('order 4711 not found'), {
    stack: ['TypeError: x', ...frames.map((f) => `    at ${f}`)].join('\n'),
  })
}

describe('fingerprint of an error', () => {
  const here = thrownAt('reserve (file:///app/lib/stock.ts:10:5)', 'async handle (/app/lib/main.ts:3:1)')

  it('is the same on another line, in another folder, with another text, on another Node', () => {
    const there = thrownAt(
      'reserve (/srv/other/stock.ts:99:1)',
      'process.processTicksAndRejections (node:internal/process/task_queues:95:5)',
      'async handle (C:\\build\\main.ts:8:8)',
    )
    expect(fingerprint(there)).to.equal(fingerprint(here))
  })

  it('differs by type and by place', () => {
    const elsewhere = thrownAt('release (file:///app/lib/stock.ts:10:5)', 'async handle (/app/lib/main.ts:3:1)')
    const other = Object.assign(new RangeError('x'), { stack: here.stack })
    expect(new Set([here, elsewhere, other].map(fingerprint)).size).to.equal(3)
  })

  it('takes numbers out of what is not an Error', () => {
    expect(fingerprint('order 1 of 2')).to.equal(fingerprint('order 99 of 3'))
  })

  it('stays what it was: letters written by an earlier version must fall into the same group', () => {
    expect(fingerprint(here)).to.equal('8aff9b331d82')
  })
})

describe('story of an error', () => {
  it('is told at once, also where its text, which may come from a message, looks like frames of a stack', () => {
    const hostile = new Error(`no order: \n    at ${':1'.repeat(20_000)}x`)
    const started = performance.now()
    errorHeaders(hostile)
    expect(performance.now() - started).to.be.below(5_000)
  })

  it('is bounded, and reads anything that can be thrown', () => {
    const cyclic: Record<string, unknown> = {}
    cyclic['self'] = cyclic
    const hostile = [
      undefined,
      null,
      0,
      'text',
      cyclic,
      Symbol('x'),
      1n,
      () => {},
      Object.create(null),
      [],
      Object.assign(new Error('x'), { message: 5, name: { toString: 1 }, stack: 7 }),
      Object.defineProperty(new Error('x'), 'message', {
        get: () => {
          throw new Error('gotcha')
        },
      }),
      new Proxy(new Error('x'), {
        get: () => {
          throw new Error('gotcha')
        },
      }),
      new Error('x'.repeat(2 ** 20)),
    ]
    for (const thrown of hostile) {
      const headers = errorHeaders(thrown)
      for (const value of Object.values(headers)) expect(value).to.be.a('string')
      expect(Buffer.byteLength(JSON.stringify(headers))).to.be.below(8_000)
    }
    fc.assert(fc.property(fc.anything(), (thrown) => void errorHeaders(thrown)))
  })
})

describe('a message sent on', () => {
  const headers = {
    mine: 1,
    transaction_id: 't-1',
    'surehop-attempt': 2,
    CC: ['other'],
    BCC: ['other'],
    'x-death': [{}],
    'x-delivery-count': 3,
    'x-first-death-queue': 'q',
    'x-last-death-reason': 'r',
    'surehop-delay-03': 'wait',
    'surehop-deliver-to': 'x',
  }

  it('leaves behind what would route copies, confuse dead-lettering or steer its next delay', () => {
    expect(forwardedProperties(rawDelivery({ properties: { headers } }), {}).headers).to.deep.equal({
      mine: 1,
      transaction_id: 't-1',
      'surehop-attempt': 2,
      'surehop-exchange': 'shop',
      'surehop-routing-key': 'order.placed',
    })
  })

  it('remembers where it was published first, over any number of hops', () => {
    const first = forwardedProperties(rawDelivery({ properties: { headers: {} } }), {})
    const later = { ...rawDelivery({ properties: { headers: first.headers } }) }
    const fields = { ...later.fields, exchange: 'surehop.delay.to-queue', routingKey: 'work' }
    expect(forwardedProperties({ ...later, fields }, {}).headers).to.include({
      'surehop-exchange': 'shop',
      'surehop-routing-key': 'order.placed',
    })
  })

  it('keeps the properties of its publisher, and neither expiration nor user id', () => {
    const properties = {
      messageId: 'm',
      type: 't',
      timestamp: 1,
      appId: 'a',
      contentType: 'c',
      contentEncoding: 'e',
      correlationId: 'i',
      replyTo: 'r',
      priority: 3,
    }
    const sent = forwardedProperties(
      rawDelivery({ properties: { ...properties, expiration: '5', userId: 'x' } as object }),
      {},
    )
    expect(sent).to.deep.equal({
      ...properties,
      headers: { 'surehop-exchange': 'shop', 'surehop-routing-key': 'order.placed' },
    })
  })

  it('carries numbers and times that its publisher could send, also where reading them rounded them up', () => {
    const came = {
      huge: 1e300,
      least: -(2 ** 63),
      nested: [{ rounded: 2 ** 63 }],
      small: 2 ** 53,
      between: 2 ** 51 + 0.5,
      '!': 1,
    }
    const raw = rawDelivery({ properties: { timestamp: 2 ** 64, headers: came } })
    const { timestamp, headers } = forwardedProperties(raw, {})
    expect(timestamp).to.equal(2 ** 64 - 2_048)
    expect(headers).to.deep.include({ small: 2 ** 53, '!': 1, least: { '!': 'double', value: -(2 ** 63) } })
    expect(headers).to.deep.include({ huge: { '!': 'double', value: 1e300 } })
    expect(headers['between']).to.deep.equal({ '!': 'double', value: 2 ** 51 + 0.5 })
    expect(headers['nested']).to.deep.equal([{ rounded: { '!': 'double', value: 2 ** 63 } }])
  })

  it('carries its attempt and first failure into the delay, without the stack', () => {
    const copy = retryCopy(
      rawDelivery(),
      run({ attempt: 2, firstFailedAt: 1_700_000_000_000 }),
      3,
      new Error('boom'),
      delayRoute(200, '', 'work'),
    )
    expect(copy.properties.headers).to.include({
      [HEADER.attempt]: 3,
      [HEADER.generation]: 0,
      [HEADER.firstFailedAt]: 1_700_000_000_000,
      [HEADER.errorMessage]: 'boom',
    })
    expect(copy.properties.headers).to.not.have.property(HEADER.errorStack)
  })

  // In a queue with two priorities, RabbitMQ 4.0 lets what has expired wait behind what has not.
  it('has no priority in the delay, where it would hold up all others, and has it back afterwards', () => {
    const goesOut = (raw: ReturnType<typeof rawDelivery>) =>
      retryCopy(raw, run({}), 2, new Error('boom'), delayRoute(200, '', 'work')).properties
    const delayed = goesOut(rawDelivery({ properties: { priority: 9 } }))
    expect(delayed).to.not.have.property('priority')
    const again = goesOut(rawDelivery({ properties: delayed }))
    expect(again).to.not.have.property('priority')
    const letter = deadLetter(rawDelivery({ properties: again }), run({}), 'failed 8 times', undefined, ORIGIN)
    expect(letter.properties.priority).to.equal(9)
    expect(letter.properties.headers).to.not.have.property(HEADER.priority)
    for (const forged of [-1, 256, 1.5, '9', {}])
      expect(
        goesOut(rawDelivery({ properties: { headers: { [HEADER.priority]: forged } } })).headers,
      ).to.not.have.property(HEADER.priority)
  })

  it('tells its story as a dead letter', () => {
    const letter = deadLetter(
      rawDelivery(),
      run({ attempt: 8, firstFailedAt: 1_700_000_000_000 }),
      'failed 8 times',
      new Error('boom'),
      ORIGIN,
    )
    expect([letter.exchange, letter.routingKey]).to.deep.equal(['', 'work.dead'])
    expect(letter.properties.headers).to.include({
      [HEADER.reason]: 'failed 8 times',
      [HEADER.attempt]: 8,
      [HEADER.errorType]: 'Error',
      [HEADER.errorMessage]: 'boom',
      [HEADER.firstFailedAt]: 1_700_000_000_000,
      [HEADER.queue]: 'work',
      [HEADER.service]: 'stock',
      [HEADER.host]: 'here',
    })
    expect(letter.properties.headers[HEADER.errorStack]).to.match(/^at /)
  })

  it('tells a story also of a message that could not be read', () => {
    const letter = deadLetter(
      rawDelivery({ properties: { messageId: undefined } }),
      undefined,
      'invalid message',
      new Error('no id'),
      ORIGIN,
    )
    expect(letter.properties.headers[HEADER.reason]).to.equal('invalid message')
    expect(letter.messageId).to.not.equal('')
  })
})
