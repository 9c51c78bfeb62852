/** What can be said to a connection, checked before anything is dialled. Pure. */
import { InvalidOption } from '../errors.ts'
import type { Events } from '../observability/events.ts'
import { checkOptions, either, flag, listOf, type Rule, show, text } from '../options.ts'

/** TLS material for `amqps://` URLs, as Node's `tls.connect` takes it. */
export interface TlsOptions {
  readonly ca?: string | Buffer | readonly (string | Buffer)[]
  readonly cert?: string | Buffer
  readonly key?: string | Buffer
  readonly pfx?: string | Buffer
  readonly passphrase?: string
  readonly servername?: string
  /** Log in as the certificate's subject (the broker's EXTERNAL mechanism) instead of by password. Default false. */
  readonly external?: boolean
}

/** How a connection is kept. All durations in ms. */
export interface ConnectionOptions {
  readonly urls: readonly string[]
  /** What it is for, e.g. `publish`: shown by the broker and in events. */
  readonly role: string
  readonly service: string
  readonly heartbeatSeconds: number
  readonly handshakeTimeoutMs: number
  readonly rpcTimeoutMs: number
  readonly reconnectBaseMs: number
  readonly reconnectCapMs: number
  readonly tls?: TlsOptions | undefined
  readonly events: Events
}

const material: Rule = (value) =>
  typeof value === 'string' || value instanceof Uint8Array ? undefined : 'a string or a Buffer'

/** Only these: amqplib takes options of its own from the same object, and Node would switch checking off. */
const TLS_RULES = {
  ca: either(material, listOf(material)),
  cert: material,
  key: material,
  pfx: material,
  passphrase: text(1_024),
  servername: text(),
  external: flag,
}

/** @throws InvalidOption, which never shows a URL */
export function checkConnectionOptions({ urls, tls }: ConnectionOptions): void {
  for (const url of urls) {
    checkUrl(url)
    checkHeartbeat(url)
  }
  checkOptions('tls', tls ?? {}, TLS_RULES)
}

/** amqplib takes the URL's, where there is one, and 0 for none. */
function checkHeartbeat(url: string): void {
  const heartbeat = new URL(url).searchParams.get('heartbeat')
  if (!heartbeat || (/^\d{1,5}$/.test(heartbeat) && Number(heartbeat) >= 1 && Number(heartbeat) <= 65_535)) return
  throw new InvalidOption(
    `expected heartbeat in the AMQP URL to be an integer from 1 to 65535, in seconds, got ${show(heartbeat)}: without heartbeats a dead ` +
      'link may never be noticed. Leave it out for heartbeatSeconds',
  )
}

function checkUrl(url: string): void {
  const ok = URL.canParse(url) && /^amqps?:$/.test(new URL(url).protocol) && isWhole(new URL(url))
  if (ok) return
  throw new InvalidOption(
    // No "@" behind the address: where passwords are left out of what is printed, all up to it would be.
    'expected amqp to be a URL, with characters such as / # ? % @ of a password percent-encoded (see encodeURIComponent()), like ' +
      'amqp://user:password@host:5672/vhost, got something else (not shown: it may hold a password)',
  )
}

/** Of `amqp://user:p@ss/word@host`, the host would be `ss`: the rest of the password is asked of name servers, and told. */
function isWhole({ hostname, pathname, search, hash }: URL): boolean {
  return hostname !== '' && !`${pathname}${search}${hash}`.includes('@')
}
