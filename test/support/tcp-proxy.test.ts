import { once } from 'node:events'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { type ChannelModel, connect as connectAmqp } from 'amqplib'
import { expect } from 'chai'
import { eventOf, eventually, latch, within } from './eventually.ts'
import { freePort } from './ports.ts'
import { startProxy, type TcpProxy } from './tcp-proxy.ts'
import { uniqueQueue } from './unique.ts'

describe('TCP proxy', () => {
  let echo: Server
  let proxy: TcpProxy
  const sockets: Socket[] = []

  beforeEach(async () => {
    const port = await freePort()
    echo = createServer((socket) => socket.on('error', () => {}).pipe(socket)).listen(port, '127.0.0.1')
    await once(echo, 'listening')
    proxy = await startProxy(`amqp://guest:guest@127.0.0.1:${port}/vhost?heartbeat=5`)
  })

  afterEach(async () => {
    for (const socket of sockets.splice(0)) socket.destroy()
    await proxy.close()
    echo.close()
  })

  async function client(): Promise<Socket> {
    const socket = connect(proxy.port, '127.0.0.1').on('error', () => {})
    sockets.push(socket)
    await Promise.all([once(socket, 'connect'), eventOf(proxy, 'connection')])
    return socket
  }

  async function echoes(socket: Socket, text: string, withinMs = 1_000): Promise<string> {
    const answer = eventOf<[Buffer]>(socket, 'data', { withinMs })
    socket.write(text)
    return (await answer)[0].toString()
  }

  async function echoed(socket: Socket, bytes: Buffer): Promise<void> {
    let missing = bytes.length
    const all = latch()
    const listen = (part: Buffer) => {
      missing -= part.length
      if (missing === 0) all.resolve()
    }
    socket.on('data', listen)
    socket.write(bytes)
    await within(all.promise).finally(() => socket.off('data', listen))
  }

  it('passes bytes both ways, and keeps the rest of the URL', async () => {
    expect(await echoes(await client(), 'hello')).to.equal('hello')
    expect(proxy.url).to.equal(`amqp://guest:guest@127.0.0.1:${proxy.port}/vhost?heartbeat=5`)
    expect([proxy.connections, proxy.accepted]).to.deep.equal([1, 1])
  })

  it('cuts with a reset, and welcomes the next connection', async () => {
    const socket = await client()
    await echoes(socket, 'x')
    const closed = eventOf(socket, 'close')
    const reset = eventOf<[NodeJS.ErrnoException]>(socket, 'error')
    proxy.cut()
    expect((await reset)[0].code).to.equal('ECONNRESET')
    await closed
    expect(await echoes(await client(), 'again')).to.equal('again')
  })

  it('cuts in good order when asked to', async () => {
    const socket = await client()
    await echoes(socket, 'x')
    const end = eventOf(socket, 'end')
    proxy.cut('fin')
    await end
  })

  it('stalls one direction and delivers what was held back upon resume', async () => {
    const socket = await client()
    proxy.stall('to-client')
    const silence = await echoes(socket, 'held', 150).catch((error: Error) => error.message)
    expect(silence).to.equal('the event "data" did not happen within 150 ms')
    const late = eventOf<[Buffer]>(socket, 'data')
    await proxy.resume()
    expect((await late)[0].toString()).to.equal('held')
  })

  it('stalls at exactly the bytes that a listener saw', async () => {
    const socket = await client()
    proxy.once('data', () => proxy.stall())
    await echoes(socket, 'first', 100).catch(() => undefined)
    const late = eventOf<[Buffer]>(socket, 'data')
    await proxy.resume()
    expect((await late)[0].toString()).to.equal('first')
  })

  it('swallows bytes for good', async () => {
    const socket = await client()
    proxy.swallow('to-server')
    const swallowed = eventOf(proxy, 'data')
    socket.write('lost')
    await swallowed
    await proxy.resume()
    expect(await echoes(socket, 'kept')).to.equal('kept')
  })

  it('delays bytes and keeps their order', async () => {
    const socket = await client()
    proxy.delay(60, 'to-server')
    let received = ''
    const all = new Promise<void>((resolve) => {
      socket.on('data', (bytes) => {
        received += bytes.toString()
        if (received.length === 2) resolve()
      })
    })
    const begun = Date.now()
    const seen = eventOf(proxy, 'data')
    socket.write('a')
    await seen
    await proxy.resume()
    socket.write('b')
    await within(all)
    expect(received).to.equal('ab')
    expect(Date.now() - begun).to.be.at.least(55)
  })

  it('is a narrow line that its connections share, and a wide one again at once', async () => {
    const sockets = [await client(), await client()]
    const [total, bytesPerSecond] = [20_000, 40_000]
    proxy.throttle(bytesPerSecond, 'to-server')
    const begun = performance.now()
    const elapsed = () => performance.now() - begun
    await Promise.all(sockets.map((socket) => echoed(socket, Buffer.alloc(total / 2, 'n'))))
    expect(elapsed()).to.be.at.least((total / bytesPerSecond) * 1_000 - 10)
    const rest = echoed(sockets[0]!, Buffer.alloc(10 * bytesPerSecond, 'w'))
    await proxy.resume()
    await rest
    expect(elapsed(), 'far from ten seconds').to.be.lessThan(5_000)
  })

  it('refuses new connections and leaves the open ones alone', async () => {
    const socket = await client()
    await proxy.refuse()
    const refused = connect(proxy.port, '127.0.0.1')
    const [error] = (await once(refused, 'error')) as [NodeJS.ErrnoException]
    expect(error.code).to.equal('ECONNREFUSED')
    expect(await echoes(socket, 'still here')).to.equal('still here')
  })
})

