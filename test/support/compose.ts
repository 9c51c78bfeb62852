// Private services in containers, for a machine that has a container engine but not the programs.
//
// Promises: a project of its own per service, on a free loopback port, taken down with its volumes at the end.

import { fileURLToPath } from 'node:url'
import { eventually } from './eventually.ts'
import { guard } from './guard.ts'
import { converse, freePort } from './ports.ts'
import { runToEnd } from './private-process.ts'
import type { Program } from './provision.ts'
import type { RabbitMq } from './rabbitmq.ts'

const FILE = fileURLToPath(new URL('../../compose.yaml', import.meta.url))
const READY_WITHIN_MS = 60_000
// Postgres: a StartupMessage, version 3.0, with its length in front.
const SERVICES = {
  rabbitmq: { hello: 'AMQP\x00\x00\x09\x01', url: 'amqp://guest:guest@127.0.0.1', database: '' },
  redis: { hello: 'PING\r\n', url: 'redis://127.0.0.1', database: '' },
  postgres: {
    hello: '\0\0\0\x17\0\x03\0\0user\0postgres\0\0',
    url: 'postgres://postgres@127.0.0.1',
    database: '/postgres',
  },
}

/** Starts one service of `compose.yaml`. */
export async function compose(service: Program): Promise<RabbitMq> {
  const { hello, url, database } = SERVICES[service]
  const port = await freePort()
  const project = ['compose', '-p', `surehop-${service}-${port}`, '-f', FILE]
  const env = { ...(process.env as Record<string, string>), ...portsOf(port) }
  const docker = (...args: readonly string[]) => runToEnd('docker', [...project, ...args], env)
  const down = ['down', '--volumes', '--timeout', '1']
  const release = guard({ command: ['docker', ...project, ...down] })
  const ready = () =>
    eventually(() => welcomes(port, hello), { withinMs: READY_WITHIN_MS, what: `${service} in Docker` })
  const verb = async (...args: readonly string[]) => void (await docker(...args, service))
  const start = (...args: readonly string[]) =>
    verb(...args)
      .then(ready)
      .then(() => undefined)
  await start('up', '--detach')
  const server: RabbitMq = {
    url: `${url}:${port}${database}`,
    port,
    controllable: true,
    start: () => start('start'),
    stop: () => verb('stop'),
    restart: () => start('restart'),
    kill9: () => verb('kill', '--signal', 'SIGKILL'),
    freeze: () => verb('pause'),
    thaw: () => verb('unpause'),
    ctl: (...args) => docker('exec', '-T', 'rabbitmq', 'rabbitmqctl', ...args),
    close: () => docker(...down).then(release),
    [Symbol.asyncDispose]: () => server.close(),
  }
  return server
}

function portsOf(port: number): Readonly<Record<string, string>> {
  return { AMQP_PORT: `${port}`, REDIS_PORT: `${port}`, DATABASE_PORT: `${port}` }
}

// Redis and Postgres say that they are still loading by an error.
async function welcomes(port: number, hello: string): Promise<boolean> {
  const answer = await converse(port, Buffer.from(hello, 'latin1'))
  return !['-', 'E'].includes(String.fromCharCode(answer[0] as number))
}
