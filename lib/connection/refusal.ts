/**
 * Turns what amqplib, Node and the broker say into our errors: what is permanent, what is missing, who is refused.
 * Pure: no I/O.
 */
import {
  BrokerTimeout,
  ConnectionRefused,
  NotConnected,
  PermissionRefused,
  ResourceBusy,
  ResourceMissing,
  SurehopError,
  TopologyMismatch,
  textOf,
} from '../errors.ts'

interface CodedError {
  readonly code?: string | number
  readonly message: string
}

const TLS_CODES =
  /^(ERR_TLS_|ERR_SSL_|ERR_OSSL|CERT_|SELF_SIGNED|DEPTH_ZERO|UNABLE_TO_(GET|VERIFY)|HOSTNAME_MISMATCH|EPROTO$)/

/**
 * Is this failure to connect one that no repeat will cure? Wrong password, unknown vhost, TLS mistakes.
 * @returns the error to tell the user at once, or undefined for a failure worth repeating
 */
export function permanentRefusal(error: unknown, url: string): ConnectionRefused | undefined {
  const { code, message } = coded(error)
  const where = redactUrl(url)
  const refuse = (reason: ConnectionRefused['reason'], text: string) =>
    new ConnectionRefused(reason, `${text} (${where}; the broker said: ${message})`, { cause: error })
  if (/limit .*reached|is down/i.test(message)) return undefined
  if (/ACCESS[_-]REFUSED|terminated by server: 403/.test(message))
    return refuse('credentials', 'the broker refused the user name or password: check them in the AMQP URL')
  if (/SASL mechanism \S+ is not provided/.test(message))
    return refuse(
      'credentials',
      'the broker does not offer this way to log in: EXTERNAL needs rabbitmq_auth_mechanism_ssl',
    )
  // amqplib hands on neither code nor text of a refused connection.open, only that it was closed.
  if (/NOT[_-]ALLOWED|terminated by server: 530|Expected ConnectionOpenOk; got <ConnectionClose/.test(message))
    return refuse(
      'vhost',
      'the virtual host does not exist, or this user may not use it, or a connection limit is reached: check the path of the AMQP URL, "rabbitmqctl list_vhosts" and "rabbitmqctl list_permissions -p VHOST"',
    )
  if (TLS_CODES.test(String(code ?? '')))
    return refuse(
      'tls',
      'the TLS handshake failed: check ca, cert, key, the host name in the URL, and that the port speaks TLS',
    )
  if (code === 'ERR_INVALID_URL')
    return refuse('address', 'the AMQP URL cannot be read: expected amqp://user:password@host:5672/vhost')
  return undefined
}

/** Says why no connection could be made, for a person. */
export function notConnected(last: Error | undefined, urls: readonly string[], waitedMs: number): NotConnected {
  const where = urls.map(redactUrl).join(', ')
  const why = last ? ` Last error: ${lastWords(last)}.` : ''
  return new NotConnected(
    `no connection to RabbitMQ at ${where} within ${waitedMs} ms.${why} Is the broker running, and the address right?`,
    { cause: last },
  )
}

function lastWords(error: Error): string {
  const nested = (error as AggregateError).errors
  return textOf(Array.isArray(nested) && nested.length > 0 ? nested[0] : error)
}

/**
 * Explains the failure of a channel operation.
 * @param doing what was tried, e.g. `declare queue "orders"`
 */
export function explain(error: unknown, doing: string): SurehopError {
  if (error instanceof SurehopError) return error
  const { code, message } = coded(error)
  const said = serverText(message)
  if (code === 404) return missing(said, doing, error)
  if (code === 403)
    return new PermissionRefused(
      `cannot ${doing}: permission refused: ${said}. Grant it with "rabbitmqctl set_permissions"${whichRight(said)}`,
      { cause: error },
    )
  if (code === 405) return new ResourceBusy(`cannot ${doing}: ${said}`, { cause: error })
  if (code === 406) return mismatch(said, error) ?? new BrokerRefused(`cannot ${doing}: ${said}`, { cause: error })
  if (/^No channels left/.test(said))
    return new BrokerRefused(
      `cannot ${doing}: all channels of its connection are taken. Raise channel_max of the broker, or channelMax in the AMQP URL`,
      { cause: error },
    )
  return new BrokerRefused(`cannot ${doing}: ${said}`, { cause: error })
}

