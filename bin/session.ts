/** Opens what a command needs, by options or environment, and closes it. Logs go to stderr; passwords nowhere. */
import { readFileSync } from 'node:fs'
import type { Command } from 'commander'
import { pino } from 'pino'
import {
  connect,
  type DeadLetters,
  type IdempotencyStore,
  InvalidOption,
  PostgresIdempotencyStore,
  RedisIdempotencyStore,
  type Surehop,
} from '../lib/index.ts'
import { withDatabase } from './database.ts'
import { interruption } from './interruption.ts'
import { Output } from './terminal.ts'

/** Options of every command. */
export interface ConnectionFlags {
  readonly amqp?: string
  readonly redis?: string
  /** Schema of the Postgres inbox. */
  readonly inbox?: string
  readonly database?: string
  readonly ca?: string
  readonly cert?: string
  readonly key?: string
  readonly verbose?: boolean
  readonly json?: boolean
}

/** An open command. */
export interface Session {
  readonly output: Output
  readonly surehop: Surehop
  readonly store: IdempotencyStore | undefined
  /** Fires at the first Ctrl-C, or when nobody reads the output. A second Ctrl-C ends at once. */
  readonly interrupted: AbortSignal
  letters(queue: string): DeadLetters
}

/** What a command ends with. */
export const EXIT = { done: 0, partly: 1, usage: 2, unreachable: 3, interrupted: 130 } as const

export function connectionFlags(command: Command): Command {
  return command
    .option('--amqp <url>', 'broker, e.g. amqps://user:password@host/vhost (default: AMQP_URL)')
    .option('--redis <url>', "the consumer's idempotency store (default: REDIS_URL, if set)")
    .option('--inbox <schema>', 'its idempotency store is the Postgres inbox in this schema, not Redis')
    .option('--database <url>', 'Postgres of --inbox (default: DATABASE_URL)')
    .option('--ca <file>', 'certificate authority for amqps://, PEM')
    .option('--cert <file>', 'client certificate, PEM')
    .option('--key <file>', "the client certificate's key, PEM")
    .option('--json', 'one JSON object per line instead of a table')
    .option('--verbose', 'log what happens, on stderr')
}

const CONNECT_MS = 10_000

/** Runs a command with an open connection; closes it whatever happens. */
export async function withSession(flags: ConnectionFlags, run: (session: Session) => Promise<number>): Promise<number> {
  const output = new Output(process.stdout, process.stderr)
  const amqp = flags.amqp ?? process.env['AMQP_URL']
  if (!amqp) throw new InvalidOption('expected the address of the broker: give --amqp URL or set AMQP_URL')
  const surehop = await connect({
    amqp,
    service: 'surehop-cli',
    connectTimeoutMs: CONNECT_MS,
    ...tlsOf(flags),
    ...(flags.verbose ? { logger: pino({ level: 'debug' }, pino.destination({ fd: 2, sync: true })) } : {}),
  })
  try {
    return await withStore(flags, (store) => {
      const letters = (queue: string) => surehop.deadLetters(queue, store ? { idempotency: store } : {})
      return run({ output, surehop, store, interrupted: interruption(output, 'letters'), letters })
    })
  } finally {
    await surehop.close()
  }
}

/** Opens the consumer's idempotency store, if one is named, and closes it. */
async function withStore<T>(
  flags: ConnectionFlags,
  run: (store: IdempotencyStore | undefined) => Promise<T>,
): Promise<T> {
  const { inbox, redis = process.env['REDIS_URL'] } = flags
  if (inbox !== undefined)
    return withDatabase(flags, (pool) => closing(new PostgresIdempotencyStore({ pool, schema: inbox }), run))
  return redis ? closing(new RedisIdempotencyStore({ url: redis }), run) : run(undefined)
}

async function closing<T>(store: IdempotencyStore, run: (store: IdempotencyStore) => Promise<T>): Promise<T> {
  try {
    return await run(store)
  } finally {
    await store.close()
  }
}

function tlsOf({ ca, cert, key }: ConnectionFlags): object {
  const files = Object.entries({ ca, cert, key }).filter(([, file]) => file !== undefined)
  if (files.length === 0) return {}
  return { tls: Object.fromEntries(files.map(([name, file]) => [name, pem(name, file!)])) }
}

function pem(name: string, file: string): Buffer {
  try {
    return readFileSync(file)
  } catch (error) {
    throw new InvalidOption(`expected --${name} to be a readable file: ${(error as Error).message}`)
  }
}
