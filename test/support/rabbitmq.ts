// A private RabbitMQ node: own name, ports, epmd, Erlang cookie and folder; loopback only.
//
//   running -> stopped | killed -> running ...; running <-> frozen; any -> closed
//
// Promises: what was confirmed survives `stop` and `kill9`; the port stays the same over restarts; works as root and as an
// ordinary user, beside a system broker and beside others of its kind; `close` leaves nothing behind, epmd included.
// Starting takes about 4 s. At-least-once dead-lettering retries a failed hop after 3 s here, not after the usual 180 s.

import { mkdir, writeFile } from 'node:fs/promises'
import { totalmem } from 'node:os'
import { join } from 'node:path'
import { compose } from './compose.ts'
import { type DataFolder, dataFolder } from './data-folder.ts'
import { converse, firstThatStarts, freePort } from './ports.ts'
import { launch, type PrivateProcess, runToEnd } from './private-process.ts'
import { provide, SEARCH_PATH } from './provision.ts'
import { control, readyOrEnded, type Server } from './server.ts'

/** A private broker. User and password are guest. */
export interface RabbitMq extends Server {
  /** Runs rabbitmqctl on the node, and gives what it printed. */
  ctl(...args: readonly string[]): Promise<string>
  /**
   * Ends the node with SIGKILL and keeps its data; start it again with `start`. Half a second passes before the kill, in
   * which the node is told to write the names of new queues to the disk: see {@link NAMES_TO_DISK}. `atOnce` omits that.
   */
  kill9(options?: { readonly atOnce?: boolean }): Promise<void>
  /** File that tells other processes of the same user how rabbitmqctl reaches the node; none for a container. */
  readonly nodeFile?: string
}

/** Options of {@link startRabbitMq}. */
export interface RabbitMqOptions {
  /** Plugins to enable. Default none, which starts fastest. */
  readonly plugins?: readonly string[]
  /** More lines of rabbitmq.conf, such as `consumer_timeout = 5000`; the last line of a key counts. */
  readonly config?: readonly string[]
  /** Folder of the scripts of another RabbitMQ than the installed one. */
  readonly scripts?: string
}

/** What it takes to talk to a node from any process of the same user. */
export interface Node {
  readonly scripts: string
  readonly env: Readonly<Record<string, string>>
}

interface Layout extends Node {
  readonly folder: DataFolder
  readonly name: string
  readonly port: number
  readonly epmdPort: number
}

const NODE_FILE = 'node.json'
const START_WITHIN_MS = 60_000
const EPMD_WITHIN_MS = 10_000
const PROTOCOL_HEADER = Buffer.from('AMQP\x00\x00\x09\x01', 'latin1')
const WATERMARK_BYTES = Math.floor(Math.min(2 ** 31, totalmem() * 0.4))

// `+sbwt none`: schedulers without work sleep at once; several brokers share the machine with the tests.
const ERLANG_ARGS = '+sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1}'
const ADVANCED_CONFIG = '[{rabbit, [{dead_letter_worker_publisher_confirm_timeout, 3000}]}].\n'

/**
 * RabbitMQ 3.10.8 keeps the directory of quorum queues in a table that reaches the disk up to a second late. Killed before
 * that, it starts without the new queue's log: messages that it had confirmed are gone, publishes are nacked, and
 * `basic.get` is never answered (measured; a queue one second old survives). This Erlang expression writes it now.
 */
const NAMES_TO_DISK = '[dets:sync(Table) || Table <- dets:all()].'

/** Starts a private node beside all others. */
export async function startRabbitMq(options: RabbitMqOptions = {}): Promise<RabbitMq> {
  const scripts = options.scripts ?? (await installedScripts())
  if (scripts !== undefined) return firstThatStarts(() => open(scripts, options))
  if (options.plugins?.length || options.config?.length) {
    throw new Error(
      'A private RabbitMQ with plugins or settings of its own needs RabbitMQ installed; a container is not enough.',
    )
  }
  return compose('rabbitmq')
}

async function installedScripts(): Promise<string | undefined> {
  const { rabbitmq } = await provide('rabbitmq')
  return rabbitmq.kind === 'installed' ? rabbitmq.path : undefined
}

/** Runs rabbitmqctl on a node. */
export function ctl({ scripts, env }: Node, args: readonly string[]): Promise<string> {
  return runToEnd(join(scripts, 'rabbitmqctl'), args, env)
}

async function open(scripts: string, options: RabbitMqOptions): Promise<RabbitMq> {
  const layout = await lay(scripts, options)
  const epmd = await startEpmd(layout).catch(async (error: unknown) => {
    await layout.folder.remove()
    throw error
  })
  const remove = async () => {
    await epmd.end('SIGKILL')
    await layout.folder.remove()
  }
  const begin = () => startNode(layout)
  const first = await begin().catch(async (error: unknown) => {
    await remove()
    throw error
  })
  const url = `amqp://guest:guest@127.0.0.1:${layout.port}`
  return withNodeVerbs(control({ url, port: layout.port, first, begin, remove }), layout)
}