describe('TCP proxy in front of a broker', () => {
  let proxy: TcpProxy
  let through: ChannelModel
  let beside: ChannelModel
  let queue: string

  beforeEach(async () => {
    queue = uniqueQueue()
    proxy = await startProxy(process.env['AMQP_URL'] as string)
    through = await connectAmqp(proxy.url)
    beside = await connectAmqp(process.env['AMQP_URL'] as string)
    for (const connection of [through, beside]) connection.on('error', () => {})
    const channel = await beside.createChannel()
    await channel.assertQueue(queue, { durable: true, arguments: { 'x-queue-type': 'quorum' } })
  })

  afterEach(async () => {
    await beside.close()
    await proxy.close()
  })

  it('swallows publisher confirms: the broker has the message, and nobody is told', async () => {
    const channel = await through.createConfirmChannel()
    const told: string[] = []
    const publish = (body: string) => channel.sendToQueue(queue, Buffer.from(body), {}, () => told.push(body))
    proxy.swallowAcks('to-client')
    publish('first')
    await eventually(() => proxy.acksSwallowed === 1)
    const looking = await beside.createChannel()
    const message = await looking.get(queue, { noAck: true })
    expect(message ? message.content.toString() : 'none').to.equal('first')
    await proxy.resume()
    publish('second')
    await eventually(() => told.length > 0)
    expect(told).to.deep.equal(['second'])
  })

  it("swallows consumers' acks: what was acked comes again", async () => {
    const channel = await through.createConfirmChannel()
    channel.sendToQueue(queue, Buffer.from('once'))
    await channel.waitForConfirms()
    proxy.swallowAcks('to-server')
    const message = await channel.get(queue)
    if (message) channel.ack(message)
    await eventually(() => proxy.acksSwallowed === 1)
    proxy.cut()
    const again = await beside.createChannel()
    const second = await eventually(async () => (await again.get(queue, { noAck: true })) || Promise.reject())
    expect([second.content.toString(), second.fields.redelivered]).to.deep.equal(['once', true])
  })

  it('says that only a proxy in front of a broker knows acks', async () => {
    const other = await startProxy('redis://127.0.0.1:1')
    expect(() => other.swallowAcks()).to.throw('expected a proxy of an amqp: URL')
    await other.close()
  })
})
