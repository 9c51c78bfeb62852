import { PassThrough } from 'node:stream'
import { expect } from 'chai'
import fc from 'fast-check'
import { type GatherableConnection, gatherMessages } from '../../lib/connection/gather-messages.ts'

const amqplib = new URL('lib/', import.meta.resolve('amqplib'))
const load = async (file: string) => (await import(new URL(file, amqplib).href)).default
const { Connection } = (await load('connection.js')) as { Connection: { readonly prototype: object } }
const defs = (await load('defs.js')) as Readonly<Record<string, number>>

/** What a user of amqplib's connection does with one of two channels. */
type Step = { readonly channel: number } & (
  | { readonly ack: number }
  | { readonly fields: object; readonly properties: object; readonly bodyBytes: number }
  | { readonly turn: true }
)

/** amqplib's own way of sending, onto streams of ours. */
class Line {
  readonly connection: GatherableConnection
  readonly chunks: Buffer[][] = [[], [], []]

  constructor(frameMax = 131_072) {
    const channels = this.chunks.map((chunks) => {
      const buffer = new PassThrough({ objectMode: true })
      buffer.on('data', (chunk: Buffer) => chunks.push(chunk))
      return { buffer }
    })
    this.connection = Object.assign(Object.create(Connection.prototype), {
      channels,
      frameMax,
      sentSinceLastCheck: false,
    })
  }

  publish(channel: number, fields: object, properties: object, content = Buffer.alloc(0)): boolean {
    const { BasicPublish, BasicProperties } = defs
    return this.connection.sendMessage(
      channel,
      BasicPublish!,
      fields as Record<string, unknown>,
      BasicProperties!,
      properties as Record<string, unknown>,
      content,
    )
  }

  /** @returns what was thrown */
  async do(step: Step): Promise<unknown> {
    try {
      if ('turn' in step) await new Promise(setImmediate)
      else if ('ack' in step)
        this.connection.sendMethod(step.channel, defs['BasicAck']!, { deliveryTag: step.ack, multiple: false })
      else this.publish(step.channel, step.fields, step.properties, Buffer.alloc(step.bodyBytes, 'body'))
    } catch (error) {
      return `${error}`
    }
    return undefined
  }

  async sent(): Promise<string[]> {
    await new Promise(setImmediate)
    return this.chunks.map((chunks) => Buffer.concat(chunks).toString('hex'))
  }
}

const text = fc.oneof(
  fc.string({ maxLength: 40 }),
  fc.string({ unit: 'binary', maxLength: 40 }),
  fc.constantFrom(63, 64, 255, 256, 300).map((length) => 'x'.repeat(length)),
  fc.constantFrom(85, 127, 128).map((length) => 'é'.repeat(length)),
  fc.constant('\ud800 half a character'),
)
const wholeNumber = fc.oneof(
  fc.maxSafeInteger(),
  fc
    .tuple(fc.constantFrom(0, 7, 8, 15, 16, 31, 32, 50, 53), fc.constantFrom(1, -1), fc.integer({ min: -2, max: 1 }))
    .map(([bits, sign, more]) => sign * (2 ** bits + more))
    .filter(Number.isSafeInteger),
)
const number = fc.oneof(fc.nat(255), fc.integer(), fc.constantFrom(0x1_2345_6789, Number.NaN, 1.5, 2 ** 53))
const anything = fc.oneof(
  { weight: 6, arbitrary: text },
  { weight: 2, arbitrary: fc.boolean() },
  number,
  fc.constantFrom(undefined, null, [1, 'two'], { nested: true }, Buffer.from('x')),
)
const maybe = <T>(value: fc.Arbitrary<T>) => fc.oneof({ weight: 8, arbitrary: value }, anything)
const plainFields = { exchange: fc.string({ maxLength: 20 }), routingKey: text, mandatory: fc.boolean() }
const fields = fc.record({ exchange: maybe(plainFields.exchange), routingKey: maybe(text), mandatory: fc.boolean() })
/** Some fill what is left of the memory, some are more than amqplib takes. */
const headerText = fc.oneof(
  { weight: 8, arbitrary: text },
  fc.tuple(fc.constantFrom('x', 'é'), fc.constantFrom(3_000, 30_000, 60_000, 70_000)).map(([one, n]) => one.repeat(n)),
)
const table = (value: fc.Arbitrary<unknown>) =>
  fc
    .tuple(fc.dictionary(text, value, { maxKeys: 4 }), fc.boolean())
    .map(([own, inherited]) => (inherited ? Object.create(own) : own))
