/**
 * The Redis store's own connection: it fails closed and quickly, and never hides what it does not know.
 *
 *     wait ──first use──▶ connecting ──▶ ready ⇄ reconnecting ──close──▶ closed
 *
 * Promises: every call ends within the command timeout (the first also waits for the connection, with a bound); whatever is
 * not a certain answer is `StoreUnavailable`; nothing is queued while disconnected; it reconnects by itself for ever. Passwords
 * stand in no message.
 * An idle link keeps no process alive. Does NOT promise: that a call which timed out was not executed, or will not be yet, behind
 * later ones: a frozen Redis finds it in its socket, and of a cluster, ioredis sends what lay on a lost connection once more, for some
 * 2 seconds, also what its caller was told has failed. Each script must bear that.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import { type Command, Redis } from 'ioredis'
import { Closed, InvalidOption, type StoreUnavailable } from '../errors.ts'
import { having, show } from '../options.ts'
import { scriptCommand } from './redis-command.ts'
import type { Script } from './redis-scripts.ts'
import { explain } from './redis-trouble.ts'

/** A client of ioredis, `Redis` or `Cluster`, by shape. It is only asked for a duplicate; you close it yourself. */
export interface RedisClient {
  readonly status: string
  duplicate(): unknown
}

/** Where Redis is: a URL (`redis://user:password@host:6379/0`, `rediss://...`), or your client. */
export type RedisTarget = string | { readonly url: string } | RedisClient

/** The part of ioredis this module uses; the same for `Redis` and `Cluster`. */
interface Connection {
  readonly status: string
  readonly isCluster?: boolean
  readonly options: {
    readonly host?: string
    readonly port?: number
    readonly path?: string
    readonly name?: string
    readonly keyPrefix?: string
  }
  readonly startupNodes?: readonly unknown[]
  on(event: string, listener: (error: Error) => void): void
  off(event: string, listener: (error: Error) => void): void
  connect(): Promise<void>
  disconnect(): void
  quit(): Promise<unknown>
  nodes?(role: 'master'): Connection[]
  call(command: string, ...args: string[]): Promise<unknown>
  sendCommand(command: Command): Promise<unknown>
  evalBuffer(lua: string, keys: number, ...args: readonly (string | Buffer)[]): Promise<unknown>
  evalshaBuffer(sha: string, keys: number, ...args: readonly (string | Buffer)[]): Promise<unknown>
}

/** How long the link waits. */
export interface LinkTimes {
  readonly commandTimeoutMs: number
  readonly connectTimeoutMs: number
  /** What the link is for. Default: idempotency. */
  readonly purpose?: LinkPurpose
}

/** How a link is called, and what it means that it is down. */
export interface LinkPurpose {
  /** Shown by Redis, after `surehop-`, and in errors: `the idempotency store`. */
  readonly name: string
  /** A sentence for errors. */
  readonly whileDown: string
}

const IDEMPOTENCY: LinkPurpose = { name: 'idempotency', whileDown: 'No handler runs until it can.' }

/** How long `close()` waits for replies that are under way. */
const QUIT_MS = 500

/** Our own connection to Redis, set up to fail closed. */
export class RedisLink {
  readonly isCluster: boolean
  readonly #connection: Connection
  readonly #times: LinkTimes
  #trouble: Error | undefined
  #wasReady = false
  #opening: Promise<void> | undefined
  #closed = false

