// A private RabbitMQ node: own name, ports, epmd, Erlang cookie and folder; loopback only.
//
//   running -> stopped | killed -> running ...; running <-> frozen; any -> closed
//
// Promises: what was confirmed survives `stop` and `kill9`; the port stays the same over restarts; works as root and as an
// ordinary user, beside a system broker and beside others of its kind; `close` leaves nothing behind, epmd included.
// Starting takes about 4 s. At-least-once dead-lettering retries a failed hop after 3 s here, not after the usual 180 s.
//
// SUREHOP_RABBITMQ=4.0 (or 4.3) in the environment: not the installed RabbitMQ but that release, see `releases.ts`.

import { installationOf, releaseWanted } from '../lab/cluster/releases.ts'
import type { Release } from '../lab/world.ts'
import { compose } from './compose.ts'
import { dataFolder } from './data-folder.ts'
import { firstThatStarts, freePort } from './ports.ts'
import { provide } from './provision.ts'
import {
  type Installation,
  type Layout,
  layNode,
  nodeServer,
  type RabbitMq,
  startEpmd,
  startNode,
} from './rabbitmq-node.ts'

export { ctl, type Node, type RabbitMq } from './rabbitmq-node.ts'

/** Options of {@link startRabbitMq}. */
export interface RabbitMqOptions {
  /** Plugins to enable. Default none, which starts fastest. */
  readonly plugins?: readonly string[]
  /** More lines of rabbitmq.conf, such as `consumer_timeout = 5000`; the last line of a key counts. */
  readonly config?: readonly string[]
  /** Default: that of SUREHOP_RABBITMQ, else the installed one. */
  readonly release?: Release
}

/** Starts a private node beside all others. */
export async function startRabbitMq(options: RabbitMqOptions = {}): Promise<RabbitMq> {
  const installation = await installed(options.release ?? releaseWanted())
  if (installation !== undefined) return firstThatStarts(() => open(installation, options))
  if (options.plugins?.length || options.config?.length) {
    throw new Error(
      'A private RabbitMQ with plugins or settings of its own needs RabbitMQ installed; a container is not enough.',
    )
  }
  return compose('rabbitmq')
}

/** The release's programs on this machine, made if need be; undefined where there is only a container engine. */
export async function installed(release: Release): Promise<Installation | undefined> {
  if (release !== 'installed') return installationOf(release)
  const { rabbitmq } = await provide('rabbitmq')
  return rabbitmq.kind === 'installed' ? { scripts: rabbitmq.path } : undefined
}

async function open(installation: Installation, options: RabbitMqOptions): Promise<RabbitMq> {
  const folder = await dataFolder('rabbitmq')
  const layout = await lay(installation, folder.path, options)
  const epmd = await startEpmd(installation, layout.dir, layout.epmdPort).catch(async (error: unknown) => {
    await folder.remove()
    throw error
  })
  const remove = async () => {
    await epmd.end('SIGKILL')
    await folder.remove()
  }
  const begin = () => startNode(layout)
  const first = await begin().catch(async (error: unknown) => {
    await remove()
    throw error
  })
  return nodeServer(layout, { first, begin, remove })
}

async function lay(installation: Installation, parent: string, options: RabbitMqOptions): Promise<Layout> {
  const epmdPort = await freePort()
  const name = `surehop-${epmdPort}-${process.pid}`
  return layNode({ ...options, installation, parent, name, epmdPort, cookie: `surehop${process.pid}` })
}