const texts = [
  'contentType',
  'contentEncoding',
  'correlationId',
  'replyTo',
  'expiration',
  'messageId',
  'type',
  'userId',
]
const plain = {
  ...Object.fromEntries([...texts, 'appId', 'clusterId'].map((name) => [name, fc.string({ maxLength: 40 })])),
  headers: table(fc.oneof(headerText, fc.boolean(), wholeNumber)),
  deliveryMode: fc.constantFrom(1, 2),
  priority: fc.nat(255),
  timestamp: fc.oneof(fc.nat(), fc.constantFrom(0x1_2345_6789, Number.MAX_SAFE_INTEGER)),
}
const plainProperties = fc.record(plain, { requiredKeys: [] })
const properties = fc.record(
  {
    ...Object.fromEntries(Object.entries(plain).map(([name, value]) => [name, maybe<unknown>(value)])),
    type: maybe(text),
    headers: maybe(table(anything)),
  },
  { requiredKeys: [] },
)
const bodyBytes = fc.oneof(fc.nat(2_000), fc.constantFrom(0, 3_999, 4_088, 4_089, 16_384, 16_385, 30_000))
const channel = fc.constantFrom(1, 2)
const step = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({ channel, fields: fc.record(plainFields), properties: plainProperties, bodyBytes }),
  },
  { weight: 3, arbitrary: fc.record({ channel, fields, properties, bodyBytes }) },
  fc.record({ channel, ack: fc.nat(1_000) }),
  fc.record({ channel, turn: fc.constant(true as const) }),
) as fc.Arbitrary<Step>

/** Of a message with its whole body in one frame, as amqplib writes it. */
async function largestFrame(step: Step): Promise<number> {
  const line = new Line()
  await line.do({ ...step, bodyBytes: 0 } as Step)
  const frames = Buffer.from((await line.sent())[step.channel]!, 'hex')
  let [at, largest] = [0, 0]
  while (at < frames.length) {
    const bytes = frames.readUInt32BE(at + 3) + 8
    largest = Math.max(largest, bytes)
    at += bytes
  }
  return largest
}