  constructor(redis: RedisTarget, times: LinkTimes) {
    this.#times = times
    this.#connection = open(redis, times)
    this.isCluster = this.#connection.isCluster === true
    this.#connection.on('error', (error) => {
      this.#trouble = error
    })
    keepsNoProcessAlive(this.#connection)
    this.#connection.on('ready', () => {
      this.#wasReady = true
      this.#trouble = undefined
    })
  }

  /** Runs a script. Rejects with `StoreUnavailable` (or `Closed`). */
  async run(script: Script, keys: readonly string[], args: readonly (string | Buffer)[]): Promise<unknown> {
    if (this.#connection.status !== 'ready' || this.#closed) await this.#ready()
    try {
      return await this.#bounded(this.#eval(script, keys, args))
    } catch (error) {
      throw this.#unavailable(error)
    }
  }

  /** Sends one plain command to every master; a node that answers with an error answers `undefined`. */
  async askMasters(command: string, ...args: string[]): Promise<unknown[]> {
    await this.#ready()
    const masters = this.#connection.nodes?.('master') ?? [this.#connection]
    const ask = async (node: Connection) => this.#bounded(node.call(command, ...args)).catch(this.#onlyRefusals)
    return Promise.all(masters.map(ask))
  }

  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    if (this.#connection.status === 'ready') {
      await Promise.race([this.#connection.quit().catch(() => {}), sleep(QUIT_MS, undefined, { ref: false })])
    }
    this.#connection.disconnect()
  }

  async #eval({ lua, sha }: Script, keys: readonly string[], args: readonly (string | Buffer)[]): Promise<unknown> {
    try {
      return await this.#evalsha(sha, keys, args)
    } catch (error) {
      if (!(error instanceof Error && error.message.startsWith('NOSCRIPT'))) throw error
      return this.#connection.evalBuffer(lua, keys.length, ...keys, ...args)
    }
  }

  #evalsha(sha: string, keys: readonly string[], args: readonly (string | Buffer)[]): Promise<unknown> {
    const connection = this.#connection
    // A client that you lend may be of another version than ours: only of ours is it known what it asks of a command.
    const plain = connection instanceof Redis && !connection.options.keyPrefix
    const command = plain ? scriptCommand(sha, keys, args) : undefined
    return command ? connection.sendCommand(command) : connection.evalshaBuffer(sha, keys.length, ...keys, ...args)
  }

  /** Returns at once if connected; waits, with a bound, only for the very first connection. */
  async #ready(): Promise<void> {
    if (this.#closed) throw new Closed(`the ${this.#purpose.name} store was closed; open a new one`)
    const { status } = this.#connection
    if (status === 'ready') return
    if (status === 'wait' || status === 'end') this.#connection.connect().catch(() => {})
    if (this.#wasReady) throw this.#unavailable(this.#trouble ?? new Error('the connection is lost'))
    this.#opening ??= this.#opened().finally(() => {
      this.#opening = undefined
    })
    await this.#opening
  }

  #opened(): Promise<void> {
    const connection = this.#connection
    return new Promise((resolve, reject) => {
      const timer = setTimeout(
        () => end(this.#trouble ?? new Error('connecting timed out')),
        this.#times.connectTimeoutMs,
      )
      const onReady = () => end(undefined)
      const onClose = () => end(this.#trouble ?? new Error('the connection was closed while it was being made'))
      const end = (error: Error | undefined) => {
        clearTimeout(timer)
        connection.off('ready', onReady)
        connection.off('close', onClose)
        if (error) reject(this.#unavailable(error))
        else resolve()
      }
      connection.on('ready', onReady)
      connection.on('close', onClose)
    })
  }

  /** The connection's own timeout does not cover a cluster that is looking for its nodes: this one covers all. */
  #bounded<T>(reply: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const late = () => reject(new Error('Command timed out'))
      const timer = setTimeout(late, this.#times.commandTimeoutMs)
      reply.then(resolve, reject).finally(() => clearTimeout(timer))
    })
  }

  readonly #onlyRefusals = (error: unknown): undefined => {
    if (error instanceof Error && error.name === 'ReplyError') return undefined
    throw this.#unavailable(error)
  }

  #unavailable(error: unknown): StoreUnavailable {
    const { whileDown } = this.#purpose
    const { isCluster } = this
    return explain(error, { address: addressOf(this.#connection), isCluster, whileDown, ...this.#times })
  }

  get #purpose(): LinkPurpose {
    return this.#times.purpose ?? IDEMPOTENCY
  }
}

