/**
 * Listens for hints of other processes on a connection of its own out of the pool, where the client can: LISTEN.
 * Promises: a lost connection is replaced, after a growing pause; trouble here is trouble for nobody, since relays look by themselves;
 * closing waits neither for a free connection nor for an answer.
 */
import { pause } from '../deadline.ts'
import type { SqlPool, SqlPoolClient } from '../sql/client.ts'

const PAUSE_BASE_MS = 1_000
const PAUSE_CAP_MS = 30_000

/** What comes over a channel. */
interface Notification {
  readonly channel?: unknown
  readonly payload?: unknown
}

/** Hears what other processes tell. */
export class Listener {
  readonly #pool: SqlPool
  /** By channel: what to call when `payload` comes. */
  readonly #on: ReadonlyMap<string, () => void>
  readonly #payload: string
  readonly #stop = new AbortController()
  #running: Promise<void> | undefined
  /** A connection is waited for; one that comes too late is given back. */
  #connecting = false

  constructor(pool: SqlPool, payload: string, on: ReadonlyMap<string, () => void>) {
    this.#pool = pool
    this.#payload = payload
    this.#on = on
  }

  /** Begins, without waiting for it. A pool of one connection is left to the statements. */
  start(): void {
    const { options } = this.#pool as { readonly options?: { readonly max?: unknown } }
    if (options?.max === 1) return
    this.#running = this.#run()
  }

  async close(): Promise<void> {
    this.#stop.abort()
    if (!this.#connecting) await this.#running
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop
    for (let failures = 0; !signal.aborted; failures++) {
      const listened = await this.#listen().catch(() => false)
      if (listened === undefined) return
      if (listened) failures = 0
      await pause(
        Math.min(PAUSE_CAP_MS, PAUSE_BASE_MS * 2 ** Math.min(failures, 10)) * (0.5 + Math.random() / 2),
        signal,
        true,
      )
    }
  }

  /** @returns true after having listened for a while; undefined where the client cannot */
  async #listen(): Promise<boolean | undefined> {
    const client = await this.#connect()
    const { on, off } = client
    if (!on || !off || this.#stop.signal.aborted) {
      client.release()
      return undefined
    }
    const lost = new AbortController()
    const end = () => lost.abort()
    const hear = (message?: unknown) => this.#heard(message as Notification)
    client.on?.('error', end)
    client.on?.('end', end)
    client.on?.('notification', hear)
    try {
      const over = this.#until(lost.signal)
      await Promise.race([this.#subscribe(client), over])
      await over
      return true
    } finally {
      client.off?.('notification', hear)
      this.#letGo(client, end)
    }
  }

  #connect(): Promise<SqlPoolClient> {
    this.#connecting = true
    return this.#pool.connect().finally(() => {
      this.#connecting = false
    })
  }

  async #subscribe(client: SqlPoolClient): Promise<void> {
    for (const channel of this.#on.keys()) await client.query(`LISTEN ${channel}`)
    for (const listener of this.#on.values()) listener()
  }

  /** Closed, not kept: the next user of the connection would go on listening. */
  #letGo(client: SqlPoolClient, end: () => void): void {
    client.release(true)
    client.off?.('end', end)
    client.on?.('error', () => {})
    client.off?.('error', end)
  }

  #heard({ channel, payload }: Notification): void {
    if (payload === this.#payload) this.#on.get(String(channel))?.()
  }

  #until(lost: AbortSignal): Promise<void> {
    const { signal } = this.#stop
    return new Promise((resolve) => {
      const over = () => {
        // The signal of this listener outlives all its connections.
        signal.removeEventListener('abort', over)
        resolve()
      }
      lost.addEventListener('abort', over, { once: true })
      signal.addEventListener('abort', over)
      if (lost.aborted || signal.aborted) over()
    })
  }
}
