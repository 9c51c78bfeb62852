import { expect } from 'chai'
import fc from 'fast-check'
import type { HeaderValue, OutboxMessage } from '../../lib/index.ts'
import { type PackedColumns, unpacked } from '../../lib/outbox/packing.ts'
import { encode } from '../../lib/producer/encode.ts'
import { Writing } from './writing.ts'

/** Everything that an AMQP table can hold, and names that JavaScript or we could mistake for something else. */
const name = fc.oneof(
  fc.string({ maxLength: 12 }),
  fc.constantFrom('__proto__', 'constructor', 'toJSON', '!', 'value', 'kind', '\0', 'a b', '\u{1F600}'),
)
const bytes = fc.uint8Array({ maxLength: 40 })
const { tree: value } = fc.letrec<{ tree: HeaderValue; table: HeaderValue }>((tie) => ({
  tree: fc.oneof(
    { depthSize: 'small' },
    fc.string({ unit: 'binary', maxLength: 20 }),
    fc.constantFrom('', '\0', 'bytes', '\u2028', 'é😀'),
    fc.integer(),
    fc.maxSafeInteger(),
    fc.double({ noNaN: true, noDefaultInfinity: true }),
    fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
    fc.boolean(),
    fc.constant(null),
    fc.date({ min: new Date(0), max: new Date('2200-01-01'), noInvalidDate: true }),
    bytes.map((b) => Buffer.from(b)),
    bytes,
    fc.array(tie('tree'), { maxLength: 4 }),
    tie('table'),
    fc.record({ '!': fc.constantFrom('bytes', 'integer', 'fields', 'int8', 'timestamp'), value: tie('tree') }),
    fc.record({ '!': tie('tree'), value: tie('tree'), more: tie('tree') }),
  ),
  table: fc.dictionary(name, tie('tree'), { maxKeys: 4 }),
}))
const headerName = name.filter((n) => !/^(surehop-|x-|transaction_id$)/.test(n) && Buffer.byteLength(n) <= 128)
const message: fc.Arbitrary<OutboxMessage> = fc.record(
  {
    queue: fc.string({ minLength: 1, maxLength: 20 }).filter((q) => !q.includes('\0')),
    headers: fc.dictionary(headerName, value, { maxKeys: 5 }),
    body: fc.oneof(bytes, fc.jsonValue()),
    messageId: fc.uuid(),
    type: fc.string({ maxLength: 20 }),
    correlationId: fc.constantFrom('', 'c', '\0'),
    replyTo: fc.constantFrom('r', '\u2028'),
    contentType: fc.constantFrom('text/plain', 'x/\0'),
    key: fc.constantFrom('k', 'é', ' '),
  },
  { requiredKeys: ['queue', 'body', 'messageId'] },
) as fc.Arbitrary<OutboxMessage>

describe('a message in the outbox', function () {
  this.timeout(60_000)
  let w: Writing
  before(async () => {
    w = await Writing.open()
  })
  after(() => w.close())

  it('comes back as it would have been published: headers of every AMQP type, bytes, all properties', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(message, { minLength: 1, maxLength: 20 }), async (messages) => {
        const separate = messages.map((m, i) => ({ ...m, messageId: `${i}`, transactionId: 't' }))
        await w.committed((client) => w.outbox.add(separate, client))
        const back = new Map((await w.rows()).map((row) => [row.message_id, unpacked(row as PackedColumns)]))
        await w.clear()
        for (const { queue, ...plain } of separate) {
          const direct = encode(
            { exchange: '' },
            { ...plain, routingKey: queue! },
            { service: 'orders', maxBodyBytes: 1_000_000 },
          )
          const stored = back.get(direct.messageId)!
          const { timestamp: _, ...rest } = direct.properties
          const { timestamp, ...storedRest } = stored.properties
          expect(timestamp).to.be.a('number')
          expect(sameZero({ ...stored, properties: storedRest })).to.deep.equal(
            sameZero({ ...direct, properties: rest }),
          )
        }
      }),
      { numRuns: 200 },
    )
  })
})

/** -0 goes over the wire as 0. */
function sameZero(value: unknown): unknown {
  if (Object.is(value, -0)) return 0
  if (Array.isArray(value)) return value.map(sameZero)
  if (typeof value !== 'object' || value === null || value instanceof Uint8Array) return value
  return new Map(Object.entries(value).map(([name, item]) => [name, sameZero(item)]))
}
