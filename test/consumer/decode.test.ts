// Messages of anybody: what is read, what is refused, and that nothing else can happen.

import { createHash } from 'node:crypto'
import { expect } from 'chai'
import fc from 'fast-check'
import { Active } from '../../lib/consumer/active.ts'
import { DeadlineWatch } from '../../lib/consumer/deadline-watch.ts'
import { type DecodeOptions, decode, MAX_COUNT } from '../../lib/consumer/decode.ts'
import type { Handler } from '../../lib/consumer/handler.ts'
import { MessageInvalid } from '../../lib/errors.ts'
import { HEADER, type RawProperties } from '../../lib/message.ts'
import { FakeProducer, rawDelivery } from './fakes.ts'

const OPTIONS: DecodeOptions = { queue: 'work', identity: 'reject', body: 'auto', digests: true }

function read(of: { body?: unknown; properties?: RawProperties; options?: Partial<DecodeOptions> } = {}) {
  const { options, ...raw } = of
  return decode(rawDelivery(raw), { ...OPTIONS, ...options })
}

function refusal(of: Parameters<typeof read>[0]): MessageInvalid {
  try {
    read(of)
  } catch (error) {
    expect(error).to.be.instanceOf(MessageInvalid)
    return error as MessageInvalid
  }
  throw new Error('it was not refused')
}

describe('reading a message: identity', () => {
  it('takes the message id, else the transaction id header', () => {
    const headers = { [HEADER.transactionId]: 't-1' }
    const { message } = read({ properties: { messageId: 'm-1', headers } })
    expect(message).to.include({ messageId: 'm-1', transactionId: 't-1' })
    expect(read({ properties: { messageId: undefined, headers } }).message.messageId).to.equal('t-1')
    expect(read({ properties: { messageId: 'm-1', headers: undefined } }).message.transactionId).to.equal('m-1')
  })

  it('refuses a message without identity and says what to do', () => {
    const error = refusal({ properties: { messageId: undefined, headers: {} } })
    expect(error.path).to.equal('message_id')
    expect(error.message).to.match(/transaction_id header.*"digest" or "unguarded"/)
  })

  it('identifies by digest where the consumer asks for it: equal bodies are one message', () => {
    const properties = { messageId: undefined, headers: {} }
    const run = read({ properties, body: { n: 1 }, options: { identity: 'digest', digests: false } })
    const digest = createHash('sha256').update('{"n":1}').digest('hex')
    expect(run.message.messageId).to.equal(`sha256:${digest}`)
    expect(run.guarded).to.equal(true)
  })

  it('gives an unguarded message an id for logs, another at each delivery', () => {
    const properties = { messageId: undefined, headers: {} }
    const ids = [1, 2].map(() => read({ properties, options: { identity: 'unguarded' } }))
    expect(ids.map((run) => run.guarded)).to.deep.equal([false, false])
    expect(ids[0]!.message.messageId).to.not.equal(ids[1]!.message.messageId)
  })

  for (const [what, value] of [
    ['10,000 characters', 'x'.repeat(10_000)],
    ['256 bytes in 128 characters', 'ü'.repeat(128)],
    ['a number', 12],
    ['a table', { a: 1 }],
  ] as const) {
    it(`refuses a transaction id of ${what}, by name`, () => {
      const error = refusal({ properties: { headers: { [HEADER.transactionId]: value } } })
      expect(error.path).to.equal('headers.transaction_id')
      expect(error.message.length).to.be.below(300)
    })
  }
})

describe('reading a message: headers that can be forged', () => {
  const counts = [
    -1,
    1.5,
    1e9,
    MAX_COUNT + 1,
    Number.NaN,
    Number.POSITIVE_INFINITY,
    '1',
    'x'.repeat(2 ** 20),
    null,
    true,
    { '!': 'timestamp', value: 1 },
  ]
  for (const name of [HEADER.attempt, HEADER.generation]) {
    for (const value of counts) {
      it(`refuses ${name} = ${String(value).slice(0, 12)}, by name and briefly`, () => {
        const error = refusal({ properties: { headers: { [name]: value } } })
        expect(error.path).to.equal(`headers.${name}`)
        expect(error.message.length).to.be.below(200)
      })
    }
  }

  it('refuses attempt 0, and takes generation 0', () => {
    expect(refusal({ properties: { headers: { [HEADER.attempt]: 0 } } }).path).to.equal('headers.surehop-attempt')
    expect(read({ properties: { headers: { [HEADER.generation]: 0 } } }).generation).to.equal(0)
  })

  it('refuses a first failure outside this century and the next', () => {
    for (const value of [-1, 0, 1e18, Number.NaN, 'yesterday'])
      expect(refusal({ properties: { headers: { [HEADER.firstFailedAt]: value } } }).path).to.equal(
        `headers.${HEADER.firstFailedAt}`,
      )
  })

  it('shows the handler neither ours nor the headers of the broker', () => {
    const headers = {
      mine: 1,
      'x-death': [],
      'x-delivery-count': 3,
      'x-first-death-queue': 'q',
      'surehop-attempt': 2,
      transaction_id: 't',
    }
    expect(read({ properties: { headers } }).message.headers).to.deep.equal({ mine: 1 })
  })

  it('reads every type an AMQP header can have, as amqplib hands it over', () => {
    const headers = {
      text: 'grün',
      empty: '',
      yes: true,
      no: false,
      nothing: null,
      small: 1,
      negative: -3,
      int: 100_000,
      long: 2 ** 40,
      double: 1.5,
      when: { '!': 'timestamp', value: 1_700_000_000 },
      price: { '!': 'decimal', value: { places: 2, digits: 995 } },
      float: { '!': 'float', value: 0.5 },
      bytes: Buffer.from([1, 2]),
      list: [1, 'a', [true]],
      table: { inner: { deep: 1 } },
    }
    const { message } = read({ properties: { headers: headers } })
    expect(message.headers['text']).to.equal('grün')
    expect(Object.keys(message.headers)).to.have.members(Object.keys(headers))
  })

  it('is not led astray by headers named like parts of every object', () => {
    const headers = JSON.parse('{"__proto__": {"surehop-attempt": 5}, "constructor": "x", "toString": 1}')
    const { message, attempt } = read({ properties: { headers } })
    expect(attempt).to.equal(1)
    expect(({} as Record<string, unknown>)['surehop-attempt']).to.equal(undefined)
    expect(message.headers['constructor']).to.equal('x')
  })
})

