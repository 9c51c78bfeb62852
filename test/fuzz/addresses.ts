// Addresses of the services with a password in each, as the command is given them, and what of them it may never print.
//
// Promises: every service is named with a password: its own, or, where Redis asks for none, one that it takes all the same.
// Does NOT look for a short password, such as the guest's, by itself, since it is a word like others: only as it stands in an address.

import { PASSWORD } from './screen.ts'

/** Where the command looks for the address of a service. */
export const SERVICES = ['AMQP_URL', 'REDIS_URL', 'DATABASE_URL'] as const
export type Service = (typeof SERVICES)[number]

/** Addresses of one service that do not do, each with a password that may not be shown. */
export interface Wrong {
  /** Nobody listens there. */
  readonly nowhere: string
  /** What should be percent-encoded is not. */
  readonly unreadable: string
  /** The service is there, and knows no such user. */
  readonly refused: string
}

type Environment = Readonly<Record<string, string | undefined>>

const SCHEMES: Readonly<Record<Service, string>> = { AMQP_URL: 'amqp', REDIS_URL: 'redis', DATABASE_URL: 'postgres' }
const PATHS: Readonly<Record<Service, string>> = { AMQP_URL: '', REDIS_URL: '', DATABASE_URL: '/x' }
/** Shorter ones are words. */
const TELLING = 12

/** What the command runs in. */
export function environmentOf(env: Environment): Environment {
  const redis = new URL(env['REDIS_URL']!)
  if (redis.password !== '') return env
  return { ...env, REDIS_URL: withLogin(redis, 'default') }
}

/** Of the services of this environment. */
export function wrong(service: Service, env: Environment): Wrong {
  const [scheme, path] = [SCHEMES[service], PATHS[service]]
  return {
    nowhere: `${scheme}://fuzz:${PASSWORD}@127.0.0.1:1${path}`,
    unreadable: `${scheme}://fuzz:${PASSWORD}/x@127.0.0.1:1${path}`,
    refused: withLogin(new URL(env[service]!), 'fuzz-nobody'),
  }
}

/** What may be printed of no address: the passwords as they are and percent-encoded, and as they stand before a host. */
export function secretsOf(env: Environment): readonly string[] {
  const passwords = SERVICES.flatMap((service) => {
    const { password } = new URL(env[service]!)
    return password === '' ? [] : [password, decodeURIComponent(password)]
  })
  const secrets = [PASSWORD, ...passwords].flatMap((password) => [
    `:${password}@`,
    ...(password.length < TELLING ? [] : [password]),
  ])
  return [...new Set(secrets)]
}

function withLogin(url: URL, user: string): string {
  const changed = new URL(url)
  changed.username = user
  changed.password = PASSWORD
  return String(changed)
}
