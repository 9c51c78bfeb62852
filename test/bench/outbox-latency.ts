/**
 * How long after COMMIT has returned the handler of the message runs, when there is little to do: transactions one by one, spaced
 * irregularly. Writer and handler are always in one process, so that one clock is read; the relay is there, too, or in another one.
 */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { dirname, join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import type { PoolClient } from 'pg'
import { connect, type Message, migrate, Outbox, type SqlClient } from '../../lib/index.ts'
import type { Job, Measured } from './job.ts'
import { poolOf } from './outbox-by-hand.ts'
import { type Body, messageOf } from './outbox-messages.ts'
import { quantiles } from './quantiles.ts'

const SHORTEST_MS = 20
const LONGEST_MS = 80

export async function prepareService(job: Job): Promise<void> {
  await using pool = poolOf(job)
  await migrate(pool, { schema: job.schema })
  await pool.query(
    `CREATE TABLE ${job.schema}.orders (id bigserial PRIMARY KEY, customer text NOT NULL, cents integer NOT NULL)`,
  )
}

/** The row of business that each transaction writes. */
export async function placeOrder(n: number, { schema }: Job, client: SqlClient): Promise<void> {
  await client.query(`INSERT INTO ${schema}.orders (customer, cents) VALUES ($1, $2)`, [`customer-${n % 1_000}`, n])
}

/** Writes in a transaction of its own, resolves when it has committed. */
type Commit = (work: (client: SqlClient) => Promise<void>) => Promise<void>
type Service = { readonly outbox: Outbox; readonly pool: ReturnType<typeof poolOf> }

/** `outbox.transaction()`, which tells the relays of the commit. */
const byTransaction =
  ({ outbox }: Service): Commit =>
  (work) =>
    outbox.transaction(work)

/** BEGIN and COMMIT of one's own: the relays are told of the `add`, and find out about the commit. */
const byBegin =
  ({ pool }: Service): Commit =>
  async (work) => {
    const client: PoolClient = await pool.connect()
    await client.query('BEGIN')
    await work(client)
    await client.query('COMMIT')
    client.release()
  }

export const relayHereByTransaction = (job: Job) => latency(job, relayHere, byTransaction)
export const relayHereByBegin = (job: Job) => latency(job, relayHere, byBegin)
export const relayElsewhereByTransaction = (job: Job) => latency(job, relayElsewhere, byTransaction)
export const relayElsewhereByBegin = (job: Job) => latency(job, relayElsewhere, byBegin)

type StartRelay = (job: Job, service: Service) => Promise<AsyncDisposable>

async function latency(job: Job, startRelay: StartRelay, way: (service: Service) => Commit): Promise<Measured> {
  await using surehop = await connect({ amqp: job.amqpUrl, service: 'bench' })
  await using pool = poolOf(job)
  const service = { outbox: new Outbox({ name: 'bench', schema: job.schema, pool }), pool }
  const total = job.warmup + job.messages
  const times = new Times(total)
  await using _consumer = await surehop.consume<Body>(job.queue, {}, async ({ body }: Message<Body>) =>
    times.handled(body.n),
  )
  await using _relay = await startRelay(job, service)
  const commit = way(service)
  for (let n = 0; n < total; n++) {
    await pause(SHORTEST_MS + Math.random() * (LONGEST_MS - SHORTEST_MS))
    await commit(async (client) => {
      await placeOrder(n, job, client)
      await service.outbox.add(messageOf(n, job), client)
    })
    times.committed(n)
  }
  await times.complete
  return times.figures(job.warmup)
}

async function relayHere({ amqpUrl }: Job, { outbox, pool }: Service): Promise<AsyncDisposable> {
  const surehop = await connect({ amqp: amqpUrl, service: 'bench' })
  await surehop.relay({ outbox, pool })
  return surehop
}

async function relayElsewhere(job: Job): Promise<AsyncDisposable> {
  const program = join(dirname(process.argv[1]!), 'outbox-relay-process.js')
  const relay = fork(program, [JSON.stringify(job)], { execArgv: [] })
  const ended = once(relay, 'exit')
  const early = ended.then(([code]) => {
    throw new Error(`the process of the relay ended with exit code ${code}`)
  })
  await Promise.race([once(relay, 'message'), early])
  early.catch(() => {})
  const end = async () => {
    relay.disconnect()
    await ended
  }
  return { [Symbol.asyncDispose]: end }
}

/** When each transaction had committed, and when its message was handled; either may be noted first. */
class Times {
  readonly complete: Promise<void>
  readonly #committed: number[] = []
  readonly #handled: number[] = []
  #left: number
  #resolve!: () => void

  constructor(total: number) {
    this.#left = total
    this.complete = new Promise((resolve) => {
      this.#resolve = resolve
    })
  }

  committed(n: number): void {
    this.#committed[n] = performance.now()
  }

  handled(n: number): void {
    if (this.#handled[n] !== undefined) return
    this.#handled[n] = performance.now()
    this.#left--
    if (this.#left === 0) this.#resolve()
  }

  figures(after: number): Measured {
    const taken = this.#handled.map((at, n) => at - this.#committed[n]!).slice(after)
    const at = quantiles(taken)
    return { p50Ms: at(0.5), p99Ms: at(0.99), maxMs: at(1) }
  }
}
