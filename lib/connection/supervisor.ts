/**
 * Dials the broker over and over: amqp-connection-manager as the supervisor of amqplib's connections, bent to what we promise.
 *
 * Promises: several URLs take turns; a handshake never hangs; each attempt has a socket that can be ended, also while it shakes
 * hands; what ended as it opened is dialled again; what has opened is mended before anybody has it (see gather-writes.ts,
 * gather-messages.ts, channel-numbers.ts, deep-headers.ts, early-errors.ts); closing takes 2 s at most and leaves nothing that keeps the
 * process alive, not even with a broker that answers nothing.
 * Does NOT judge: what a failure means and how long to wait is told to it (see attempts.ts).
 */
import type { Writable } from 'node:stream'
import { AmqpConnectionManagerClass } from 'amqp-connection-manager'
import { type ChannelModel, credentials } from 'amqplib'
import { within } from '../deadline.ts'
import { keepNumbers, type NumberedConnection } from './channel-numbers.ts'
import { type ConnectionOptions, checkConnectionOptions } from './connection-options.ts'
import { type FrameReader, withoutDeepHeaders } from './deep-headers.ts'
import { errorOf, listenEarly, listenToLoaded, PRODUCT } from './early-errors.ts'
import { type GatherableConnection, gatherMessages } from './gather-messages.ts'
import { type GatherableSocket, gatherWrites } from './gather-writes.ts'
import { brokerTimeout } from './refusal.ts'

/** Called as things happen; never before the supervisor is started. */
export interface SupervisorEvents {
  readonly opened: (model: ChannelModel, url: string) => void
  readonly failed: (error: Error, url: string) => void
  readonly lost: (error: Error | undefined) => void
  /** By the broker, which says why; undefined: no longer. */
  readonly blocked: (reason: string | undefined) => void
}

const CLOSE_TIMEOUT_MS = 2_000

/** Dials for one connection. */
export class Supervisor {
  readonly #manager: AmqpConnectionManagerClass
  /** Ends the latest socket, also one that still shakes hands. */
  #socket = new AbortController()
  #isClosed = false

  /** @throws InvalidOption */
  constructor(options: ConnectionOptions, on: SupervisorEvents) {
    checkConnectionOptions(options)
    listenToLoaded()
    this.#manager = createManager(options, () => this.#nextSocket())
    this.#manager.on('connect', ({ connection, url }) => {
      const model = connection as unknown as ChannelModel
      if (hasEnded(model)) {
        const cause = errorOf(model.connection)
        const why = cause ? `: ${cause.message}` : ''
        model.emit('close', new Error(`the broker closed the connection as soon as it was open${why}`, { cause }))
        return
      }
      mend(model)
      on.opened(model, String(url))
    })
    this.#manager.on('connectFailed', ({ err, url }) => on.failed(err, String(url ?? options.urls[0])))
    this.#manager.on('disconnect', ({ err }) => on.lost(err))
    this.#manager.on('blocked', ({ reason }) => on.blocked(reason))
    this.#manager.on('unblocked', () => on.blocked(undefined))
  }

  start(): void {
    this.#manager.connect().catch(() => {})
  }

  /** The pause before the next attempt; read when the wait begins, which is right after `failed` and `lost`. */
  pauseFor(ms: number): void {
    this.#manager.reconnectTimeInSeconds = ms / 1_000
  }

  /** No further attempts. It ends only after its next pause, so that pause must be short. */
  end(): Promise<unknown> {
    this.pauseFor(1)
    return this.#manager.close()
  }

  /** Says goodbye to the broker, then ends the socket. Never throws. */
  async close(): Promise<void> {
    this.#isClosed = true
    await within(this.end(), CLOSE_TIMEOUT_MS, () => brokerTimeout('close the connection', CLOSE_TIMEOUT_MS)).catch(
      () => {},
    )
    this.#socket.abort()
  }

  /** The same, where there is nobody to say goodbye to: ends the socket first. */
  abort(): Promise<void> {
    this.#socket.abort()
    return this.close()
  }

  /** One signal per attempt: a socket that failed does not let go of its signal. */
  #nextSocket(): AbortSignal {
    this.#socket = new AbortController()
    if (this.#isClosed) this.#socket.abort()
    return this.#socket.signal
  }
}

function createManager(options: ConnectionOptions, nextSignal: () => AbortSignal): AmqpConnectionManagerClass {
  const { external, ...tls } = options.tls ?? {}
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
      clientProperties: { connection_name: `${options.service}:${options.role}`, product: PRODUCT },
    },
  })
}

/**
 * A broker that is shut down may open a connection and close it in one packet: amqplib then tells of the end before anybody can
 * listen, and the manager, who dials again when he hears of it, would keep a dead connection for ever.
 */
function hasEnded(model: ChannelModel): boolean {
  return (model.connection as unknown as { readonly stream: Writable }).stream.writableEnded
}

function mend(model: ChannelModel): void {
  const inner = model.connection as unknown as { readonly stream: GatherableSocket } & Partial<FrameReader> &
    Partial<GatherableConnection & NumberedConnection>
  gatherWrites(inner.stream)
  gatherMessages(inner)
  keepNumbers(inner)
  withoutDeepHeaders(inner)
  listenEarly(inner)
}
