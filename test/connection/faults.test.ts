import type { Channel } from 'amqplib'
import { expect } from 'chai'
import { ChannelKeeper } from '../../lib/connection/channel-keeper.ts'
import { Connection } from '../../lib/connection/connection.ts'
import { BrokerTimeout, Closed, NotConnected, ResourceMissing } from '../../lib/errors.ts'
import { Events } from '../../lib/observability/events.ts'
import { eventOf, eventually, latch } from '../support/eventually.ts'
import type { TcpProxy } from '../support/tcp-proxy.ts'
import { unique } from '../support/unique.ts'
import { administered, failure, wiring } from './wiring.ts'

/** Class and method of AMQP, as they stand in a frame. */
const [CHANNEL_OPEN, CHANNEL_CLOSE] = ['\0\x14\0\x0a', '\0\x14\0\x28']

/** How often a client has sent a method through the proxy from now on. */
function sentThrough(proxy: TcpProxy): (method: string) => number {
  const sent: Buffer[] = []
  proxy.on('data', (way, bytes) => way === 'to-server' && sent.push(bytes))
  return (method) => Buffer.concat(sent).toString('latin1').split(method).length - 1
}

describe('connection, when things fail', () => {
  const wired = wiring()

  async function connection(url = wired.broker.url, rpcTimeoutMs = 10_000): Promise<Connection> {
    const quick = { heartbeatSeconds: 10, handshakeTimeoutMs: 5_000, reconnectBaseMs: 20, reconnectCapMs: 100 }
    const made = new Connection({
      ...quick,
      urls: [url],
      role: 'test',
      service: 'test',
      rpcTimeoutMs,
      events: new Events(unique('instance')),
    })
    wired.later(() => made.close())
    await made.ready(10_000)
    return made
  }

  function keeper(of: Connection, setup: (channel: Channel) => Promise<void> = async () => {}) {
    const lost: Error[] = []
    const made = new ChannelKeeper<Channel>({
      connection: of,
      role: unique('channel'),
      open: () => of.openChannel(),
      setup,
      onLost: (_, reason) => lost.push(reason),
    })
    wired.later(() => made.close())
    return { keeper: made, lost }
  }

  it('P2: a channel error leaves the connection and the other channels alone', async () => {
    const one = await connection()
    const other = await one.openChannel()
    const broken = await one.openChannel()
    const states = wired.record('connection.state')
    const error = await failure(one.rpc('look', () => broken.checkQueue(unique('missing'))))
    expect(error).instanceOf(ResourceMissing)
    const queue = await wired.queue()
    expect((await other.checkQueue(queue)).queue).equal(queue)
    expect(states).empty
    expect(one.isOpen).equal(true)
  })

  it('P3: a lost channel is built and set up again, told once with the reason', async () => {
    const one = await connection()
    let setups = 0
    const { keeper: kept, lost } = keeper(one, async (channel) => {
      setups++
      await channel.prefetch(1)
    })
    await kept.start()
    const first = kept.channel!
    await failure(first.checkQueue(unique('missing')))
    await eventually(() => kept.channel !== undefined && kept.channel !== first)
    expect(setups).equal(2)
    expect(lost).length(1)
    expect(lost[0]?.message).contain('NOT_FOUND')
    expect(kept.problem).equal(undefined)
  })

  it('has at most one channel at a time: the old one is closed before the next is opened', async () => {
    const one = await connection()
    const open = new Set<Channel>()
    let most = 0
    const { keeper: kept } = keeper(one, async (channel) => {
      open.add(channel)
      channel.on('close', () => open.delete(channel))
      most = Math.max(most, open.size)
    })
    await kept.start()
    for (let i = 0; i < 5; i++) {
      const before = kept.channel
      kept.rebuild(new Error('give it up'))
      await eventually(() => kept.channel !== undefined && kept.channel !== before)
    }
    expect(most).equal(1)
    await kept.close()
    expect(open.size).equal(0)
    expect(await kept.ready(1_000)).equal(undefined)
  })

  it('P11: a failing setup is told by start(), and repeated by keep()', async () => {
    const one = await connection()
    const { keeper: strict } = keeper(one, () => Promise.reject(new Error('not like this')))
    expect(await failure(strict.start())).include({ message: 'not like this' })
    let tries = 0
    const { keeper: patient } = keeper(one, async () => {
      if (++tries < 3) throw new Error('not yet')
    })
    patient.keep()
    expect(patient.problem).contain('opening')
    expect(await patient.ready(5_000)).not.equal(undefined)
    expect(tries).equal(3)
  })

  it('ready() ends at its time, at its signal and at the close', async () => {
    const one = await connection()
    const never = latch()
    const { keeper: kept } = keeper(one, () => never.promise)
    kept.keep()
    expect(await kept.ready(20)).equal(undefined)
    expect(await kept.ready(Number.POSITIVE_INFINITY, AbortSignal.abort())).equal(undefined)
    const waiting = kept.ready(60_000)
    never.resolve()
    expect(await waiting).not.equal(undefined)
    const proxy = await wired.proxy()
    const two = await connection(proxy.url)
    const lost = wired.event('connection.state', ({ from }) => from === 'open')
    await proxy.refuse()
    proxy.cut()
    await lost
    expect(await failure(two.ready(50))).instanceOf(NotConnected)
    const reason = new Error('enough')
    expect(await failure(two.ready(60_000, AbortSignal.abort(reason)))).equal(reason)
    const closing = failure(two.ready())
    await two.close()
    expect(await closing).instanceOf(Closed)
  })

  it('a channel operation the broker does not answer ends in BrokerTimeout', async () => {
    const proxy = await wired.proxy()
    const one = await connection(proxy.url, 200)
    const queue = await wired.queue()
    const sent = sentThrough(proxy)
    proxy.stall('to-client')
    const started = performance.now()
    const opening = await failure(one.withChannel((channel) => channel.checkQueue(queue)))
    expect(opening).instanceOf(BrokerTimeout)
    expect(opening.message).contain('within 200 ms to: open a channel')
    expect(performance.now() - started, 'far from the usual 10 s').below(8_000)
    await proxy.resume()
    const asking = failure(
      one.withChannel((channel) => {
        proxy.stall('to-client')
        return one.rpc('check the queue', () => channel.checkQueue(queue))
      }),
    )
    expect((await asking).message).contain('check the queue')
    await proxy.resume()
    expect(await one.withChannel((channel) => channel.checkQueue(queue))).include({ queue })
    expect(sent(CHANNEL_OPEN)).equal(3)
    await eventually(() => expect(sent(CHANNEL_CLOSE)).equal(3))
  })

  it('a channel that opens after its time is closed again', async () => {
    const proxy = await wired.proxy()
    const one = await connection(proxy.url, 100)
    proxy.stall('to-client')
    for (let i = 0; i < 5; i++) expect(await failure(one.openChannel())).instanceOf(BrokerTimeout)
    const sent = sentThrough(proxy)
    await proxy.resume()
    await eventually(() => expect(sent(CHANNEL_CLOSE)).equal(5))
  })

  it('P17: a half-open link is noticed by the heartbeat, and mended', async function () {
    this.timeout(30_000)
    const { proxy, surehop } = await wired.behindProxy({ heartbeatSeconds: 1 })
    const queue = await wired.queue()
    const producer = surehop.producer()
    await producer.send(queue, { body: 1 })
    const lost = wired.event('connection.state', ({ from }) => from === 'open')
    // Only this way: the broker, which hears the client, does not end the connection before the client does.
    proxy.swallow('to-client')
    const sent = producer.send(queue, { body: 2 })
    const started = performance.now()
    expect((await lost).error?.message).contain('Heartbeat timeout')
    expect(performance.now() - started, 'far from the usual 20 s').below(9_000)
    await proxy.resume()
    expect((await sent).sends).equal(2)
  })

  it('close() is bounded while the broker answers nothing', async () => {
    const { proxy, surehop } = await wired.behindProxy({ rpcTimeoutMs: 300, drainMs: 100 })
    const queue = await wired.queue()
    const producer = surehop.producer()
    await producer.send(queue, { body: 1 })
    proxy.stall()
    const open = failure(producer.send(queue, { body: 2 }))
    const ended = eventOf(proxy, 'disconnection')
    const started = performance.now()
    await surehop.close()
    expect(performance.now() - started, 'far from the usual 10 s').below(8_000)
    expect(await open).include({ outcome: 'unknown' })
    await proxy.resume()
    await ended
  })
})

describe('connection, when operators close it', () => {
  const wired = wiring(administered)

  it('a broker that ends connections in good order is connected to again', async () => {
    const surehop = await wired.surehop()
    const queue = await wired.queue()
    const producer = surehop.producer()
    await producer.send(queue, { body: 1 })
    let meanwhile = ''
    const lost = wired.event('connection.state', ({ from }) => {
      if (from === 'open') meanwhile = surehop.health().reasons.join()
      return from === 'open'
    })
    await wired.broker.ctl('close_all_connections', 'maintenance')
    expect((await lost).error?.message).contain('maintenance')
    expect(meanwhile).contain('publish connection is connecting').contain('maintenance')
    expect((await producer.send(queue, { body: 2 })).outcome).equal('confirmed')
    await eventually(() => expect(surehop.health()).deep.equal({ healthy: true, reasons: [] }))
  })
})
