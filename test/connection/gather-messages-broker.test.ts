import { type ChannelModel, type ConfirmChannel, connect, type Options } from 'amqplib'
import { expect } from 'chai'
import { keepNumbers, type NumberedConnection } from '../../lib/connection/channel-numbers.ts'
import { type GatherableConnection, gatherMessages } from '../../lib/connection/gather-messages.ts'
import { type GatherableSocket, gatherWrites } from '../../lib/connection/gather-writes.ts'
import { eventOf, eventually, within } from '../support/eventually.ts'
import { uniqueExchange, uniqueQueue } from '../support/unique.ts'

type Inner = GatherableConnection &
  NumberedConnection & { readonly stream: GatherableSocket & { destroy(error: Error): void } }
type Numbered = ConfirmChannel & { readonly ch: number; accept(frame: { readonly id?: number }): void }

const CHANNEL_CLOSE = 0x14_0028
/** Plain and not, empty, small, large, more than a frame. */
const SIZES = [0, 1, 100, 2_000, 16_384, 16_385, 131_064, 131_065, 300_000]
const HEADERS: Options.Publish['headers'][] = [
  undefined,
  {},
  { text: 'é'.repeat(100), yes: true },
  { count: 7, nested: { list: [1] } },
  { text: 'x'.repeat(30_000) },
]

const BRIEF = { arguments: { 'x-expires': 60_000 } }
const COUNT = 210
const isLost = (i: number) => i % 7 === 0
const bodyOf = (i: number) => Buffer.alloc(SIZES[i % SIZES.length]!, `${i} `)

describe('messages of one turn, at the broker', () => {
  let model: ChannelModel
  let inner: Inner

  beforeEach(async () => {
    model = await connect(process.env['AMQP_URL'] ?? '')
    model.on('error', () => {})
    inner = model.connection as unknown as Inner
    gatherWrites(inner.stream)
    gatherMessages(inner)
    keepNumbers(inner)
  })
  afterEach(() => model.close().catch(() => {}))

  const open = async () => {
    const channel = (await model.createConfirmChannel()) as Numbered
    channel.on('error', () => {})
    return channel
  }

  it('arrive in order, and each is told its own end, on channels in turns and among other methods', async () => {
    const channels = [await open(), await open(), await open()]
    const queues = await Promise.all(
      channels.map(async (it) => (await it.assertQueue(uniqueQueue('turn'), BRIEF)).queue),
    )
    const returned = new Set<string>()
    for (const channel of channels) channel.on('return', ({ properties }) => returned.add(properties.messageId))
    const ends: Promise<{ i: number; wasReturned: boolean }>[] = []
    const others: Promise<unknown>[] = []
    for (let i = 0; i < COUNT; i++) {
      const [channel, queue] = [channels[i % 3]!, queues[i % 3]!]
      const options = { messageId: `${i}`, mandatory: true, headers: HEADERS[i % HEADERS.length], priority: 0 }
      ends.push(
        new Promise((resolve, reject) =>
          channel.publish('', isLost(i) ? 'no such queue' : queue, bodyOf(i), options, (error) =>
            error ? reject(error) : resolve({ i, wasReturned: returned.has(`${i}`) }),
          ),
        ),
      )
      if (i % 11 === 0) others.push(channel.checkQueue(queue))
      if (i % 50 === 0) await new Promise(setImmediate)
    }
    for (const { i, wasReturned } of await within(Promise.all(ends))) expect(wasReturned, `${i}`).to.equal(isLost(i))
    await within(Promise.all(others))
    for (const [at, queue] of queues.entries()) {
      for (let i = at; i < COUNT; i += 3) {
        if (isLost(i)) continue
        const got = await channels[0]!.get(queue, { noAck: true })
        if (!got) throw new Error(`expected message ${i} in queue ${at}, got none`)
        expect(got.properties.messageId).to.equal(`${i}`)
        expect(got.content.equals(bodyOf(i)), `body of ${i}`).to.equal(true)
        expect(got.properties.headers).to.deep.equal(HEADERS[i % HEADERS.length] ?? {})
      }
      expect(await channels[0]!.get(queue, { noAck: true })).to.equal(false)
    }
  }).timeout(60_000)

  it('go before the close of their channel in the same turn, and none goes after it', async () => {
    const [channel, other] = [await open(), await open()]
    const { queue } = await other.assertQueue(uniqueQueue('close'), BRIEF)
    for (let i = 0; i < 100; i++) channel.publish('', queue, Buffer.from(`${i}`), {}, () => {})
    const closed = channel.close()
    expect(() => channel.publish('', queue, Buffer.from('late'))).to.throw('closing')
    await closed
    await eventually(async () => (await other.checkQueue(queue)).messageCount === 100)
  })

  for (const [how, end] of Object.entries({
    'is closed': (): void => void model.close().catch(() => {}),
    breaks: (): void => inner.stream.destroy(new Error('the wire is cut')),
  }))
    it(`are told once that they were lost, when the connection ${how} in the same turn`, async () => {
      const channel = await open()
      const lost = eventOf(channel, 'close')
      const ends: unknown[] = []
      for (let i = 0; i < 10; i++)
        channel.publish('', 'no such queue', Buffer.from('x'), {}, (error) => ends.push(error))
      end()
      await lost
      await new Promise(setImmediate)
      expect(ends).to.have.length(10)
      for (const error of ends) expect(error).to.be.instanceOf(Error)
    })

  it('hurt nobody when the broker closes their channel in that turn and its number has a new owner at once', async () => {
    const channel = await open()
    const accept = channel.accept
    const next = new Promise<Numbered>((resolve, reject) => {
      channel.accept = (frame) => {
        if (frame.id === CHANNEL_CLOSE)
          for (let i = 0; i < 5; i++) channel.publish('', 'no such queue', Buffer.alloc(20_000), {}, () => {})
        accept.call(channel, frame)
        if (frame.id === CHANNEL_CLOSE) open().then(resolve, reject)
      }
    })
    channel.publish(uniqueExchange('missing'), '', Buffer.from('x'), {}, () => {})
    const owner = await within(next, { what: 'the next channel' })
    const answer = await new Promise((resolve) => owner.publish('', 'no such queue', Buffer.from('x'), {}, resolve))
    expect(answer, 'the connection lives').to.equal(null)
    expect((await open()).ch, 'the number is given back').to.equal(channel.ch)
  })
})
