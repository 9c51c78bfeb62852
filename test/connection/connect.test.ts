import { type AddressInfo, createConnection, createServer, type Server, type Socket } from 'node:net'
import { expect } from 'chai'
import { type ConnectionRefused, InvalidOption, NotConnected, type SurehopError } from '../../lib/errors.ts'
import { onEvent } from '../../lib/observability/events.ts'
import { connect } from '../../lib/surehop.ts'
import { startChild } from '../support/child.ts'
import { eventually, within } from '../support/eventually.ts'
import { freePort } from '../support/ports.ts'
import { unique } from '../support/unique.ts'
import { administered, failure, type Wiring, wiring } from './wiring.ts'

const EXITS = new URL('./exits.ts', import.meta.url)
const SECRET = 'pa/ss@w:rd%?#'

/** At once: after one attempt at each URL, and long before connect() would give up. */
async function refusedBy(wired: Wiring, amqp: string | string[], reason: string): Promise<ConnectionRefused> {
  const failures = wired.record('connection.state')
  const started = performance.now()
  const error = await failure<ConnectionRefused>(wired.surehop({ amqp }))
  expect(error).include({ code: 'CONNECTION_REFUSED', reason })
  expect(performance.now() - started).below(8_000)
  expect(failures.filter(({ error }) => error)).length([amqp].flat().length)
  return error
}

/** Class and method of connection.open-ok, as they begin its frame. */
const OPEN_OK = Buffer.from('01000000000005000a0029', 'hex')
/** connection.close with this code, "shutdown". */
const close = (code: number) =>
  Buffer.from(`01000000000013000a0032${code.toString(16).padStart(4, '0')}0873687574646f776e00000000ce`, 'hex')

