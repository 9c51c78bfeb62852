// A store behind a wire that loses what it is told to lose: a request that never arrives, or the answer to one that was executed.
//
// Promises: exactly the chosen bytes are lost, and the connection with them, as in a network that fails; what happened on the other
// side is known for certain, since the wire is read along.

import { Pool } from 'pg'
import type { IdempotencyStore } from '../../lib/idempotency/idempotency.ts'
import { PostgresIdempotencyStore } from '../../lib/idempotency/postgres.ts'
import { RedisIdempotencyStore } from '../../lib/idempotency/redis.ts'
import { eventually } from '../support/eventually.ts'
import { type Direction, startProxy, type TcpProxy } from '../support/tcp-proxy.ts'

/** What is lost of the next call: the piece of that number, from 1, in that direction. */
export interface Loss {
  readonly lost: 'request' | 'answer'
  readonly piece: number
}

const PATIENCE_MS = 10_000

/** One store, and what befalls it. */
export class LossyStore implements AsyncDisposable {
  readonly #proxy: TcpProxy
  readonly #make: () => IdempotencyStore
  readonly #hasWritten: (sent: string) => boolean
  readonly #close: () => Promise<void>
  #store: IdempotencyStore

  private constructor(of: {
    readonly proxy: TcpProxy
    readonly make: () => IdempotencyStore
    readonly hasWritten: (sent: string) => boolean
    readonly close?: () => Promise<void>
  }) {
    this.#proxy = of.proxy
    this.#make = of.make
    this.#hasWritten = of.hasWritten
    this.#close = of.close ?? (async () => {})
    this.#store = of.make()
  }

  static async redis(url: string): Promise<LossyStore> {
    const proxy = await startProxy(url)
    const make = () => new RedisIdempotencyStore({ url: proxy.url }, { commandTimeoutMs: PATIENCE_MS })
    return new LossyStore({ proxy, make, hasWritten: () => true })
  }

  static async postgres(url: string, schema: string): Promise<LossyStore> {
    const proxy = await startProxy(url)
    const pool = new Pool({ connectionString: proxy.url, max: 1 }).on('error', () => {})
    const make = () => new PostgresIdempotencyStore({ pool, schema, statementTimeoutMs: PATIENCE_MS })
    const written = new RegExp(`(INSERT INTO|UPDATE|DELETE FROM) "?${schema}"?\\.inbox`)
    return new LossyStore({ proxy, make, hasWritten: (sent) => committed(sent, written), close: () => pool.end() })
  }

  get store(): IdempotencyStore {
    return this.#store
  }

  /** The process dies, and another begins under its name: nothing is known any more of what was. */
  async restart(): Promise<void> {
    await this.#store.close()
    this.#store = this.#make()
    await this.#ready()
  }

  /**
   * Calls the store, and loses what is to be lost, if the call comes so far. Ends when the store is connected again.
   * @returns its answer; or, where something was lost, whether the call was executed
   */
  async losing<T>({ lost, piece }: Loss, call: () => Promise<T>): Promise<{ answer: T } | { executed: boolean }> {
    await this.#ready()
    let left = piece
    let sent = ''
    let executed: boolean | undefined
    const listen = (way: Direction, bytes: Buffer) => {
      if (executed !== undefined) return
      if (way === 'to-server') sent += bytes.toString('latin1')
      if (way !== (lost === 'request' ? 'to-server' : 'to-client') || --left > 0) return
      executed = lost === 'answer' && this.#hasWritten(sent)
      this.#proxy.swallow()
      setImmediate(() => this.#proxy.cut())
    }
    this.#proxy.on('data', listen)
    try {
      const answer = await call()
      if (executed !== undefined) throw new Error('there was an answer, although it was lost')
      return { answer }
    } catch (error) {
      if (executed === undefined) throw error
      return { executed }
    } finally {
      this.#proxy.off('data', listen)
      await this.#proxy.resume()
      await this.#ready()
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#store.close()
    await this.#close()
    await this.#proxy.close()
  }

  /** Connected, and with all scripts known, so that the next bytes on the wire are those of the next call. */
  #ready(): Promise<unknown> {
    const scope = { name: 'nobody', retentionMs: 1, leaseMs: 1, maxStarts: 1 }
    return eventually(() => this.#store.look(scope, ['nothing']), { withinMs: 3 * PATIENCE_MS })
  }
}

/** Was the end of a transaction asked for in which something was written? */
function committed(sent: string, written: RegExp): boolean {
  const transaction = sent.slice(sent.lastIndexOf('BEGIN'))
  return /COMMIT\0/.test(transaction) && written.test(transaction)
}
