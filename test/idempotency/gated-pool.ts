// Several actors on one database, whose statements are let through one by one, in an order that the test chooses.
//
// Promises: between two steps every actor stands still: at its next statement, at a lock of Postgres, dead, or done; `explore` plays
// every order that makes a difference, once. An actor that dies drops its connection before its next statement, as a crash of its
// process would. A deadlock fails the play.

import type { Pool, PoolClient } from 'pg'
import type { SqlPool } from '../../lib/sql/client.ts'
import { latch } from '../support/eventually.ts'

/** What an actor does, on its own pool. */
export type Play<T> = (pool: SqlPool) => Promise<T>

/** Who goes next, by number; `-n` kills actor `n - 1`. When it is at its end, the first that can. */
export type Schedule = readonly number[]

/** What came of a play. */
export interface Played<T> {
  /** By actor; undefined for one that died or threw. */
  readonly results: readonly (T | undefined)[]
  /** Who went, and who else could have. */
  readonly steps: readonly { readonly went: number; readonly could: readonly number[] }[]
}

type State = 'at its gate' | 'under way' | 'dead' | 'done'

/** One actor and its pool. */
class Actor<T> {
  readonly number: number
  state: State = 'under way'
  result: T | undefined
  error: unknown
  pid = 0
  readonly #real: Pool
  #gate = latch()
  #changed = latch()
  #client: PoolClient | undefined

  constructor(number: number, real: Pool, play: Play<T>) {
    this.number = number
    this.#real = real
    const pool: SqlPool = {
      query: (sql, parameters) => real.query(sql, parameters),
      connect: () => this.#connect(),
    }
    play(pool)
      .then(
        (result) => {
          this.result = result
        },
        (error: unknown) => {
          this.error = error
        },
      )
      .finally(() => this.#become('done'))
  }

  /** Lets the next statement through. */
  pass(): void {
    const gate = this.#gate
    this.#become('under way')
    gate.resolve()
  }

  die(): void {
    this.#become('dead')
    this.#client?.release(true)
    this.#client = undefined
  }

  /** Resolves when its state changes. */
  get change(): Promise<void> {
    return this.#changed.promise
  }

  #become(state: State): void {
    if (this.state === 'dead') return
    this.state = state
    this.#changed.resolve()
    this.#changed = latch()
  }

  async #connect() {
    const client = await this.#real.connect()
    const ignore = () => {}
    client.on('error', ignore)
    this.#client = client
    this.pid = (client as unknown as { processID: number }).processID
    const release = (destroy?: boolean | Error) => {
      client.off('error', ignore)
      if (this.#client) client.release(destroy)
      this.#client = undefined
    }
    return { query: (sql: string, parameters?: unknown[]) => this.#query(client, sql, parameters), release }
  }

  async #query(client: PoolClient, sql: string, parameters: unknown[] | undefined) {
    this.#gate = latch()
    this.#become('at its gate')
    await this.#gate.promise
    return client.query(sql, parameters)
  }
}

/** Plays all actors to their ends. @throws a deadlock */
export async function playAll<T>(pool: Pool, plays: readonly Play<T>[], schedule: Schedule): Promise<Played<T>> {
  const actors = plays.map((play, number) => new Actor(number, pool, play))
  const steps: { went: number; could: number[] }[] = []
  const left = [...schedule]
  for (await quiet(pool, actors); actors.some(alive); await quiet(pool, actors)) {
    const could = actors.filter(({ state }) => state === 'at its gate').map(({ number }) => number)
    const asked = left.shift() ?? could[0]!
    if (asked < 0) {
      actors[-asked - 1]!.die()
      continue
    }
    const went = could.includes(asked) ? asked : could[0]!
    steps.push({ went, could })
    actors[went]!.pass()
  }
  const deadlock = actors.find(({ error }) => (error as { code?: string } | undefined)?.code === '40P01')
  if (deadlock) throw deadlock.error
  return { results: actors.map(({ result }) => result), steps }
}

/** Plays every order in which statements can follow each other. @returns how many there are */
export async function explore<T>(act: (schedule: Schedule) => Promise<Played<T>>): Promise<number> {
  const open: Schedule[] = [[]]
  let played = 0
  for (let schedule = open.pop(); schedule; schedule = open.pop()) {
    played++
    const { steps } = await act(schedule).catch((error: unknown) => {
      throw new Error(`in the order ${schedule}: ${error}`, { cause: error })
    })
    for (let at = schedule.length; at < steps.length; at++) {
      const so = steps.slice(0, at).map(({ went }) => went)
      const { went, could } = steps[at]!
      for (const other of could) if (other !== went) open.push([...so, other])
    }
  }
  return played
}

const BLOCKED = 'SELECT DISTINCT pid FROM pg_locks WHERE NOT granted AND pid = ANY($1)'

function alive({ state }: Actor<unknown>): boolean {
  return state === 'at its gate' || state === 'under way'
}

/** Waits until everybody who is under way waits for a lock that somebody at a gate holds. */
async function quiet(pool: Pool, actors: readonly Actor<unknown>[]): Promise<void> {
  for (;;) {
    const busy = actors.filter(({ state }) => state === 'under way')
    if (busy.length === 0) return
    const changes = Promise.race(busy.map(({ change }) => change.then(() => true)))
    const { rows } = await pool.query<{ pid: number }>(BLOCKED, [busy.map(({ pid }) => pid)])
    // A turn of the loop, so that answers that are here are seen.
    const turn = new Promise<boolean>((resolve) => setImmediate(() => resolve(false)))
    if (await Promise.race([changes, turn])) continue
    if (rows.length < busy.length) continue
    if (actors.some(({ state }) => state === 'at its gate')) return
    // A dead connection that Postgres has not noticed yet, or a deadlock, which it ends after a second.
    await changes
  }
}