describe('messages of one turn', () => {
  it('are the same bytes on each channel, and the same errors, in our words or its own, as amqplib writes by itself', () =>
    fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 40 }), fc.constantFrom(4_096, 131_072), async (steps, frameMax) => {
        const [theirs, ours] = [new Line(frameMax), new Line(frameMax)]
        gatherMessages(ours.connection)
        for (const one of steps) {
          const said = await ours.do(one)
          if (`${said}`.includes('frame_max')) expect(await largestFrame(one), 'rightly refused').to.be.above(frameMax)
          else if (`${said}`.includes('expected headers of at most 65536 bytes together'))
            expect(`${await theirs.do(one)}`, JSON.stringify(one)).to.contain('exceeds the 65536 byte encoding buffer')
          else expect(said, JSON.stringify(one)).to.equal(await theirs.do(one))
        }
        expect(await ours.sent()).to.deep.equal(await theirs.sent())
      }),
      { numRuns: 300 },
    )).timeout(60_000)

  it('are handed over as one, before the loop waits again', async () => {
    const line = new Line()
    gatherMessages(line.connection)
    for (const routingKey of ['a', 'b', 'c'])
      line.publish(1, { exchange: '', routingKey }, { headers: { transaction_id: 't', derived: true } })
    expect(line.chunks[1]).to.have.length(0)
    await new Promise(setImmediate)
    expect(line.chunks[1]).to.have.length(1)
    expect(line.connection.sentSinceLastCheck, 'the heartbeat sees it').to.equal(true)
  })

  it('go before what is told to their channel later in the same turn', async () => {
    const line = new Line()
    gatherMessages(line.connection)
    line.publish(1, { exchange: '', routingKey: 'q' }, {})
    line.connection.sendMethod(1, defs['ChannelClose']!, { replyCode: 200, replyText: '', classId: 0, methodId: 0 })
    await new Promise(setImmediate)
    expect(line.chunks[1]!.map((chunk) => chunk.readUInt32BE(7))).to.deep.equal([
      defs['BasicPublish'],
      defs['ChannelClose'],
    ])
  })

  it('are dropped with their channel, and its number’s next owner hears nothing of them', async () => {
    const line = new Line()
    gatherMessages(line.connection)
    line.publish(1, { exchange: '', routingKey: 'q' }, {})
    line.connection.channels[1]!.buffer.end()
    const buffer = new PassThrough({ objectMode: true })
    Object.assign(line.connection.channels, { 1: { buffer } })
    await new Promise(setImmediate)
    expect(buffer.readableLength).to.equal(0)
  })

  it('take the body as it was when it was published', async () => {
    const line = new Line()
    gatherMessages(line.connection)
    const body = Buffer.from('before')
    line.publish(1, { exchange: '', routingKey: 'q' }, {}, body)
    body.write('after!')
    expect((await line.sent())[1]).to.include(Buffer.from('before').toString('hex'))
  })

  it('tell the publisher when their channel is full', () => {
    const line = new Line()
    gatherMessages(line.connection)
    const { buffer } = line.connection.channels[1]!
    buffer.cork()
    while (buffer.write(Buffer.from('x')));
    expect(line.publish(1, { exchange: '', routingKey: 'q' }, {})).to.equal(false)
  })

  for (const [where, headers] of Object.entries({ plain: {}, 'not plain': { count: 1 } }))
    it(`fail alone when their headers are larger than a frame, and the broker would close the connection: ${where}`, async () => {
      const line = new Line(4_096)
      gatherMessages(line.connection)
      const publish = (bytes: number) =>
        line.publish(1, { exchange: '', routingKey: 'q' }, { headers: { ...headers, text: 'x'.repeat(bytes) } })
      expect(() => publish(5_000)).to.throw(RangeError, 'frame_max')
      publish(3_000)
      const [, sent] = await line.sent()
      expect(Buffer.from(sent!, 'hex').length).to.be.within(3_000, 3_200)
    })

  it('leave nothing behind when what they are made of throws half way', async () => {
    const [theirs, ours] = [new Line(), new Line()]
    gatherMessages(ours.connection)
    const faulty = {
      get text(): string {
        throw new Error('thrown by a getter')
      },
    }
    for (const line of [theirs, ours]) {
      line.publish(1, { exchange: '', routingKey: 'before' }, {})
      expect(() => line.publish(1, { exchange: '', routingKey: 'q' }, { headers: faulty })).to.throw('by a getter')
      line.publish(1, { exchange: '', routingKey: 'after' }, {})
    }
    expect(await ours.sent()).to.deep.equal(await theirs.sent())
  })

  it('are not taken for what they are not: another method with a content goes amqplib’s way', async () => {
    const [theirs, ours] = [new Line(), new Line()]
    gatherMessages(ours.connection)
    for (const { connection } of [theirs, ours]) {
      const fields = { replyCode: 312, replyText: 'NO_ROUTE', exchange: '', routingKey: 'q' }
      connection.sendMessage(1, defs['BasicReturn']!, fields, defs['BasicProperties']!, {}, Buffer.from('body'))
    }
    expect(await ours.sent()).to.deep.equal(await theirs.sent())
  })

  it('go as before where amqplib works in another way', () => {
    const sendMessage = () => true
    const other = { sendMessage }
    gatherMessages(other)
    expect(other.sendMessage).to.equal(sendMessage)
  })

  it('go as before where amqplib writes other bytes, or needs more than today to write them', () => {
    const { connection } = new Line()
    const own = connection.sendMessage
    const others: GatherableConnection['sendMessage'][] = [
      function (this: GatherableConnection, ...args) {
        this.channels[args[0]]?.buffer.write(Buffer.from('a new frame'))
        return own.apply(this, args)
      },
      function (this: GatherableConnection & { readonly tracer?: Map<string, number> }, ...args) {
        this.tracer!.clear()
        return own.apply(this, args)
      },
    ]
    for (const sendMessage of others) {
      connection.sendMessage = sendMessage
      gatherMessages(connection)
      expect(connection.sendMessage).to.equal(sendMessage)
    }
  })
})
