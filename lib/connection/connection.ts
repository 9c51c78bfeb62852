/**
 * Keeps one connection to the broker, with amqp-connection-manager as its supervisor.
 *
 *     connecting ──▶ open ⇄ (blocked) ──lost──▶ connecting ... ──▶ closed
 *         └──refused for good──▶ failed
 *
 * Promises: reconnects with jitter over several URLs; a handshake never hangs; a permanent refusal (wrong password,
 * unknown vhost, TLS) is told at once and not repeated for ever; every channel has its error listener, so that a channel's
 * mistake never tears down the connection; every channel operation ends, if need be by timeout.
 * After `close()` nothing of it keeps the process alive, not even a broker that answers nothing.
 * Does NOT promise that a socket that looks open is alive before the heartbeat has missed it twice.
 * Emits connection.state, connection.blocked, connection.unblocked.
 */
import { EventEmitter } from 'node:events'
import { AmqpConnectionManagerClass } from 'amqp-connection-manager'
import { type Channel, type ChannelModel, type ConfirmChannel, credentials } from 'amqplib'
import { deferred, within } from '../deadline.ts'
import { Closed, type ConnectionRefused, InvalidOption, type SurehopError } from '../errors.ts'
import type { Events } from '../observability/events.ts'
import { checkOptions, either, flag, listOf, type Rule, text } from '../options.ts'
import { keepNumbers, type NumberedConnection } from './channel-numbers.ts'
import { type FrameReader, withoutDeepHeaders } from './deep-headers.ts'
import { type GatherableConnection, gatherMessages } from './gather-messages.ts'
import { type GatherableSocket, gatherWrites } from './gather-writes.ts'
import { brokerTimeout, explain, notConnected, permanentRefusal, redactUrl } from './refusal.ts'

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

type State =
  | { readonly name: 'connecting'; readonly lastError: Error | undefined }
  | { readonly name: 'open'; readonly model: ChannelModel; readonly url: string; readonly blocked: string | undefined }
  | { readonly name: 'failed'; readonly error: ConnectionRefused }
  | { readonly name: 'closed' }

/** So many permanent refusals in a row end a connection that was open before (a password was rotated). */
const REFUSALS_UNTIL_FAILED = 10
const CLOSE_TIMEOUT_MS = 2_000

/** One supervised connection to the broker. */
export class Connection {
  readonly options: ConnectionOptions
  readonly #manager: AmqpConnectionManagerClass
  readonly #changed = new EventEmitter().setMaxListeners(0)
  /** Ends the latest socket of this connection, also one that still shakes hands. */
  #socket = new AbortController()
  #state: State = { name: 'connecting', lastError: undefined }
  #everOpen = false
  #failures = 0
  #attempts = 0
  #refusals = 0
  #refusal: ConnectionRefused | undefined

