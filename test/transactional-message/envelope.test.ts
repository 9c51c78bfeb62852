import { expect } from 'chai'
import fc from 'fast-check'
import type { HeaderValue } from '../../lib/index.ts'
import type { RawDelivery } from '../../lib/message.ts'
import { prepare } from '../../lib/outbox/prepare.ts'
import { decodeHalf, encodeHalf, MAX_MESSAGES } from '../../lib/transactional-message/envelope.ts'
import { caught, halfOf } from './setup.ts'

const FIELDS = { deliveryTag: 1, redelivered: false, exchange: '', routingKey: 'q' }

const fieldName = fc.string({ minLength: 1, maxLength: 5 }).filter((name) => name !== '!')
const header: fc.Arbitrary<HeaderValue> = fc.letrec((tie) => ({
  value: fc.oneof(
    { maxDepth: 2 },
    fc.string(),
    fc.integer(),
    fc.boolean(),
    fc.constant(null),
    fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
    fc.uint8Array({ maxLength: 20 }).map((bytes) => Buffer.from(bytes)),
    fc.array(tie('value'), { maxLength: 3 }),
    // A field "!" names a type to the client, and a type that there is not cannot be sent.
    fc.dictionary(fieldName, tie('value'), { maxKeys: 3 }),
  ),
})).value as fc.Arbitrary<HeaderValue>

const message = fc.record(
  {
    queue: fc.constant('q'),
    body: fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
    type: fc.constantFrom('a.b', 'ä'),
    key: fc.constantFrom('k', ''),
    delayMs: fc.integer({ min: 0, max: 1_000 }),
    headers: fc.dictionary(fc.stringMatching(/^[a-w]{1,8}$/), header, { maxKeys: 4 }),
  },
  { requiredKeys: ['queue', 'body'] },
)

describe('the half message', () => {
  it('gives all messages back as they were', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(message, { minLength: 1, maxLength: 5 }), async (messages) => {
        const items = await prepare(messages as never, { service: 's', maxBodyBytes: 1e6 })
        const half = {
          halfId: 'h',
          transactionId: items[0]!.encoded.transactionId,
          preparedAt: 7,
          service: 's',
          messages: items,
        }
        const own = items.map((item) => ({ ...item, encoded: { ...item.encoded, transactionId: half.transactionId } }))
        const { content, properties } = encodeHalf('n', half)
        const back = decodeHalf({ content, properties, fields: FIELDS } as RawDelivery)
        expect(back).to.deep.equal({ ...half, messages: own })
      }),
      { numRuns: 200 },
    )
  })

  it('refuses what is cut short, too long or changed, and never throws anything else', async () => {
    const items = await prepare([{ queue: 'q', body: 'x'.repeat(50) }], { service: 's', maxBodyBytes: 1e6 })
    const half = { halfId: 'h', transactionId: 't', preparedAt: 7, service: 's', messages: items }
    const { content, properties } = encodeHalf('n', half)
    const refused = (bytes: Buffer) => {
      try {
        decodeHalf({ content: bytes, properties, fields: FIELDS } as RawDelivery)
        return false
      } catch (error) {
        expect(error).to.have.property('code', 'MESSAGE_INVALID')
        return true
      }
    }
    for (let length = 0; length < content.length; length++) expect(refused(content.subarray(0, length))).to.equal(true)
    expect(refused(Buffer.concat([content, Buffer.from('!')]))).to.equal(true)
    fc.assert(fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => refused(Buffer.from(bytes))))
    for (let at = 0; at < content.length; at++) {
      const changed = Buffer.from(content)
      changed[at] = 0x7b
      refused(changed)
    }
  })

  it('refuses a forged one of more messages than a transaction may have, of which each would take its time', async () => {
    const item = { id: 'm', exchange: '', routingKey: 'q', properties: '{"headers":{}}', bytes: 0 }
    const forged = (count: number) => ({
      content: halfOf({ v: 1, transactionId: 't', preparedAt: 1, service: 's', messages: Array(count).fill(item) }),
      properties: { headers: {} },
      fields: FIELDS,
    })
    const decode = async (count: number) => decodeHalf(forged(count) as unknown as RawDelivery)
    expect((await decode(MAX_MESSAGES)).messages).to.have.length(MAX_MESSAGES)
    expect((await caught(decode(MAX_MESSAGES + 1))).message).to.equal(
      'expected messages of a half message to be an array of at most 1000',
    )
  })
})