function open(redis: RedisTarget, times: LinkTimes): Connection {
  const options = failClosed(times)
  const url = typeof redis === 'string' ? redis : (redis as { readonly url?: unknown } | null)?.url
  if (url !== undefined) return new Redis(checkedUrl(url), options) as unknown as Connection
  if (having('', 'duplicate')(redis) !== undefined)
    throw new InvalidOption(`expected redis to be a URL or a client of ioredis, got ${show(redis)}`)
  const client = redis as unknown as { isCluster?: boolean; duplicate(...args: unknown[]): Connection }
  if (client.isCluster !== true) return client.duplicate(options)
  const { retryStrategy, enableOfflineQueue, lazyConnect, enableAutoPipelining, ...redisOptions } = options
  return client.duplicate([], {
    enableOfflineQueue,
    lazyConnect,
    enableAutoPipelining,
    scaleReads: 'master',
    clusterRetryStrategy: retryStrategy,
    slotsRefreshTimeout: times.commandTimeoutMs,
    redisOptions,
  })
}

function checkedUrl(url: unknown): string {
  if (typeof url === 'string' && isRedisUrl(url)) return url
  throw new InvalidOption(
    'expected redis to be a URL, got something else (not shown: it may hold a password, of which / # ? % @ must be percent-encoded). ' +
      'An example: redis://user:password@host:6379/0',
  )
}

/**
 * ioredis decodes the password, and throws at a "%" that stands for itself. An "@" behind the host is one of a password whose "/" was
 * not encoded: half of it would be the host, and be told.
 */
function isRedisUrl(url: string): boolean {
  if (!URL.canParse(url) || !/^rediss?:$/.test(new URL(url).protocol)) return false
  const { pathname, search, hash } = new URL(url)
  if (`${pathname}${search}${hash}`.includes('@')) return false
  try {
    decodeURIComponent(new URL(url).username)
    decodeURIComponent(new URL(url).password)
    return true
  } catch {
    return false
  }
}

/** What ioredis waits with; a request under way has a timer of its own, which does keep the process. */
interface Waits {
  readonly stream?: { unref?(): void } | undefined
  readonly reconnectTimeout?: NodeJS.Timeout | number | null
  on(event: string, listener: (node: Waits) => void): void
}

/** A store that nobody closed, idle or trying to reconnect, must not keep a process that has nothing else to do. */
function keepsNoProcessAlive(connection: object): void {
  const waits = connection as Waits
  waits.on('connect', () => waits.stream?.unref?.())
  waits.on('reconnecting', () => {
    if (typeof waits.reconnectTimeout === 'object') waits.reconnectTimeout?.unref()
  })
  waits.on('+node', keepsNoProcessAlive)
}

/** See the table of what ioredis does while Redis is down: by default it queues, repeats, and runs late what nobody waits for. */
function failClosed({ commandTimeoutMs, connectTimeoutMs, purpose = IDEMPOTENCY }: LinkTimes) {
  return {
    lazyConnect: true,
    enableOfflineQueue: false,
    enableAutoPipelining: false,
    autoResendUnfulfilledCommands: false,
    maxRetriesPerRequest: 0,
    commandTimeout: commandTimeoutMs,
    connectTimeout: connectTimeoutMs,
    // A peer that vanished without a word: drop the socket, else the kernel takes minutes to notice.
    socketTimeout: 2 * commandTimeoutMs,
    retryStrategy: (times: number) =>
      Math.round(Math.min(50 * 2 ** Math.min(times, 6), 2_000) * (0.5 + Math.random() / 2)),
    // The master we knew is a replica now: find the new one.
    reconnectOnError: (error: Error): boolean => error.message.startsWith('READONLY'),
    showFriendlyErrorStack: false,
    connectionName: `surehop-${purpose.name}`,
  }
}

function addressOf({ options, isCluster, startupNodes }: Connection): string {
  if (isCluster) return `the cluster of ${startupNodes?.length ?? 0} known node(s)`
  if (options.name) return `the sentinel group "${options.name}"`
  return options.path ?? `${options.host ?? 'localhost'}:${options.port ?? 6379}`
}