describe('reading a message: body', () => {
  it('parses JSON by content type and where none is given, and leaves other bytes alone', () => {
    for (const contentType of [undefined, 'application/json', 'application/cloudevents+json; charset=utf-8'])
      expect(read({ properties: { messageId: 'm', contentType } }).message.body).to.deep.equal({ n: 1 })
    const bytes = Buffer.from([0, 255])
    const png = { messageId: 'm', contentType: 'image/png' }
    expect(read({ body: bytes, properties: png }).message.body).to.deep.equal(bytes)
    expect(read({ body: bytes, options: { body: 'bytes' } }).message.body).to.deep.equal(bytes)
  })

  it('gives the handler bytes of its own: one that wipes them leaves the next attempt and the dead letter theirs', async () => {
    const raw = rawDelivery({ body: Buffer.from('pay 10'), properties: { messageId: 'm', contentType: 'text/plain' } })
    const wiping: Handler = ({ body, rawBody }) => {
      seen.push(String(body))
      for (const given of [body as Buffer, rawBody]) given.fill(0)
    }
    const seen: string[] = []
    for (const _ of [1, 2])
      await new Active(decode(raw, OPTIONS), new FakeProducer().asProducer).run(wiping, new DeadlineWatch(60_000))
    expect(seen).to.deep.equal(['pay 10', 'pay 10'])
    expect(String(raw.content)).to.equal('pay 10')
  })

  it('holds a body of bytes once while it waits to be handled', () => {
    const raw = rawDelivery({ body: Buffer.from('pay 10'), properties: { messageId: 'm', contentType: 'text/plain' } })
    const { body, rawBody } = decode(raw, OPTIONS).message
    for (const held of [body, rawBody]) expect(held).to.equal(raw.content)
  })

  it('refuses a body that is not JSON, without quoting it', () => {
    const error = refusal({ body: Buffer.from('{"card": 4111-secret') })
    expect(error.path).to.equal('body')
    expect(error.message).to.not.match(/4111|secret|card/)
  })

  it('says when the body is packed', () => {
    const error = refusal({ body: Buffer.from([31, 139]), properties: { messageId: 'm', contentEncoding: 'gzip' } })
    expect(error.message).to.match(/content_encoding is "gzip"/)
  })

  it('survives a body nested a hundred thousand deep', () => {
    try {
      read({ body: Buffer.from('['.repeat(100_000) + ']'.repeat(100_000)) })
    } catch (error) {
      expect(error).to.be.instanceOf(MessageInvalid)
    }
  })

  it('takes a timestamp that no Date can hold for none', () => {
    expect(read({ properties: { messageId: 'm', timestamp: 2 ** 62 } }).message.publishedAt).to.equal(undefined)
    expect(read({ properties: { messageId: 'm', timestamp: 1_700_000_000 } }).message.publishedAt).to.deep.equal(
      new Date(1_700_000_000_000),
    )
  })
})

describe('reading a message: anything at all', () => {
  const value = fc.anything({
    withBigInt: true,
    withDate: true,
    withNullPrototype: true,
    withTypedArray: true,
    withSparseArray: true,
  })
  const names = Object.values(HEADER)
  const headers = fc.dictionary(
    fc.oneof(fc.constantFrom(...names, 'x-death', 'CC'), fc.string()),
    fc.oneof(value, fc.string()),
  )
  const properties = fc.record(
    {
      messageId: fc.oneof(fc.string(), value),
      type: value,
      timestamp: value,
      appId: value,
      contentType: fc.oneof(value, fc.constant('application/json')),
      contentEncoding: value,
      correlationId: value,
      headers,
    },
    { requiredKeys: [] },
  )

  it('throws nothing but MessageInvalid naming a field, whatever comes', () => {
    const identity = fc.constantFrom('reject', 'digest', 'unguarded')
    const body = fc.oneof(fc.json(), fc.string(), fc.uint8Array())
    fc.assert(
      fc.property(
        properties,
        body,
        identity,
        fc.constantFrom('auto', 'json', 'bytes'),
        (given, content, who, format) => {
          try {
            const run = read({
              properties: given as RawProperties,
              body: Buffer.from(content as string),
              options: { identity: who as 'reject', body: format as 'auto' },
            })
            expect(run.attempt).to.be.within(1, MAX_COUNT)
            expect(run.generation).to.be.within(0, MAX_COUNT)
            expect(Buffer.byteLength(run.message.messageId)).to.be.within(1, 255)
          } catch (error) {
            if (!(error instanceof MessageInvalid)) throw error
            expect(error.path).to.match(/^(body|message_id|headers(\.(surehop-|transaction_id)|$))/)
          }
        },
      ),
      { numRuns: 3_000 },
    )
  })
})