function withNodeVerbs(server: Server, layout: Layout): RabbitMq {
  const { freeze, thaw, kill9 } = server
  let frozen = false
  return Object.assign(server, {
    ctl: (...args: readonly string[]) => ctl(layout, args),
    nodeFile: join(layout.folder.path, NODE_FILE),
    async freeze() {
      await freeze()
      frozen = true
    },
    async thaw() {
      await thaw()
      frozen = false
    },
    async kill9({ atOnce = false } = {}) {
      if (!atOnce && !frozen) await ctl(layout, ['eval', NAMES_TO_DISK]).catch(() => 'it was down already')
      await kill9()
      frozen = false
    },
  })
}

async function lay(scripts: string, options: RabbitMqOptions): Promise<Layout> {
  const folder = await dataFolder('rabbitmq')
  const [port, distPort, epmdPort] = [await freePort(), await freePort(), await freePort()]
  const name = `surehop-${port}-${process.pid}`
  const env = environment(folder.path, name, port, distPort, epmdPort)
  await writeFiles(folder.path, options, { scripts, env })
  return { folder, scripts, env, name, port, epmdPort }
}

function environment(dir: string, name: string, port: number, distPort: number, epmdPort: number) {
  return {
    PATH: SEARCH_PATH,
    HOME: dir,
    LANG: 'C.UTF-8',
    ERL_EPMD_PORT: `${epmdPort}`,
    ERL_EPMD_ADDRESS: '127.0.0.1',
    // For every Erlang here, rabbitmqctl too: an epmd that one of them starts by itself would outlive the node.
    ERL_AFLAGS: '-start_epmd false',
    RABBITMQ_NODENAME: `${name}@localhost`,
    RABBITMQ_NODE_IP_ADDRESS: '127.0.0.1',
    RABBITMQ_NODE_PORT: `${port}`,
    RABBITMQ_DIST_PORT: `${distPort}`,
    RABBITMQ_MNESIA_BASE: join(dir, 'mnesia'),
    RABBITMQ_LOG_BASE: join(dir, 'log'),
    RABBITMQ_PID_FILE: join(dir, 'pid'),
    RABBITMQ_CONFIG_FILE: join(dir, 'rabbitmq.conf'),
    RABBITMQ_CONFIG_FILES: join(dir, 'conf.d'),
    RABBITMQ_ADVANCED_CONFIG_FILE: join(dir, 'advanced.config'),
    RABBITMQ_CONF_ENV_FILE: join(dir, 'env.conf'),
    RABBITMQ_ENABLED_PLUGINS_FILE: join(dir, 'enabled_plugins'),
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS: ERLANG_ARGS,
    // Makes the start script become the node instead of a shell that waits for it, so that its end is the node's end.
    RUNNING_UNDER_SYSTEMD: 'true',
  }
}

async function writeFiles(dir: string, { plugins = [], config = [] }: RabbitMqOptions, node: Node): Promise<void> {
  const limits = [`vm_memory_high_watermark.absolute = ${WATERMARK_BYTES}`, 'disk_free_limit.absolute = 50MB']
  await mkdir(join(dir, 'conf.d'))
  // Before any command: whichever runs first without it would make up a cookie of its own.
  await writeFile(join(dir, '.erlang.cookie'), `surehop${process.pid}`, { mode: 0o400 })
  await writeFile(join(dir, 'rabbitmq.conf'), [...limits, ...config, ''].join('\n'))
  await writeFile(join(dir, 'advanced.config'), ADVANCED_CONFIG)
  await writeFile(join(dir, 'enabled_plugins'), `[${plugins.join(',')}].\n`)
  await writeFile(join(dir, 'env.conf'), '')
  await writeFile(join(dir, NODE_FILE), JSON.stringify(node))
}

async function startEpmd({ folder, env, epmdPort }: Layout): Promise<PrivateProcess> {
  const args = ['-port', `${epmdPort}`, '-address', '127.0.0.1']
  const epmd = await launch({ command: 'epmd', args, cwd: folder.path, env, log: join(folder.path, 'epmd.log') })
  return readyOrEnded(epmd, () => converse(epmdPort, ASK_FOR_NAMES), EPMD_WITHIN_MS)
}

// EPMD's NAMES_REQ: a length of one byte, then the letter n.
const ASK_FOR_NAMES = Buffer.from([0, 1, 110])

async function startNode({ scripts, env, folder, name, port }: Layout): Promise<PrivateProcess> {
  const command = join(scripts, 'rabbitmq-server')
  const node = await launch({ command, args: [], cwd: folder.path, env, log: join(folder.path, 'output.log') })
  return readyOrEnded(node, () => greets(port, name), START_WITHIN_MS)
}

// On a lost race for the port, another broker would greet; ours tells its node's name as part of the cluster's.
async function greets(port: number, name: string): Promise<void> {
  const greeting = await converse(port, PROTOCOL_HEADER)
  const foreign = greeting.includes('cluster_name') && !greeting.includes(name)
  if (greeting[0] !== 1 || foreign) throw new Error(`port ${port} is answered by something else`)
}