/** Nobody has heard of an exchange of that name, and RabbitMQ 3.10 says nothing of *write*. */
function whichRight(said: string): string {
  return said.includes("exchange 'amq.default'")
    ? ': write on amq\\.default, the exchange that leads straight to queues, which retries and dead letters need'
    : ''
}

/** The broker refused an operation or the channel ended under it; repeating may help. */
export class BrokerRefused extends NotConnected {}

function missing(said: string, doing: string, cause: unknown): ResourceMissing {
  const name = /no (queue|exchange) '([^']*)'/.exec(said)
  const resource = name ? `${name[1]} "${name[2]}"` : said
  return new ResourceMissing(resource, `cannot ${doing}: ${resource} does not exist`, { cause })
}

const INEQUIVALENT =
  /inequivalent arg '([^']+)' for (queue|exchange) '([^']*)' in vhost '[^']*': received (.+?) but current is (.+)$/

function mismatch(said: string, cause: unknown): TopologyMismatch | undefined {
  const found = INEQUIVALENT.exec(said)
  if (!found) return undefined
  const [, argument = '', kind = '', name = '', received = '', current = ''] = found
  const resource = `${kind} "${name}"`
  const [wanted, actual] = [plainValue(received), plainValue(current)]
  return new TopologyMismatch(
    { resource, argument, wanted, actual },
    `${resource} exists with ${argument} = ${visible(actual)}, but ${visible(wanted)} is asked for. That cannot be changed: ` +
      `either ask for ${visible(actual)}, use another name, or ${kind === 'queue' ? `empty and delete it ("rabbitmqctl delete_queue ${name}")` : 'delete it'} and start again`,
    { cause },
  )
}

function plainValue(text: string): string {
  return /^(?:the value )?'([^']*)'/.exec(text.trim())?.[1] ?? text.trim()
}

function visible(value: string): string {
  return value === '' ? '""' : value
}

/** `Operation failed: QueueDeclare; 404 (NOT-FOUND) with message "NOT_FOUND - no queue 'x'"` -> `NOT_FOUND - no queue 'x'` */
function serverText(message: string): string {
  return /with message "(.*)"/s.exec(message)?.[1] ?? message
}

function coded(error: unknown): CodedError {
  const { code } = (error ?? {}) as { code?: string | number }
  return code === undefined ? { message: textOf(error) } : { code, message: textOf(error) }
}

/** An AMQP URL without its password, whatever characters that holds. */
export function redactUrl(url: string): string {
  return url.replace(
    /^([a-z][a-z0-9+.-]*:\/\/)?(.*)@/is,
    (_, scheme: string | undefined, user: string) => `${scheme ?? ''}${user.split(':')[0]}:***@`,
  )
}

/**
 * What the broker says when it closes a channel over a publish.
 * @returns the exchange, where all publishes to it are meant (missing, internal, no permission), and the explained error
 */
export function refusedExchange(error: unknown): {
  readonly exchange: string | undefined
  readonly cause: SurehopError
} {
  const said = serverText(coded(error).message)
  // A name may hold apostrophes itself, and a part of it may be the name of another exchange; what follows a long one may be cut short,
  // and a longer one itself.
  const name =
    /(?:no|write access to|access to|internal) exchange '(.+?)'(?: in vhost '| ?i?n? ?v?h?o?s?t? ?\.\.\.$)/s.exec(
      said,
    )?.[1]
  return { exchange: name === 'amq.default' ? undefined : name, cause: explain(error, 'publish') }
}

/** A channel operation that the broker left unanswered. */
export function brokerTimeout(doing: string, ms: number): BrokerTimeout {
  return new BrokerTimeout(
    `no answer from the broker within ${ms} ms to: ${doing}. The queue's home node may be down or have lost its majority`,
  )
}
