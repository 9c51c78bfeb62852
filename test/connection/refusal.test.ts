import { expect } from 'chai'
import fc from 'fast-check'
import { explain, notConnected, permanentRefusal, redactUrl, refusedExchange } from '../../lib/connection/refusal.ts'
import { BrokerTimeout, PermissionRefused, ResourceBusy, ResourceMissing, TopologyMismatch } from '../../lib/errors.ts'

const URL_GIVEN = 'amqp://shop:s3cret@rabbit:5672/orders'
const failure = (message: string, code?: string | number) =>
  Object.assign(new Error(message), code === undefined ? {} : { code })
const closed = (code: number, name: string, text: string) =>
  failure(`Operation failed: QueueDeclare; ${code} (${name}) with message "${text}"`, code)

/** As RabbitMQ 3.10 and 4.x say it. */
const MISMATCHES = [
  {
    said: "PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue 'q' in vhost '/': received none but current is the value '5' of type 'signedint'",
    found: { resource: 'queue "q"', argument: 'x-max-length', wanted: 'none', actual: '5' },
  },
  {
    said: "PRECONDITION_FAILED - inequivalent arg 'x-delivery-limit' for queue 'a b' in vhost 'v': received the value '3' of type 'long' but current is none",
    found: { resource: 'queue "a b"', argument: 'x-delivery-limit', wanted: '3', actual: 'none' },
  },
  {
    said: "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'q' in vhost '/': received 'classic' but current is 'quorum'",
    found: { resource: 'queue "q"', argument: 'x-queue-type', wanted: 'classic', actual: 'quorum' },
  },
  {
    said: "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'q' in vhost '/': received 'true' but current is 'false'",
    found: { resource: 'queue "q"', argument: 'durable', wanted: 'true', actual: 'false' },
  },
  {
    said: "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'x' in vhost '/': received 'topic' but current is 'fanout'",
    found: { resource: 'exchange "x"', argument: 'type', wanted: 'topic', actual: 'fanout' },
  },
  {
    said: "PRECONDITION_FAILED - inequivalent arg 'x-dead-letter-exchange' for queue 'q' in vhost '/': received the value '' of type 'longstr' but current is the value 'dlx' of type 'longstr'",
    found: { resource: 'queue "q"', argument: 'x-dead-letter-exchange', wanted: '', actual: 'dlx' },
  },
]