  constructor(options: ConnectionOptions) {
    this.options = options
    this.#manager = createManager(options, () => this.#nextSocket())
    this.#manager.on('connect', ({ connection, url }) =>
      this.#opened(connection as unknown as ChannelModel, String(url)),
    )
    this.#manager.on('connectFailed', ({ err, url }) => this.#failed(err, String(url ?? options.urls[0])))
    this.#manager.on('disconnect', ({ err }) => this.#lost(err))
    this.#manager.on('blocked', ({ reason }) => this.#blocked(reason))
    this.#manager.on('unblocked', () => this.#blocked(undefined))
    this.#manager.connect().catch(() => {})
  }

  /** Why this connection is not fit to work now; empty when it is. */
  get problems(): string[] {
    const state = this.#state
    if (state.name === 'open')
      return state.blocked !== undefined
        ? [`${this.options.role} connection is blocked by the broker: ${state.blocked}`]
        : []
    if (state.name === 'failed') return [state.error.message]
    const why = state.name === 'connecting' && state.lastError ? `: ${state.lastError.message}` : ''
    return [`${this.options.role} connection is ${state.name}${why}`]
  }

  get blockedReason(): string | undefined {
    return this.#state.name === 'open' ? this.#state.blocked : undefined
  }

  /** Set once this connection will never open (again). */
  get fatal(): SurehopError | undefined {
    return this.#state.name === 'failed' || this.#state.name === 'closed' ? this.#unreachable(0) : undefined
  }

  get isOpen(): boolean {
    return this.#state.name === 'open'
  }

  /** `{product, version, ...}` as the broker introduced itself; only while open. */
  get serverVersion(): string | undefined {
    return this.#state.name === 'open' ? this.#state.model.connection.serverProperties.version : undefined
  }

  /** Calls back at every change of state, until the returned function is called. */
  onChange(listener: () => void): () => void {
    this.#changed.on('change', listener)
    return () => void this.#changed.off('change', listener)
  }

  /**
   * Waits until the connection is open.
   * @throws NotConnected after `ms`; ConnectionRefused when refused for good; Closed
   */
  async ready(ms: number = Number.POSITIVE_INFINITY, signal?: AbortSignal): Promise<void> {
    if (this.#state.name === 'open') return
    const opened = deferred()
    const look = () => {
      if (this.#state.name === 'open') opened.resolve()
      if (this.#state.name === 'failed') opened.reject(this.#state.error)
      if (this.#state.name === 'closed') opened.reject(new Closed(`the ${this.options.role} connection is closed`))
    }
    const abort = () => opened.reject(signal?.reason)
    const end = this.onChange(look)
    signal?.addEventListener('abort', abort, { once: true })
    try {
      look()
      if (signal?.aborted) abort()
      await (Number.isFinite(ms) ? within(opened.promise, ms, () => this.#unreachable(ms)) : opened.promise)
    } finally {
      end()
      signal?.removeEventListener('abort', abort)
    }
  }

  /**
   * Opens a channel that we own: its errors are listened to, and it is not re-created when it dies.
   * @throws NotConnected, BrokerTimeout
   */
  async openChannel(): Promise<Channel> {
    return this.#open('open a channel', (model) => model.createChannel())
  }

  /** The same with publisher confirms switched on. */
  async openConfirmChannel(highWaterMark?: number): Promise<ConfirmChannel> {
    return this.#open('open a confirm channel', (model) =>
      model.createConfirmChannel(highWaterMark ? { highWaterMark } : undefined),
    )
  }

  async #open<C extends Channel>(doing: string, create: (model: ChannelModel) => Promise<C>): Promise<C> {
    if (this.#state.name !== 'open') throw this.#unreachable(0)
    const opening = create(this.#state.model)
    try {
      const channel = await this.rpc(doing, () => opening)
      channel.on('error', () => {})
      return channel
    } catch (error) {
      opening.then((late) => this.#drop(late)).catch(() => {})
      throw error
    }
  }

  /** A channel that opened after its time: nobody waits for it any more. */
  #drop(late: Channel): Promise<void> {
    late.on('error', () => {})
    return closeChannel(late, this.options.rpcTimeoutMs)
  }

  /**
   * Runs one channel operation with a bound on its time, and explains its failure.
   * @throws BrokerTimeout when unanswered; ResourceMissing, PermissionRefused, TopologyMismatch... when refused
   */
  async rpc<T>(doing: string, operation: () => Promise<T>): Promise<T> {
    const ms = this.options.rpcTimeoutMs
    try {
      return await within(operation(), ms, () => brokerTimeout(doing, ms))
    } catch (error) {
      throw explain(error, doing)
    }
  }

  /** Runs operations on a channel of their own, so that a refusal hurts nobody else. */
  async withChannel<T>(run: (channel: Channel) => Promise<T>): Promise<T> {
    const channel = await this.openChannel()
    let closing: Promise<void> | undefined
    try {
      return await run(channel)
    } catch (error) {
      closing = closeChannel(channel, this.options.rpcTimeoutMs)
      throw error
    } finally {
      if (!closing) await closeChannel(channel, this.options.rpcTimeoutMs)
    }
  }

  /** Closes for good; bounded in time, harmless when repeated. */
  async close(): Promise<void> {
    if (this.#state.name === 'closed') return
    const before = this.#state
    this.#become({ name: 'closed' })
    if (before.name !== 'open') this.#socket.abort()
    await within(this.#endManager(), CLOSE_TIMEOUT_MS, () =>
      brokerTimeout('close the connection', CLOSE_TIMEOUT_MS),
    ).catch(() => {})
    this.#socket.abort()
  }

  /** One signal per attempt: a socket that failed does not let go of its signal. */
  #nextSocket(): AbortSignal {
    this.#socket = new AbortController()
    if (this.#state.name === 'closed') this.#socket.abort()
    return this.#socket.signal
  }

  /** The supervisor ends only after its next pause, so that pause must be short. */
  #endManager(): Promise<unknown> {
    this.#manager.reconnectTimeInSeconds = 0.001
    return this.#manager.close()
  }

  #opened(model: ChannelModel, url: string): void {
    if (this.#state.name === 'closed') return
    this.#everOpen = true
    this.#failures = 0
    this.#attempts = 0
    this.#refusals = 0
    this.#refusal = undefined
    const inner = model.connection as unknown as { readonly stream: GatherableSocket } & Partial<FrameReader> &
      Partial<GatherableConnection & NumberedConnection>
    gatherWrites(inner.stream)
    gatherMessages(inner)
    keepNumbers(inner)
    withoutDeepHeaders(inner)
    this.#become({ name: 'open', model, url: redactUrl(url), blocked: undefined })
  }

  #failed(error: Error, url: string): void {
    if (this.#state.name === 'closed' || this.#state.name === 'failed') return
    this.#backOff()
    const refusal = permanentRefusal(error, url)
    this.#attempts++
    if (refusal) this.#refusal = refusal
    if (refusal && refusal.reason !== 'vhost') this.#refusals++
    if (this.#refusal && this.#hopeless()) this.#giveUp(this.#refusal)
    else this.#become({ name: 'connecting', lastError: this.#refusal ?? error }, refusal ?? error)
  }

  /**
   * Before the first opening: every URL was tried, and one refused. Later: refused again and again, and not over the virtual
   * host, since the broker's reason is not handed on there and may be a limit or a restart.
   */
  #hopeless(): boolean {
    if (this.#everOpen) return this.#refusals >= REFUSALS_UNTIL_FAILED
    return this.#attempts % this.options.urls.length === 0
  }

  #giveUp(error: ConnectionRefused): void {
    this.#become({ name: 'failed', error }, error)
    this.#endManager().catch(() => {})
  }

  #lost(error: Error | undefined): void {
    if (this.#state.name === 'closed') return
    this.#backOff()
    this.#become({ name: 'connecting', lastError: error }, error)
  }

  /** Full jitter between reconnects; the supervisor reads this before each wait. The first one is quick. */
  #backOff(): void {
    const { reconnectBaseMs, reconnectCapMs } = this.options
    const ceiling = Math.min(reconnectCapMs, reconnectBaseMs * 2 ** Math.min(this.#failures++, 20))
    this.#manager.reconnectTimeInSeconds = (ceiling * (0.5 + Math.random() / 2)) / 1_000
  }

  #blocked(reason: string | undefined): void {
    if (this.#state.name !== 'open') return
    this.#state = { ...this.#state, blocked: reason }
    const { role, events } = this.options
    if (reason === undefined) events.emit('connection.unblocked', { role })
    else events.emit('connection.blocked', { role, reason })
    this.#changed.emit('change')
  }

  #become(next: State, error?: Error): void {
    const from = this.#state.name
    this.#state = next
    const url = next.name === 'open' ? next.url : undefined
    if (from !== next.name || error)
      this.options.events.emit('connection.state', { role: this.options.role, from, to: next.name, url, error })
    this.#changed.emit('change')
  }

  #unreachable(ms: number): SurehopError {
    const state = this.#state
    if (state.name === 'failed') return state.error
    if (state.name === 'closed') return new Closed(`the ${this.options.role} connection is closed`)
    return notConnected(state.name === 'connecting' ? state.lastError : undefined, this.options.urls, ms)
  }
}

function createManager(options: ConnectionOptions, nextSignal: () => AbortSignal): AmqpConnectionManagerClass {
  for (const url of options.urls) checkUrl(url)
  const { external, ...tls } = options.tls ?? {}
  checkOptions('tls', options.tls ?? {}, TLS_RULES)
  return new AmqpConnectionManagerClass([...options.urls], {
    heartbeatIntervalInSeconds: options.heartbeatSeconds,
    reconnectTimeInSeconds: options.reconnectBaseMs / 1_000,
    // amqplib reads each option once per attempt, and hands `signal` on to the socket, which is destroyed when it fires.
    connectionOptions: {
      ...(tls as object),
      ...(external ? { credentials: credentials.external() } : {}),
      get signal() {
        return nextSignal()
      },
      timeout: options.handshakeTimeoutMs,
      noDelay: true,
      keepAlive: true,
      clientProperties: { connection_name: `${options.service}:${options.role}`, product: 'surehop' },
    },
  })
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

function checkUrl(url: string): void {
  const ok = URL.canParse(url) && /^amqps?:$/.test(new URL(url).protocol) && new URL(url).hostname !== ''
  if (ok) return
  throw new InvalidOption(
    'expected amqp to be a URL like amqp://user:password@host:5672/vhost, got something else (not shown: it may hold a ' +
      'password). Characters such as / # ? % @ in a password must be percent-encoded, see encodeURIComponent()',
  )
}

/** Closes a channel, whatever its state; bounded in time, never throws. */
export async function closeChannel(channel: Channel, timeoutMs: number): Promise<void> {
  try {
    await within(channel.close(), timeoutMs, () => brokerTimeout('close a channel', timeoutMs))
  } catch {
    // already closed, or the broker is mute: the connection's heartbeat decides
  }
}
