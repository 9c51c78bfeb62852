// What a publisher can put on the wire by hand, and no client would write.

import { expect } from 'chai'
import { connect, fixed, MemoryIdempotencyStore } from '../../lib/index.ts'
import { type Field, RawPublisher } from '../fuzz/wire.ts'
import { eventually, latch } from '../support/eventually.ts'
import { uniqueQueue } from '../support/unique.ts'

const URL = process.env['AMQP_URL']!
const bytes = (text: string) => Buffer.from(text, 'latin1')
const text = (value: string): Field => ({ t: 'S', v: bytes(value) })
const typed = (type: string, value: Field): Field => ({
  t: 'F',
  v: [
    [bytes('!'), text(type)],
    [bytes('value'), value],
  ],
})

describe('forged values in headers and properties', () => {
  let publisher: RawPublisher
  beforeEach(async () => {
    publisher = await RawPublisher.open(URL)
  })
  afterEach(() => publisher.close())

  const send = (queue: string, messageId: string, headers: [string, Field][] = [], body = '1') =>
    publisher.publish({
      exchange: '',
      routingKey: bytes(queue),
      properties: { headers: headers.map(([name, value]) => [bytes(name), value]), messageId: bytes(messageId) },
      body: bytes(body),
    })

  const OURS = [
    'unreadable',
    'publish-id',
    'attempt',
    'generation',
    'first-failed-at',
    'exchange',
    'key',
    'edited-from',
  ]
  for (const name of ['transaction_id', ...OURS.map((header) => `surehop-${header}`)])
    it(`a table that has no text, in place of ${name}, neither ends the connection nor holds its delivery`, async () => {
      await using surehop = await connect({ amqp: URL, service: 'forged' })
      const queue = uniqueQueue()
      const handler = () => Promise.reject(new Error('no'))
      await surehop.consume(queue, { idempotency: new MemoryIdempotencyStore(), retry: { attempts: 1 } }, handler)
      const table = ['toString', 'valueOf', 'constructor', 'toJSON'].map((own) => [bytes(own), text('1')] as const)
      await send(queue, 'forged', [[name, { t: 'F', v: table.map(([own, value]) => [own, value]) }]])
      const letters = surehop.deadLetters(queue)
      await eventually(async () => (await letters.count()) === 1)
      const [letter] = await letters.show('forged')
      expect(letter!.reason).to.be.a('string')
      expect(surehop.health().reasons).to.deep.equal([])
    })

  for (const [what, value] of [
    ['a double that is no number', typed('double', text('abc'))],
    ['a float that is infinite', typed('float', { t: 'd', v: 1e300 })],
    ['a timestamp that is a text', typed('timestamp', text('abc'))],
    ['a type nobody knows', { t: 'A', v: [typed('\x1b[31m', text('abc'))] }],
  ] as [string, Field][])
    it(`a table that amqplib would send as ${what} neither ends the connection nor holds its delivery`, async () => {
      await using surehop = await connect({ amqp: URL, service: 'forged' })
      const queue = uniqueQueue()
      const neighbour = latch<number>()
      const retry = { attempts: 3, backoff: fixed({ delayMs: 100 }) }
      const handler = async (message: { messageId: string }, { attempt }: { attempt: number }) => {
        if (message.messageId === 'forged' || attempt === 1) throw new Error('not now')
        neighbour.resolve(attempt)
      }
      await surehop.consume(queue, { idempotency: new MemoryIdempotencyStore(), retry }, handler)
      await send(queue, 'forged', [['forged', value]])
      await send(queue, 'neighbour')
      expect(await neighbour.promise).to.equal(2)
      const letters = surehop.deadLetters(queue)
      await eventually(async () => (await letters.count()) === 1)
      const [letter] = await letters.show('forged')
      expect(letter!.by).to.equal('broker')
      expect(letter!.reason).to.match(
        /^rejected \(header "forged" has a table with a field "!", which cannot be sent again\)$/,
      )
      expect(letter!.headers).to.have.property('forged')
      for await (const line of letters.exportTo())
        expect(JSON.parse(line).headers['surehop-reason']).to.equal(letter!.reason)
    })

  const notUtf8 = bytes('\xfe'.repeat(200))
  for (const [what, message, told] of [
    ['property', { type: notUtf8 }, /^rejected \(property "type" takes more than 255 bytes/],
    [
      'name of a header',
      { headers: [[notUtf8, text('1')]] },
      /^rejected \(header .* has a name of more than 255 bytes/,
    ],
    [
      'table of headers',
      { headers: [[bytes('h'), text('x'.repeat(65_300))]] },
      /^rejected \(headers of more than 49152 bytes/,
    ],
  ] as [string, object, RegExp][])
    it(`a ${what} too long for any client to send again is left to the broker, and the letter says why`, async () => {
      await using surehop = await connect({ amqp: URL, service: 'forged' })
      const queue = uniqueQueue()
      const handler = () => Promise.reject(new Error('no'))
      await surehop.consume(queue, { idempotency: new MemoryIdempotencyStore(), retry: { attempts: 1 } }, handler)
      const properties = { messageId: bytes('long'), ...message }
      await publisher.publish({ exchange: '', routingKey: bytes(queue), properties, body: bytes('1') })
      const letters = surehop.deadLetters(queue)
      await eventually(async () => (await letters.count()) === 1)
      const [letter] = await letters.show('long')
      expect(letter!.reason).to.match(told)
    })

  it('two message ids that differ only in bytes that are no text are not taken for one', async () => {
    await using surehop = await connect({ amqp: URL, service: 'forged' })
    const queue = uniqueQueue()
    await surehop.consume(queue, { idempotency: new MemoryIdempotencyStore() }, async () => {})
    await send(queue, 'id-\xfe')
    await send(queue, 'id-\xff')
    const letters = surehop.deadLetters(queue)
    await eventually(async () => (await letters.count()) === 2)
    for await (const { errorMessage } of letters.list())
      expect(errorMessage).to.equal('expected message_id to be text in UTF-8, got bytes that are not')
  })

  it('a letter whose headers are thousands of small values is imported as it was exported', async () => {
    await using surehop = await connect({ amqp: URL, service: 'forged' })
    const queue = uniqueQueue()
    await (await surehop.consume(queue, {}, async () => {})).close()
    await send(`${queue}.dead`, 'm', [['h', { t: 'A', v: Array.from({ length: 8_000 }, () => ({ t: 't', v: 1n })) }]])
    const letters = surehop.deadLetters(queue)
    const lines: string[] = []
    for await (const line of letters.exportTo()) lines.push(line)
    await letters.discard()
    const source = (async function* () {
      yield* lines
    })()
    expect(await letters.importFrom(source)).to.deep.equal({ letters: 1 })
    const [letter] = await letters.show('m')
    expect(letter!.headers['h']).to.deep.equal(Array.from({ length: 8_000 }, () => true))
  })

  it('an exported line has nothing that a terminal obeys, and comes back as it was', async () => {
    await using surehop = await connect({ amqp: URL, service: 'forged' })
    const queue = uniqueQueue()
    await (await surehop.consume(queue, {}, async () => {})).close()
    const hostile = Buffer.from('"\u009b31m\u202e\u2028\u007f\u{e0001}"')
    await send(`${queue}.dead`, 'm', [['h', { t: 'S', v: hostile }]], hostile.toString('latin1'))
    const letters = surehop.deadLetters(queue)
    const lines: string[] = []
    for await (const line of letters.exportTo()) lines.push(line)
    expect(lines.join('')).to.match(/^[\x20-\x7e]*\n$/)
    await letters.discard()
    const source = (async function* () {
      yield* lines
    })()
    await letters.importFrom(source)
    const [letter] = await letters.show('m')
    expect(letter!.body.equals(hostile)).to.equal(true)
    expect(letter!.headers).to.deep.equal({ h: hostile.toString() })
  })
})
