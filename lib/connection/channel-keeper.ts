/**
 * Keeps one channel alive: opens it, sets it up, and builds a new one whenever it is lost or given up.
 *
 *     opening ──setup done──▶ open(channel) ──lost──▶ opening (after a jittered pause) ... ──▶ closed
 *
 * Promises: at most one channel at a time; the old one is closed before the next is opened, so that a consumer is never
 * doubled; a lost channel is told once, with the reason. Emits channel.state.
 */
import { EventEmitter } from 'node:events'
import type { Channel } from 'amqplib'
import { type Deferred, deferred, pause, within } from '../deadline.ts'
import { ChannelLost, Closed } from '../errors.ts'
import { type Connection, closeChannel } from './connection.ts'

/** What a keeper needs to open, set up and tell of its channel. */
export interface KeeperOptions<C extends Channel> {
  readonly connection: Connection
  readonly role: string
  readonly open: () => Promise<C>
  /** Makes the fresh channel ready (declare, prefetch, consume). Its failure closes the channel and is retried. */
  readonly setup: (channel: C) => Promise<void>
  /** The channel is gone; deliveries and confirms on it are void. */
  readonly onLost: (channel: C, reason: Error) => void
}

type State<C> =
  | { readonly name: 'opening'; readonly lastError: Error | undefined }
  | { readonly name: 'open'; readonly channel: C }
  | { readonly name: 'closed' }

const PAUSE_BASE_MS = 100
const PAUSE_CAP_MS = 10_000
/** At the end, a blocked or mute broker is not waited for: it closes the channel with its connection. */
const CLOSING_MS = 1_000

/** Keeps one channel alive. */
export class ChannelKeeper<C extends Channel> {
  readonly #options: KeeperOptions<C>
  readonly #changed = new EventEmitter().setMaxListeners(0)
  readonly #ending = new AbortController()
  #state: State<C> = { name: 'opening', lastError: undefined }
  #failures = 0
  #giveUp: ((reason: Error) => void) | undefined
  #running: Promise<void> | undefined

  constructor(options: KeeperOptions<C>) {
    this.#options = options
  }

  /** The channel, while it is open and set up. */
  get channel(): C | undefined {
    return this.#state.name === 'open' ? this.#state.channel : undefined
  }

  get problem(): string | undefined {
    if (this.#state.name === 'open') return undefined
    const why = this.#state.name === 'opening' && this.#state.lastError ? `: ${this.#state.lastError.message}` : ''
    return `${this.#options.role} channel is ${this.#state.name}${why}`
  }

  onChange(listener: () => void): () => void {
    this.#changed.on('change', listener)
    return () => void this.#changed.off('change', listener)
  }

  /**
   * Starts keeping, and waits for the first channel to be set up.
   * @throws what the first opening or setup failed with; nothing is kept then
   */
  async start(): Promise<void> {
    const first = deferred()
    this.#running = this.#keep(first, false)
    try {
      await first.promise
    } catch (error) {
      await this.close()
      throw error
    }
  }

  /** Starts keeping without waiting: a first opening that fails is repeated like any other. */
  keep(): void {
    this.#running ??= this.#keep(deferred(), true)
  }

  /** Gives the present channel up; a new one is built. */
  rebuild(reason: Error): void {
    this.#giveUp?.(reason)
  }

  /** Waits at most `ms` for an open channel; answers undefined if there is none by then. */
  async ready(ms: number, signal?: AbortSignal): Promise<C | undefined> {
    if (this.channel || this.#state.name === 'closed') return this.channel
    const change = deferred()
    const end = this.onChange(() => (this.channel || this.#state.name === 'closed') && change.resolve())
    const abort = () => change.resolve()
    if (signal?.aborted) abort()
    signal?.addEventListener('abort', abort, { once: true })
    await within(change.promise, ms, () => new Closed('')).catch(() => {})
    signal?.removeEventListener('abort', abort)
    end()
    return this.channel
  }

  /** Closes the channel and stops keeping. Harmless when repeated. */
  async close(): Promise<void> {
    if (!this.#ending.signal.aborted) {
      this.#ending.abort(new Closed(`${this.#options.role} is closed`))
      this.#giveUp?.(this.#ending.signal.reason)
    }
    await this.#running
    this.#become({ name: 'closed' })
  }

  async #keep(first: Deferred<void>, patient: boolean): Promise<void> {
    const { signal } = this.#ending
    let started = patient
    while (!signal.aborted) {
      try {
        await this.#oneLife(() => {
          started = true
          first.resolve()
        })
      } catch (error) {
        if (!started) return first.reject(error)
        this.#become({ name: 'opening', lastError: error as Error }, error as Error)
      }
      await pause(this.#pauseMs(), signal, true)
    }
    first.reject(signal.reason)
  }

  /** From opening a channel until it is lost. */
  async #oneLife(opened: () => void): Promise<void> {
    const { connection, open, setup, onLost } = this.#options
    const { signal } = this.#ending
    await connection.ready(Number.POSITIVE_INFINITY, signal)
    const channel = await open()
    const lost = this.#untilLost(channel)
    try {
      await setup(channel)
      if (signal.aborted) return
      this.#failures = 0
      this.#become({ name: 'open', channel })
      opened()
      const reason = await lost
      this.#become({ name: 'opening', lastError: reason }, reason)
      onLost(channel, reason)
    } finally {
      this.#giveUp = undefined
      const { rpcTimeoutMs } = connection.options
      await closeChannel(channel, signal.aborted ? Math.min(rpcTimeoutMs, CLOSING_MS) : rpcTimeoutMs)
    }
  }

  #untilLost(channel: C): Promise<Error> {
    let serverError: Error | undefined
    const lost = deferred<Error>()
    channel.on('error', (error: Error) => {
      serverError = error
    })
    channel.on('close', () =>
      lost.resolve(
        new ChannelLost(serverError?.message ?? 'the channel or its connection was closed', { cause: serverError }),
      ),
    )
    this.#giveUp = lost.resolve
    return lost.promise
  }

  #pauseMs(): number {
    const ceiling = Math.min(PAUSE_CAP_MS, PAUSE_BASE_MS * 2 ** Math.min(this.#failures++, 20))
    return ceiling * (0.5 + Math.random() / 2)
  }

  #become(next: State<C>, error?: Error): void {
    const from = this.#state.name
    this.#state = next
    if (from !== next.name) {
      const { connection, role } = this.#options
      connection.options.events.emit('channel.state', { role, from, to: next.name, error })
    }
    this.#changed.emit('change')
  }
}
