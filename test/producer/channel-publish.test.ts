import { type ConfirmChannel, type ConsumeMessage, connect } from 'amqplib'
import { expect } from 'chai'
import { publishOn, publishPlainly, type Sendable } from '../../lib/producer/channel-publish.ts'
import { uniqueQueue } from '../support/unique.ts'

const full: Sendable = {
  message: {
    exchange: '',
    routingKey: '',
    content: Buffer.from('{"a":1}'),
    properties: {
      messageId: 'm-1',
      type: 'order.placed',
      timestamp: 1_700_000_000,
      appId: 'orders',
      contentType: 'application/json',
      contentEncoding: 'utf-8',
      correlationId: 'c-1',
      replyTo: 'answers',
      priority: 3,
      headers: {},
    },
  },
  mandatory: true,
  headers: {
    transaction_id: 't-1',
    count: 7,
    nested: { list: [1, 'two', null], bytes: Buffer.from('x') },
    none: undefined,
  },
}
const bare: Sendable = {
  message: { exchange: '', routingKey: '', content: Buffer.alloc(0), properties: { headers: {} } },
  mandatory: false,
  headers: {},
}

describe('publishing by the two steps beneath amqplib’s publish()', () => {
  let connection: Awaited<ReturnType<typeof connect>>
  let channel: ConfirmChannel

  before(async () => {
    connection = await connect(process.env['AMQP_URL'] ?? '')
    channel = await connection.createConfirmChannel()
  })
  after(() => connection.close())

  for (const [name, sendable] of Object.entries({ full, bare }))
    it(`delivers the same message as amqplib’s own way: ${name}`, async () => {
      const queue = uniqueQueue('steps')
      await channel.assertQueue(queue, { arguments: { 'x-queue-type': 'quorum' } })
      const to = { ...sendable, message: { ...sendable.message, routingKey: queue } }
      for (const publish of [publishOn, publishPlainly])
        await new Promise<void>((resolve, reject) =>
          publish(channel, to, (error) => (error ? reject(error) : resolve())),
        )
      const [ours, theirs] = [await got(channel, queue), await got(channel, queue)]
      expect(ours).to.deep.equal(theirs)
      expect(ours.properties.deliveryMode).to.equal(2)
    })

  it('says when the message cannot be encoded, and the channel goes on', async () => {
    const tooLarge = { ...full, headers: { much: 'x'.repeat(70_000) } }
    expect(() => publishOn(channel, tooLarge, () => {})).to.throw(RangeError)
    const answer = await new Promise((resolve) => publishOn(channel, { ...bare, mandatory: false }, resolve))
    expect(answer).to.equal(null)
  })

  it('hands a lost channel to the callback, and throws on a closed one', async () => {
    const doomed = await connection.createConfirmChannel()
    doomed.on('error', () => {})
    const missing = { ...full, message: { ...full.message, exchange: 'there-is-no-such-exchange' } }
    const lost = await new Promise((resolve) => publishOn(doomed, missing, resolve))
    expect(lost).to.be.an('error')
    expect(() => publishOn(doomed, bare, () => {}))
      .to.throw()
      .with.property('name', 'IllegalOperationError')
  })
})

async function got(channel: ConfirmChannel, queue: string) {
  const message = await channel.get(queue, { noAck: true })
  if (!message) throw new Error('the queue is empty')
  const { content, properties } = message as unknown as ConsumeMessage
  return { content, properties }
}
