/** Opens what a command needs, by options or environment, and closes it. Logs go to stderr; passwords nowhere. */
import { readFileSync } from 'node:fs'
import { type Command, Option } from 'commander'
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

/** Options of every command that talks to the broker. */
export interface BrokerFlags {
  readonly amqp?: string
  readonly ca?: string
  readonly cert?: string
  readonly key?: string
  readonly verbose?: boolean
  readonly json?: boolean
}

/** Options of every command on a consumer's queue. */
export interface ConnectionFlags extends BrokerFlags {
  readonly redis?: string
  /** Schema of the Postgres inbox. */
  readonly inbox?: string
  readonly database?: string
}

/** An open connection to the broker. */
export interface BrokerSession {
  readonly output: Output
  readonly surehop: Surehop
  /** Fires at the first Ctrl-C, or when nobody reads the output. A second Ctrl-C ends at once. */
  readonly interrupted: AbortSignal
}

/** An open command on a consumer's queue. */
export interface Session extends BrokerSession {
  readonly store: IdempotencyStore | undefined
  letters(queue: string): DeadLetters
}

/** What a command ends with. */
export const EXIT = { done: 0, partly: 1, usage: 2, unreachable: 3, interrupted: 130 } as const

export function connectionFlags(command: Command): Command {
  return brokerFlags(command)
    .option('--redis <url>', "the consumer's idempotency store (default: REDIS_URL, if set)")
    .addOption(
      new Option('--inbox <schema>', 'its idempotency store is the Postgres inbox in this schema, not Redis').conflicts(
        'redis',
      ),
    )
    .option('--database <url>', 'Postgres of --inbox (default: DATABASE_URL)')
}

export function brokerFlags(command: Command): Command {
  return command
    .option('--amqp <url>', 'broker, e.g. amqps://user:password@host/vhost (default: AMQP_URL)')
    .option('--ca <file>', 'certificate authority for amqps://, PEM')
    .option('--cert <file>', 'client certificate, PEM')
    .option('--key <file>', "the client certificate's key, PEM")
    .option('--json', 'one JSON object per line instead of a table')
    .option('--verbose', 'log what happens, on stderr')
}

const CONNECT_MS = 10_000

/** Runs a command on a consumer's queue with an open connection; closes it whatever happens. */
export function withSession(flags: ConnectionFlags, run: (session: Session) => Promise<number>): Promise<number> {
  return withBroker(flags, 'letters', (broker) =>
    withStore(flags, (store) => {
      const letters = (queue: string) => broker.surehop.deadLetters(queue, store ? { idempotency: store } : {})
      return run({ ...broker, store, letters })
    }),
  )
}

/**
 * Runs a command with an open connection; closes it whatever happens.
 * @param of what is at hand when it is interrupted: `letters`
 */
export async function withBroker(
  flags: BrokerFlags,
  of: string,
  run: (session: BrokerSession) => Promise<number>,
): Promise<number> {
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
    return await run({ output, surehop, interrupted: interruption(output, of) })
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

/** Runs something with a store; closes it whatever happens. */
export async function closing<S extends { close(): Promise<void> }, T>(
  store: S,
  run: (store: S) => Promise<T>,
): Promise<T> {
  try {
    return await run(store)
  } finally {
    await store.close()
  }
}

function tlsOf({ ca, cert, key }: BrokerFlags): object {
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
