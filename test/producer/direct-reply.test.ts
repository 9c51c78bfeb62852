// Direct reply-to: the broker closes a channel that sends its bare name without waiting for answers there.

import { Readable } from 'node:stream'
import { expect } from 'chai'
import { MessageInvalid } from '../../lib/errors.ts'
import { forwardedProperties } from '../../lib/forward.ts'
import { DIRECT_REPLY_TO, type Message } from '../../lib/message.ts'
import { prepare } from '../../lib/outbox/prepare.ts'
import { decodeHalf, encodeHalf } from '../../lib/transactional-message/envelope.ts'
import { failure } from '../connection/wiring.ts'
import { rawDelivery } from '../consumer/fakes.ts'
import { Bench } from '../dead-letter/support.ts'
import { latch, within } from '../support/eventually.ts'

describe('the name of direct replies', function () {
  this.timeout(60_000)
  let bench: Bench
  beforeEach(async () => {
    bench = await Bench.open('direct-reply')
  })
  afterEach(() => bench.close())

  it('is refused as replyTo, beside messages that are taken', async () => {
    const producer = bench.surehop.producer()
    const bodies = Array.from({ length: 200 }, (_, n) => n)
    const ends = await Promise.allSettled(
      bodies.map((body) =>
        producer.send(bench.dead, { body, ...(body % 10 === 5 ? { replyTo: DIRECT_REPLY_TO } : {}) }),
      ),
    )
    for (const [n, end] of ends.entries())
      if (n % 10 !== 5) expect(end).to.deep.include({ status: 'fulfilled' }).nested.include({ 'value.sends': 1 })
      else expect(refusal(end)).instanceOf(MessageInvalid).include({ path: 'replyTo' })
  })

  it('is refused in an imported line and in an edit, which name it', async () => {
    const line = `{"surehop":1,"properties":{"replyTo":"${DIRECT_REPLY_TO}"},"headers":{},"body":1}`
    const letters = bench.letters()
    const imported = await failure(letters.importFrom(Readable.from([line])))
    expect(imported).instanceOf(MessageInvalid)
    expect(imported.message).to.match(/line 1: .*replyTo/)
    await bench.bury(1)
    const edited = await failure(letters.edit('m-0', { properties: { replyTo: DIRECT_REPLY_TO } }))
    expect(edited).instanceOf(MessageInvalid).include({ path: 'replyTo' })
    expect(await bench.count()).to.equal(1)
  })

  it('is refused in a half message of anybody', async () => {
    const messages = await prepare([{ queue: 'q', body: 1, replyTo: 'answers' }], { service: 's', maxBodyBytes: 1e6 })
    const half = { halfId: 'h', transactionId: 't', preparedAt: 7, service: 's', messages }
    const [item] = messages
    const forged = {
      ...item!,
      encoded: { ...item!.encoded, properties: { ...item!.encoded.properties, replyTo: DIRECT_REPLY_TO } },
    }
    const raw = { ...rawDelivery(), ...encodeHalf('n', { ...half, messages: [forged] }) }
    expect(() => decodeHalf(raw)).to.throw(MessageInvalid, /replyTo/)
  })

  it('is left behind where another protocol brought it: nobody is behind it, and the broker would refuse every copy', () => {
    const raw = rawDelivery({ properties: { messageId: 'm', replyTo: DIRECT_REPLY_TO } })
    expect(forwardedProperties(raw, {})).not.to.have.property('replyTo')
  })

  it('comes as an address that is kept over a retry and a replay, and answers reach it', async () => {
    const answered = latch<string>()
    await bench.channel.consume(DIRECT_REPLY_TO, (message) => answered.resolve(String(message?.content)), {
      noAck: true,
    })
    const seen: (string | undefined)[] = []
    const done = latch<Message>()
    await bench.consume(
      async (message, { generation }) => {
        seen.push(message.replyTo)
        if (generation === 0) throw new Error('not yet')
        done.resolve(message)
      },
      { identity: 'unguarded', retry: { attempts: 2 } },
    )
    bench.put(bench.queue, { a: 1 }, { replyTo: DIRECT_REPLY_TO, messageId: 'request' })
    await bench.holds(1)
    expect((await bench.letters().replay()).replayed).to.equal(1)
    const { replyTo } = await within(done.promise, { what: 'the replayed message' })
    expect(replyTo).to.match(/^amq\.rabbitmq\.reply-to\./)
    expect(new Set(seen)).to.deep.equal(new Set([replyTo]))
    bench.put(replyTo!, 'answer')
    expect(await within(answered.promise, { what: 'the answer' })).to.equal('"answer"')
  })
})

function refusal(end: PromiseSettledResult<unknown>): unknown {
  const { reason } = end as PromiseRejectedResult
  expect(reason).to.include({ outcome: 'not-sent', retryable: false })
  return reason.cause
}
