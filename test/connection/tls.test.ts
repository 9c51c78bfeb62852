import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import type { TlsOptions } from '../../lib/connection/connection-options.ts'
import type { ConnectionRefused } from '../../lib/errors.ts'
import { freePort } from '../support/ports.ts'
import { startRabbitMq } from '../support/services.ts'
import { failure, wiring } from './wiring.ts'

describe('connect with TLS', () => {
  const folder = mkdtempSync(join(tmpdir(), 'surehop-tls-'))
  const file = (name: string) => join(folder, name)
  const read = (name: string) => readFileSync(file(name))
  let port: number

  const wired = wiring(async () => {
    certificates()
    port = await freePort()
    const options = { cacertfile: 'ca.pem', certfile: 'server.pem', keyfile: 'server.key' }
    const files = Object.entries(options).map(([name, path]) => `ssl_options.${name} = ${file(path)}`)
    const config = [
      `listeners.ssl.default = 127.0.0.1:${port}`,
      ...files,
      'ssl_options.verify = verify_peer',
      'ssl_options.fail_if_no_peer_cert = true',
      'auth_mechanisms.1 = PLAIN',
      'auth_mechanisms.2 = EXTERNAL',
      'ssl_cert_login_from = common_name',
    ]
    const broker = await startRabbitMq({ config, plugins: ['rabbitmq_auth_mechanism_ssl'] })
    await broker.ctl('add_user', 'payments', 'unused')
    await broker.ctl('set_permissions', 'payments', '.*', '.*', '.*')
    return broker
  })
  after(() => rmSync(folder, { recursive: true }))

  const client = () => ({ ca: read('ca.pem'), cert: read('client.pem'), key: read('client.key') })
  const url = (host = 'localhost') => `amqps://guest:guest@${host}:${port}`

  async function refused(tls: TlsOptions | undefined, host?: string, reason = 'tls'): Promise<string> {
    const started = performance.now()
    const error = await failure<ConnectionRefused>(wired.surehop({ amqp: url(host), ...(tls ? { tls } : {}) }))
    expect(error).include({ code: 'CONNECTION_REFUSED', reason })
    expect(performance.now() - started, 'far from `connectTimeoutMs`').below(10_000)
    expect(error.message).not.contain('guest:guest')
    return error.message
  }

  it('publishes over TLS with a CA and a client certificate, by name and by address', async () => {
    const queue = await wired.queue()
    for (const host of ['localhost', '127.0.0.1']) {
      const surehop = await wired.surehop({ amqp: url(host), tls: client() })
      expect((await surehop.producer().send(queue, { body: Buffer.alloc(100_000) })).outcome).equal('confirmed')
    }
    const surehop = await wired.surehop({
      amqp: url(),
      tls: { ...client(), ca: [read('ca.pem'), read('other-ca.pem')] },
    })
    expect(surehop.health().healthy).equal(true)
  })

  it('logs in as the certificate says, without a password', async () => {
    const surehop = await wired.surehop({ amqp: `amqps://localhost:${port}`, tls: { ...client(), external: true } })
    expect(surehop.health().healthy).equal(true)
    expect(await wired.broker.ctl('list_connections', 'user')).contain('payments')
  })

  it('tells each TLS mistake at once', async () => {
    const { ca, cert, key } = client()
    expect(await refused(undefined)).contain('self-signed certificate in certificate chain')
    expect(await refused({ ca: read('other-ca.pem'), cert, key })).contain('check ca, cert, key, the host name')
    expect(await refused({ ca })).contain('certificate required')
    expect(await refused({ ca, cert, key, servername: 'elsewhere.example' })).contain('altnames')
    expect(await refused({ ca, cert, key: read('server.key') })).match(/key values mismatch/)
    expect(await refused({ ca, cert: 'no certificate', key })).contain('check ca, cert, key')
  })

  it('a broker that does not offer the way to log in is told at once', async () => {
    const error = await failure<ConnectionRefused>(
      wired.surehop({ amqp: `amqp://127.0.0.1:${wired.broker.port}`, tls: { external: true } }),
    )
    expect(error).include({ code: 'CONNECTION_REFUSED', reason: 'credentials' })
  })

  function openssl(...args: string[]): void {
    execFileSync('openssl', args, { cwd: folder, stdio: 'pipe' })
  }

  function certificates(): void {
    for (const ca of ['ca', 'other-ca'])
      openssl(
        'req',
        '-x509',
        '-newkey',
        'rsa:2048',
        '-nodes',
        '-days',
        '2',
        '-subj',
        `/CN=${ca}`,
        '-keyout',
        `${ca}.key`,
        '-out',
        `${ca}.pem`,
      )
    writeFileSync(file('server.ext'), 'subjectAltName=DNS:localhost,IP:127.0.0.1\n')
    writeFileSync(file('client.ext'), 'extendedKeyUsage=clientAuth\n')
    signed('server', 'localhost')
    signed('client', 'payments')
  }

  function signed(name: string, subject: string): void {
    openssl(
      'req',
      '-newkey',
      'rsa:2048',
      '-nodes',
      '-subj',
      `/CN=${subject}`,
      '-keyout',
      `${name}.key`,
      '-out',
      `${name}.csr`,
    )
    const by = ['-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-extfile', `${name}.ext`]
    openssl('x509', '-req', '-days', '2', '-in', `${name}.csr`, '-out', `${name}.pem`, ...by)
  }
})
