/**
 * Keeps one connection to the broker, and opens channels on it.
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
import type { Channel, ChannelModel, ConfirmChannel } from 'amqplib'
import { deferred, within } from '../deadline.ts'
import { Closed, type ConnectionRefused, type SurehopError } from '../errors.ts'
import { Attempts } from './attempts.ts'
import type { ConnectionOptions } from './connection-options.ts'
import { brokerTimeout, explain, notConnected, redactUrl } from './refusal.ts'
import { Supervisor } from './supervisor.ts'

type State =
  | { readonly name: 'connecting'; readonly lastError: Error | undefined }
  | { readonly name: 'open'; readonly model: ChannelModel; readonly url: string; readonly blocked: string | undefined }
  | { readonly name: 'failed'; readonly error: ConnectionRefused }
  | { readonly name: 'closed' }

/** One supervised connection to the broker. */
export class Connection {
  readonly options: ConnectionOptions
  readonly #supervisor: Supervisor
  readonly #attempts: Attempts
  readonly #changed = new EventEmitter().setMaxListeners(0)
  #state: State = { name: 'connecting', lastError: undefined }

  constructor(options: ConnectionOptions) {
    this.options = options
    this.#attempts = new Attempts(options)
    this.#supervisor = new Supervisor(options, {
      opened: (model, url) => this.#opened(model, url),
      failed: (error, url) => this.#failed(error, url),
      lost: (error) => this.#lost(error),
      blocked: (reason) => this.#blocked(reason),
    })
    this.#supervisor.start()
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
    const wasOpen = this.#state.name === 'open'
    this.#become({ name: 'closed' })
    await (wasOpen ? this.#supervisor.close() : this.#supervisor.abort())
  }

  #opened(model: ChannelModel, url: string): void {
    if (this.#state.name === 'closed') return
    this.#attempts.opened()
    this.#become({ name: 'open', model, url: redactUrl(url), blocked: undefined })
  }

  #failed(error: Error, url: string): void {
    if (this.#state.name === 'closed' || this.#state.name === 'failed') return
    this.#supervisor.pauseFor(this.#attempts.nextPauseMs())
    const attempt = this.#attempts.failed(error, url)
    if (attempt.final) this.#giveUp(attempt.final)
    else this.#become({ name: 'connecting', lastError: attempt.lastError }, attempt.error)
  }

  #giveUp(error: ConnectionRefused): void {
    this.#become({ name: 'failed', error }, error)
    this.#supervisor.end().catch(() => {})
  }

  #lost(error: Error | undefined): void {
    if (this.#state.name === 'closed') return
    this.#supervisor.pauseFor(this.#attempts.nextPauseMs())
    this.#become({ name: 'connecting', lastError: error }, error)
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

/** Closes a channel, whatever its state; bounded in time, never throws. */
export async function closeChannel(channel: Channel, timeoutMs: number): Promise<void> {
  try {
    await within(channel.close(), timeoutMs, () => brokerTimeout('close a channel', timeoutMs))
  } catch {
    // already closed, or the broker is mute: the connection's heartbeat decides
  }
}