describe('refusals', () => {
  it('never show a password, whatever characters it holds', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme', minLength: 1 }), (password) => {
        const shown = redactUrl(`amqp://shop:SECRET${password}SECRET@rabbit/v`)
        expect(shown).not.contain('SECRET')
        expect(shown).contain('amqp://shop:***@')
      }),
    )
    expect(redactUrl('shop:s3cret@rabbit')).equal('shop:***@rabbit')
    expect(redactUrl('amqps://rabbit:5671/v')).equal('amqps://rabbit:5671/v')
    expect(redactUrl('amqp://a:b@c@d/e')).equal('amqp://a:***@d/e')
  })

  it('are permanent for a password, a virtual host and a TLS mistake', () => {
    const cases = [
      [
        'credentials',
        failure(
          'Handshake terminated by server: 403 (ACCESS-REFUSED) with message "ACCESS_REFUSED - Login was refused"',
        ),
      ],
      ['credentials', failure('SASL mechanism EXTERNAL is not provided by the server')],
      ['vhost', failure('Expected ConnectionOpenOk; got <ConnectionClose channel:0>')],
      ['vhost', failure('Connection closed: 530 (NOT-ALLOWED) with message "NOT_ALLOWED - vhost orders not found"')],
      ['tls', failure('self-signed certificate in certificate chain', 'SELF_SIGNED_CERT_IN_CHAIN')],
      ['tls', failure('alert certificate required', 'ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED')],
      ['tls', failure("Hostname/IP does not match certificate's altnames", 'ERR_TLS_CERT_ALTNAME_INVALID')],
      ['tls', failure('wrong version number', 'ERR_SSL_WRONG_VERSION_NUMBER')],
      ['tls', failure('certificate has expired', 'CERT_HAS_EXPIRED')],
    ] as const
    for (const [reason, error] of cases) {
      const refusal = permanentRefusal(error, URL_GIVEN)
      expect(refusal?.reason, error.message).equal(reason)
      expect(refusal?.message).contain('amqp://shop:***@rabbit:5672/orders').and.not.contain('s3cret')
    }
  })

  it('are not permanent for what may pass, whatever the port is called', () => {
    for (const error of [
      failure('connect ECONNREFUSED 10.0.0.1:403', 'ECONNREFUSED'),
      failure('connect ECONNREFUSED 10.0.0.1:530', 'ECONNREFUSED'),
      failure('getaddrinfo ENOTFOUND rabbit', 'ENOTFOUND'),
      failure('connect ETIMEDOUT'),
      failure('Socket closed abruptly during opening handshake'),
      failure('NOT_ALLOWED - access to vhost refused: connection limit (2) is reached', 530),
      failure("NOT_ALLOWED - vhost 'orders' is down", 530),
      undefined,
    ])
      expect(permanentRefusal(error, URL_GIVEN), String(error)).equal(undefined)
  })

  it('name the argument and both values when a queue or exchange exists with others', () => {
    for (const { said, found } of MISMATCHES) {
      const error = explain(closed(406, 'PRECONDITION-FAILED', said), 'declare queue "q"') as TopologyMismatch
      expect(error).instanceOf(TopologyMismatch).include(found)
      expect(error.message)
        .contain(found.argument)
        .contain(`= ${found.actual}, but ${found.wanted || '""'} is`)
        .contain('use another name')
    }
  })

  it('tell a missing resource, a permission, an exclusive use and the rest apart', () => {
    const missing = explain(closed(404, 'NOT-FOUND', "NOT_FOUND - no exchange 'x' in vhost '/'"), 'bind')
    expect(missing).instanceOf(ResourceMissing).include({ resource: 'exchange "x"' })
    const refused = explain(
      closed(403, 'ACCESS-REFUSED', "ACCESS_REFUSED - configure access to queue 'q' in vhost '/' refused for user 'u'"),
      'declare',
    )
    expect(refused).instanceOf(PermissionRefused)
    expect(refused.message).contain("configure access to queue 'q'").contain('set_permissions')
    const noStraight = closed(
      403,
      'ACCESS-REFUSED',
      "ACCESS_REFUSED - access to exchange 'amq.default' in vhost '/' refused for user 'u'",
    )
    expect(explain(noStraight, 'declare').message).contain('write on amq\\.default')
    expect(explain(closed(405, 'RESOURCE-LOCKED', 'cannot obtain exclusive access'), 'consume')).instanceOf(
      ResourceBusy,
    )
    expect(explain(undefined, 'consume').message).contain('cannot consume')
    const ours = new BrokerTimeout('mute')
    expect(explain(ours, 'consume')).equal(ours)
  })

  it('name the exchange a publish was refused for, where all publishes to it are', () => {
    const name = (text: string) =>
      refusedExchange(failure(`Channel closed by server: 403 (X) with message "${text}"`, 403)).exchange
    expect(name("NOT_FOUND - no exchange 'x y' in vhost '/'")).equal('x y')
    expect(name("ACCESS_REFUSED - access to exchange 'x' in vhost '/' refused for user 'u'")).equal('x')
    expect(name("ACCESS_REFUSED - write access to exchange 'x' in vhost '/' refused for user 'u'")).equal('x')
    expect(name("ACCESS_REFUSED - cannot publish to internal exchange 'x' in vhost '/'")).equal('x')
    expect(name("ACCESS_REFUSED - cannot publish to internal exchange 'o'brien' in vhost '/'")).equal("o'brien")
    expect(name("ACCESS_REFUSED - cannot publish to internal exchange 'o'brien' in vh...")).equal("o'brien")
    for (const rest of ['', ' ', ' in', ' in vhost '])
      expect(name(`NOT_FOUND - no exchange 'o'brien'${rest}...`)).equal("o'brien")
    for (const cut of ["o'brien, cut sho", "o'brienandso", "o' in the middle", "o' brien"])
      expect(name(`NOT_FOUND - no exchange '${cut}...`)).equal(undefined)
    expect(name("ACCESS_REFUSED - write access to exchange 'amq.default' in vhost '/' refused")).equal(undefined)
    expect(name("ACCESS_REFUSED - write access to topic 'a.b' in exchange 'x' in vhost '/' refused")).equal(undefined)
    expect(name('PRECONDITION_FAILED - message size 5 larger than max size 4')).equal(undefined)
  })

  it('say where they could not connect, with the last error and without a password', () => {
    const { message } = notConnected(
      new AggregateError([failure('connect ECONNREFUSED ::1:5672')], ''),
      [URL_GIVEN],
      100,
    )
    expect(message).contain('shop:***@rabbit').contain('ECONNREFUSED').contain('within 100 ms').not.contain('s3cret')
  })
})
