import { expect } from 'chai'
import fc from 'fast-check'
import { MAX_DELAY_MS } from '../../lib/backoff.ts'
import { MessageInvalid } from '../../lib/errors.ts'
import type { OutgoingMessage } from '../../lib/message.ts'
import { encode, headerBytes, MAX_HEADER_BYTES } from '../../lib/producer/encode.ts'

const OPTIONS = { service: 'orders', maxBodyBytes: 1_000 }
const encoded = (message: unknown) => encode({ exchange: 'shop' }, message as OutgoingMessage, OPTIONS)

function refusal(message: unknown): MessageInvalid {
  try {
    encoded(message)
  } catch (error) {
    expect(error).instanceOf(MessageInvalid)
    return error as MessageInvalid
  }
  throw new Error('it was accepted')
}

describe('encode', () => {
  it('stamps identity, transaction, service, type and time', () => {
    const { messageId, transactionId, routingKey, properties, content } = encoded({
      type: 'order.placed',
      body: { a: 1 },
    })
    expect(messageId).match(/^[0-9a-f-]{36}$/)
    expect(transactionId).equal(messageId)
    expect(routingKey).equal('order.placed')
    expect(content.toString()).equal('{"a":1}')
    expect(properties).include({ messageId, type: 'order.placed', appId: 'orders', contentType: 'application/json' })
    expect(properties.headers).deep.equal({ transaction_id: messageId })
    expect(properties.timestamp).within(Date.now() / 1_000 - 5, Date.now() / 1_000 + 1)
  })

  it('keeps the ids it is given, and a transaction id apart from the message id', () => {
    const { properties } = encoded({ body: 1, messageId: 'm', transactionId: 't', key: 'k' })
    expect(properties.headers).deep.equal({ transaction_id: 't', 'surehop-key': 'k' })
    expect(properties.messageId).equal('m')
  })

  it('sends bytes as they are, views included', () => {
    const view = new Uint8Array([0, 1, 2, 3]).subarray(1, 3)
    expect([...encoded({ body: view }).content]).deep.equal([1, 2])
    expect(encoded({ body: Buffer.from('x') }).properties.contentType).equal('application/octet-stream')
    expect(encoded({ body: Buffer.alloc(0) }).content).length(0)
  })

  it('refuses bodies that JSON would lose', () => {
    const circle: Record<string, unknown> = {}
    circle['self'] = circle
    for (const body of [undefined, () => {}, Symbol('s'), 10n, circle]) expect(refusal({ body }).path).equal('body')
    expect(refusal({}).message).contain('got nothing')
  })

  it('refuses what JSON makes an empty object of, and says which await is missing', () => {
    for (const body of [new Map([[1, 2]]), new Set([1]), new TypeError('x')])
      expect(refusal({ body }).message).contain(`got an object of ${body.constructor.name}: JSON keeps nothing of it`)
    expect(refusal({ body: Promise.resolve({ id: 1 }) }).message).contain('an object of Promise: is an await missing?')
    const bytes = new ArrayBuffer(8)
    for (const body of [bytes, new DataView(bytes), /x/, new Blob(['x']), new URLSearchParams('a=1'), new WeakMap()])
      expect(refusal({ body }).message).contain('JSON keeps nothing of it')
    // Of Prisma, whose queries begin when they are awaited; and of Bluebird, whose promises JSON makes something of.
    const thenable = Object.fromEntries([['then', () => {}]])
    const query = { ...thenable, [Symbol.toStringTag]: 'PrismaPromise' }
    for (const body of [query, { ...thenable, toJSON: () => ({ isFulfilled: false }) }])
      expect(refusal({ body }).message).contain('is an await missing?')
    class Ping {}
    for (const body of [{}, new Ping(), Object.create(null), { toJSON: () => ({}) }])
      expect(encoded({ body }).content.toString()).equal('{}')
    expect(encoded({ body: Object.assign(new Error('x'), { code: 1 }) }).content.toString()).equal('{"code":1}')
  })

  it('refuses bodies larger than maxBodyBytes', () => {
    expect(encoded({ body: Buffer.alloc(1_000) }).content).length(1_000)
    expect(refusal({ body: Buffer.alloc(1_001) }).message).contain('larger than maxBodyBytes (1000)')
  })

  it('P4: refuses headers that would make the client throw, whatever their shape', () => {
    const circle: Record<string, unknown> = {}
    Object.assign(circle, { a: circle, b: circle })
    const large = [
      { big: 'x'.repeat(MAX_HEADER_BYTES) },
      { big: Buffer.alloc(MAX_HEADER_BYTES) },
      Object.fromEntries(Array.from({ length: 6_000 }, (_, i) => [`name-${i}`, i])),
      { circle },
    ]
    for (const headers of large) expect(refusal({ body: 1, headers }).path).equal('headers')
    expect(refusal({ body: 1, headers: { ['n'.repeat(129)]: 1 } }).message).contain('128 bytes')
  })

  it('never counts fewer header bytes than go over the wire', () => {
    const value = fc.letrec((tie) => ({
      value: fc.oneof(
        { depthSize: 'small' },
        fc.string({ unit: 'grapheme' }),
        fc.double(),
        fc.integer(),
        fc.boolean(),
        fc.constant(null),
        fc.uint8Array(),
        fc.array(tie('value'), { maxLength: 3 }),
        fc.dictionary(fc.string({ maxLength: 20 }), tie('value'), { maxKeys: 3 }),
      ),
    })).value
    fc.assert(
      fc.property(value, (v) => {
        expect(headerBytes(v)).least(wireBytes(v))
      }),
    )
  })

  it('gives bytes and dates in headers their AMQP type, however deep', () => {
    const date = new Date(1_700_000_000_999)
    const { headers } = encoded({
      body: 1,
      headers: { at: date, deep: [{ at: date, raw: new Uint8Array([7]) }] },
    }).properties
    const stamp = { '!': 'timestamp', value: 1_700_000_000 }
    expect(headers['at']).deep.equal(stamp)
    expect(headers['deep']).deep.equal([{ at: stamp, raw: Buffer.from([7]) }])
    expect(refusal({ body: 1, headers: { at: new Date(Number.NaN) } }).path).equal('headers.at')
  })

  it('refuses numbers that AMQP has no value for, which would cost the whole connection, and carries big integers', () => {
    for (const odd of [Number.POSITIVE_INFINITY, Number.NaN, 2n ** 63n])
      for (const headers of [
        { odd },
        { odd: [odd] },
        { a: { odd } },
        { odd: { '!': 'double', value: odd } },
        { odd: { '!': 'float64', value: odd } },
        { odd: { '!': 'number', value: odd } },
        { odd: { '!': 'number', value: '1e999' } },
        { odd: [{ '!': 'number', value: ['1e999'] }] },
      ])
        expect(refusal({ body: 1, headers }).path).match(/^headers\./)
    const { headers } = encoded({ body: 1, headers: { big: 2n ** 63n - 1n } }).properties
    expect(headers['big']).deep.equal({ '!': 'int64', value: 2n ** 63n - 1n })
  })

  it('carries every finite number, also those that the client takes for integers of 64 bits and cannot write', () => {
    const { headers } = encoded({
      body: 1,
      headers: { micros: 1.7e15 + 0.25, deep: [{ low: -1e300 }], least: -(2 ** 63) },
    }).properties
    expect(headers['micros']).deep.equal({ '!': 'double', value: 1.7e15 + 0.25 })
    expect(headers['deep']).deep.equal([{ low: { '!': 'double', value: -1e300 } }])
    expect(headers['least']).equal(-(2 ** 63))
    const told = { '!': 'double', value: -1e300 }
    expect(encoded({ body: 1, headers: { told } }).properties.headers['told']).deep.equal(told)
  })

  it('refuses CC and BCC that are no lists, over which the broker closes the channel, and takes any list', () => {
    for (const name of ['CC', 'BCC'])
      for (const value of ['a', null, 5, { a: 1 }, Buffer.from('a')])
        expect(refusal({ body: 1, headers: { [name]: value } }).path).equal(`headers.${name}`)
    const lists = { CC: ['a', null, 5], BCC: [] }
    expect(encoded({ body: 1, headers: lists }).properties.headers).deep.include(lists)
  })

  it('keeps reserved header names to itself', () => {
    for (const name of ['surehop-attempt', 'x-death', 'x-delivery-count', 'x-first-death-queue', 'transaction_id'])
      expect(refusal({ body: 1, headers: { [name]: 1 } }).path, name).equal(`headers.${name}`)
    expect(encoded({ body: 1, headers: { 'x-mine': 1, gone: undefined } }).properties.headers).include({ 'x-mine': 1 })
  })

  it('refuses absurd ids: too long, empty, not a string, half a character', () => {
    const fields = [
      'messageId',
      'transactionId',
      'type',
      'routingKey',
      'key',
      'correlationId',
      'replyTo',
      'contentType',
    ]
    for (const field of fields)
      for (const value of ['x'.repeat(256), 'é'.repeat(128), 7, null, {}, 'a\uD800b'])
        expect(refusal({ body: 1, [field]: value }).path, `${field} ${String(value)}`).equal(field)
    expect(refusal({ body: 1, messageId: '' }).path).equal('messageId')
    for (const id of ['x'.repeat(255), '\u{1F600}', '\0', ' ', '__proto__'])
      expect(encoded({ body: 1, messageId: id }).messageId).equal(id)
  })

  it('refuses delays it could not keep', () => {
    for (const delayMs of [-1, Number.NaN, Number.POSITIVE_INFINITY, MAX_DELAY_MS + 1, '5'])
      expect(refusal({ body: 1, delayMs }).path).equal('delayMs')
    expect(encoded({ body: 1, delayMs: MAX_DELAY_MS }).messageId).a('string')
  })

  it('takes a header named "__proto__" for what it is, a header', () => {
    for (const value of ['x', Buffer.from([1]), [1], { a: 1 }]) {
      const { headers } = encoded({ body: 1, headers: { ['__proto__']: value } }).properties
      expect(Object.entries(headers)).deep.include(['__proto__', value])
      expect(Object.getPrototypeOf(headers)).equal(Object.prototype)
    }
  })

  it('names a field it does not know', () => {
    expect(refusal({ body: 1, messageid: 'x' }).message).contain('unknown message field "messageid"')
    expect(refusal(null).message).contain('expected a message like {type, body}, got null')
  })
})

/** What a value takes in an AMQP 0-9-1 table, its type octet included. */
function wireBytes(value: unknown): number {
  if (typeof value === 'string') return 5 + Buffer.byteLength(value)
  if (value instanceof Uint8Array) return 5 + value.length
  if (value === null) return 1
  if (typeof value !== 'object') return typeof value === 'boolean' ? 2 : 9
  const entries = Object.entries(value as object)
  const names = Array.isArray(value) ? 0 : entries.reduce((sum, [name]) => sum + 1 + Buffer.byteLength(name), 0)
  return 5 + names + entries.reduce((sum, [, item]) => sum + wireBytes(item), 0)
}