describe('connect', () => {
  const wired = wiring()

  const refused = (amqp: string | string[], reason: string) => refusedBy(wired, amqp, reason)

  const as = (credentials: string, vhost = '') => `${wired.broker.url.replace('guest:guest', credentials)}${vhost}`

  it('tells a wrong password at once, and what to check', async () => {
    const { message } = await refused(as(`guest:${encodeURIComponent(SECRET)}`), 'credentials')
    expect(message).contain('refused the user name or password').contain('guest:***@')
    expect(message).not.contain('ss@w').and.not.contain(encodeURIComponent(SECRET))
  })

  it('tells an unknown virtual host at once', async () => {
    expect((await refused(as('guest:guest', '/nowhere'), 'vhost')).message)
      .contain('list_vhosts')
      .contain('/nowhere')
  })

  it('tells TLS spoken to a plain port at once', async () => {
    const { message } = await refused(wired.broker.url.replace('amqp:', 'amqps:'), 'tls')
    expect(message).contain('that the port speaks TLS')
  })

  it('tells a wrong password at once although another URL is dead', async () => {
    const dead = `amqp://guest:wrong@127.0.0.1:${await freePort()}`
    await refused([dead, as('guest:wrong')], 'credentials')
    await refused([as('guest:wrong'), dead], 'credentials')
  })

  it('refuses a URL it cannot read, without showing it', async () => {
    const halved = [
      'amqp://guest:p@ss@w/ord@localhost',
      'amqp://guest:p@ss@w?x@localhost',
      'amqp://g:p@ss@w#x@localhost/v',
    ]
    const others = [`amqp://guest:${SECRET}@localhost`, 'http://localhost', 'localhost:5672', 'amqp://', 'x']
    for (const amqp of [...halved, ...others]) {
      const error = await failure(connect({ amqp, service: 'test' }))
      expect(error, amqp).instanceOf(InvalidOption)
      expect(error.message).contain('amqp://user:password@host:5672/vhost').and.not.contain('ss@w')
    }
  })

  it('refuses a list of no URLs at once, instead of dialling nowhere until its time is up', async () => {
    const error = await failure(connect({ amqp: [], service: 'test' }))
    expect(error).instanceOf(InvalidOption)
    expect(error.message).contain('amqp').and.contain('got an array of 0')
  })

  it('P17: refuses a URL that switches the heartbeats off, without showing it; one with its own is taken', async () => {
    for (const heartbeat of ['0', '-1', '70000', 'no']) {
      const error = await failure(connect({ amqp: [`amqp://guest:geheim@h/?heartbeat=${heartbeat}`], service: 'test' }))
      expect(error, heartbeat).instanceOf(InvalidOption)
      expect(error.message).contain(`got "${heartbeat}"`).contain('heartbeatSeconds').and.not.contain('geheim')
    }
    for (const heartbeat of ['', '7'])
      expect((await wired.surehop({ amqp: `${wired.broker.url}?heartbeat=${heartbeat}` })).health().healthy).equal(true)
  })

  it('P28: takes no options of the client libraries, nor one that switches checking off', async () => {
    for (const name of ['recovery', 'rejectUnauthorized', 'timeout', 'credentials']) {
      const tls = { [name]: false } as object
      expect((await failure(connect({ amqp: wired.broker.url, service: 'test', tls }))).message).contain(
        `unknown option "${name}"`,
      )
    }
  })

  it('finds the broker behind several URLs, the first of them dead', async () => {
    const dead = `amqp://127.0.0.1:${await freePort()}`
    const surehop = await wired.surehop({ amqp: [dead, wired.broker.url] })
    const queue = await wired.queue()
    expect((await surehop.producer().send(queue, { body: 1 })).outcome).equal('confirmed')
  })

  it('gives up after connectTimeoutMs where no broker is, with the reason', async () => {
    const port = await freePort()
    const started = performance.now()
    const error = await failure<SurehopError>(
      wired.surehop({ amqp: `amqp://guest:secret@127.0.0.1:${port}`, connectTimeoutMs: 300 }),
    )
    expect(performance.now() - started).within(295, 10_000)
    expect(error).instanceOf(NotConnected)
    expect(error.message)
      .contain(`ECONNREFUSED 127.0.0.1:${port}`)
      .contain('Is the broker running')
      .not.contain('secret')
  })

  it('P12: a server that says nothing costs one attempt of handshakeTimeoutMs, not for ever', async () => {
    const mute = await muteServer()
    const attempts = wired.record('connection.state')
    const options = { amqp: mute.url, handshakeTimeoutMs: 50, connectTimeoutMs: 600 }
    const error = await failure(wired.surehop(options))
    expect(error.message).contain('connect ETIMEDOUT')
    expect(attempts.filter(({ to, error }) => to === 'connecting' && error).length).above(1)
    const surehop = await wired.surehop({ amqp: [mute.url, wired.broker.url], handshakeTimeoutMs: 400 })
    expect(surehop.health().healthy).equal(true)
  })

  it('close() does not wait for a handshake that never comes', async () => {
    const mute = await muteServer()
    const started = performance.now()
    await failure(wired.surehop({ amqp: mute.url, connectTimeoutMs: 100 }))
    expect(performance.now() - started, 'far from `handshakeTimeoutMs`').below(8_000)
    await eventually(() => expect(mute.sockets.size).equal(0))
  })

  it('closes twice without harm, and ends what waits for it', async () => {
    const surehop = await wired.surehop()
    const ends = [surehop.close(), surehop.close()]
    await Promise.all(ends)
    await surehop.close()
    expect(surehop.health().healthy).equal(false)
    expect((await failure(surehop.declare({}))).message).contain('closed')
  })

  it('P17: tries again after pauses that grow to the cap and are never the same', async () => {
    const { proxy } = await wired.behindProxy({ reconnectBaseMs: 40, reconnectCapMs: 160 })
    const times: number[] = []
    wired.later(onEvent('connection.state', ({ error }) => error && times.push(performance.now())))
    await proxy.refuse()
    proxy.cut()
    await eventually(() => times.length > 7)
    const pauses = times.slice(1).map((time, i) => time - times[i]!)
    expect(new Set(pauses.map(Math.round)).size).above(2)
    expect(Math.min(...pauses)).least(18)
    expect(Math.min(...pauses.slice(-3))).least(78)
    const back = wired.event('connection.state', ({ to }) => to === 'open')
    await proxy.accept()
    await back
  })

  it('dials again where the broker ends a connection in the breath in which it opens it', async () => {
    // Forced by an operator; an internal error, which amqplib emits while nobody listens yet: it must not end the process.
    for (const code of [320, 541]) {
      const { url, links } = await brokerThatEndsTheFirst(code)
      const lost = wired.event('connection.state', ({ error }) => !!error?.message.includes('as soon as it was open'))
      const surehop = await wired.surehop({ amqp: url })
      const queue = await wired.queue()
      expect((await surehop.producer().send(queue, { body: 1 }, { deadlineMs: 10_000 })).outcome).equal('confirmed')
      expect(links()).equal(2)
      if (code === 541) expect((await lost).error?.message).contain('INTERNAL-ERROR')
    }
  })

  it('dials again also where that was the first connection of its process', async () => {
    const { url, links } = await brokerThatEndsTheFirst(541)
    const child = startChild(EXITS, { args: [url, 'connected'] })
    wired.later(() => child.close())
    expect(await child.next({ withinMs: 20_000 })).equal('done')
    expect(await within(child.ended, { what: 'the end of the process' })).deep.equal({ code: 0, signal: null })
    expect(links()).equal(2)
  }).timeout(40_000)

  /** What a broker that is shut down says to those who come just then: one packet, where the client is busy or the network quick. */
  async function brokerThatEndsTheFirst(code: number): Promise<{ url: string; links: () => number }> {
    const { hostname, port } = new URL(wired.broker.url)
    const sockets = new Set<Socket>()
    let links = 0
    const server: Server = createServer((client) => {
      const first = links++ === 0
      const broker = createConnection(Number(port || 5_672), hostname)
      for (const [from, to] of [
        [client, broker],
        [broker, client],
      ] as const) {
        sockets.add(from)
        from.on('error', () => {}).on('close', () => to.destroy())
      }
      client.on('data', (bytes) => broker.write(bytes))
      broker.on('data', (bytes) =>
        client.write(first && bytes.includes(OPEN_OK) ? Buffer.concat([bytes, close(code)]) : bytes),
      )
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    wired.later(() => {
      for (const socket of sockets) socket.destroy()
      server.close()
    })
    const url = new URL(wired.broker.url)
    url.host = `127.0.0.1:${(server.address() as AddressInfo).port}`
    return { url: url.toString(), links: () => links }
  }

  async function muteServer(): Promise<{ url: string; sockets: Set<Socket> }> {
    const sockets = new Set<Socket>()
    const server: Server = createServer((socket) => {
      sockets.add(socket)
      socket.on('error', () => {})
      socket.on('close', () => sockets.delete(socket))
      socket.resume()
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    wired.later(() => {
      for (const socket of sockets) socket.destroy()
      server.close()
    })
    return { url: `amqp://guest:guest@127.0.0.1:${(server.address() as AddressInfo).port}`, sockets }
  }
})

describe('connect, as the operators of the broker see it', () => {
  const wired = wiring(administered)

  it('tells a virtual host without permission at once', async () => {
    const user = unique('user')
    await wired.broker.ctl('add_user', user, 'secret')
    wired.later(() => wired.broker.ctl('delete_user', user))
    const url = wired.broker.url.replace('guest:guest', `${user}:secret`)
    expect((await refusedBy(wired, url, 'vhost')).message).contain('list_permissions')
  })

  it('shows the service and the role', async () => {
    const surehop = await wired.surehop({ service: 'payments' })
    const queue = await wired.queue()
    await surehop.producer().send(queue, { body: 1 })
    const listed = await wired.broker.ctl('list_connections', 'client_properties')
    expect(listed).contain('payments:publish')
  })
})
