// One RabbitMQ node of our own, alone or as a member of a cluster: its files, its environment, its start, its verbs.
//
// Promises: loopback only; as root and as an ordinary user; beside a system broker and beside others of its kind. A node of
// another installation runs with that one's /usr in the place of ours, in a mount namespace of its own: nothing is mounted for
// anybody else, and nothing is left to unmount.
// Does not promise: an epmd; whoever lays out nodes starts one (`startEpmd`) and ends it.

import { mkdir, writeFile } from 'node:fs/promises'
import { totalmem } from 'node:os'
import { join } from 'node:path'
import { converse, freePort } from './ports.ts'
import { launch, type PrivateProcess, runToEnd } from './private-process.ts'
import { SEARCH_PATH } from './provision.ts'
import { control, readyOrEnded, type Server } from './server.ts'

/** A RabbitMQ that is on this machine. */
export interface Installation {
  /** Folder of its scripts. */
  readonly scripts: string
  /** Folder of the system whose /usr it lives in, where that is not this machine's own. */
  readonly system?: string
}

/** What it takes to talk to a node from any process of the same user. */
export interface Node extends Installation {
  readonly env: Readonly<Record<string, string>>
}

/** What to lay out. */
export interface NodePlan {
  readonly installation: Installation
  /** Where the node's own folder is made. */
  readonly parent: string
  /** Before the `@localhost`. */
  readonly name: string
  readonly epmdPort: number
  /** The same for nodes and commands that belong together. */
  readonly cookie: string
  readonly plugins?: readonly string[]
  readonly config?: readonly string[]
}

/** A node that could be started. */
export interface Layout extends Node {
  readonly dir: string
  readonly name: string
  readonly port: number
  readonly epmdPort: number
}

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

const NODE_FILE = 'node.json'
const EPMD_WITHIN_MS = 10_000
const PROTOCOL_HEADER = Buffer.from('AMQP\x00\x00\x09\x01', 'latin1')
const WATERMARK_BYTES = Math.floor(Math.min(2 ** 31, totalmem() * 0.4))

// `+sbwt none`: schedulers without work sleep at once; several brokers share the machine with the tests.
const LOOPBACK = '-kernel inet_dist_use_interface {127,0,0,1}'
const ERLANG_ARGS = `+sbwt none +sbwtdcpu none +sbwtdio none ${LOOPBACK}`
const ADVANCED_CONFIG = '[{rabbit, [{dead_letter_worker_publisher_confirm_timeout, 3000}]}].\n'

/**
 * RabbitMQ 3.10.8 keeps the directory of quorum queues in a table that reaches the disk up to a second late. Killed before
 * that, it starts without the new queue's log: messages that it had confirmed are gone, publishes are nacked, and
 * `basic.get` is never answered (measured; a queue one second old survives). This Erlang expression writes it now.
 */
const NAMES_TO_DISK = '[dets:sync(Table) || Table <- dets:all()].'

/** Runs rabbitmqctl on a node. */
export function ctl(node: Node, args: readonly string[]): Promise<string> {
  const [command, ...rest] = commandIn(node, [join(node.scripts, 'rabbitmqctl'), ...args])
  return runToEnd(command, rest, node.env)
}

// Only /usr: the data, /proc, /dev and the names of hosts and users are this machine's, so that paths mean the same inside.
const WITH_THE_USR_OF = 'mount --bind "$0/etc/ld.so.cache" /etc/ld.so.cache && mount --bind "$0/usr" /usr && exec "$@"'

function commandIn({ system }: Installation, command: readonly [string, ...string[]]): readonly [string, ...string[]] {
  return system === undefined ? command : ['unshare', '--mount', 'sh', '-c', WITH_THE_USR_OF, system, ...command]
}

/**
 * Which release it is, such as `3.10.8`. `home`: a folder for the cookie that the command makes up. Even this command wants to be
 * registered, with the epmd of that port.
 */
export async function versionOf(installation: Installation, home: string, epmdPort: number): Promise<string> {
  return (await ctl({ ...installation, env: commandEnvironment(home, epmdPort) }, ['version'])).trim()
}

/** Writes all that a node reads at its start. */
export async function layNode(plan: NodePlan): Promise<Layout> {
  const { installation, parent, name, epmdPort } = plan
  const dir = join(parent, name)
  const [port, distPort] = [await freePort(), await freePort()]
  const node = { ...installation, env: environment(dir, name, port, distPort, epmdPort) }
  await writeFiles(dir, plan, node)
  return { ...node, dir, name, port, epmdPort }
}

/** For every Erlang here, node and command. */
function commandEnvironment(home: string, epmdPort: number) {
  return {
    PATH: SEARCH_PATH,
    HOME: home,
    LANG: 'C.UTF-8',
    ERL_EPMD_PORT: `${epmdPort}`,
    ERL_EPMD_ADDRESS: '127.0.0.1',
    // An epmd that one of them starts by itself would outlive the node.
    ERL_AFLAGS: '-start_epmd false',
    // A command whose node goes away meanwhile would leave one in the folder where the tests were started.
    ERL_CRASH_DUMP_SECONDS: '0',
    // Below all ports that are lent. Its own default are eleven ports, for all the commands that run on a machine at a time.
    RABBITMQ_CTL_DIST_PORT_MIN: '14000',
    RABBITMQ_CTL_DIST_PORT_MAX: '14999',
    RABBITMQ_CTL_ERL_ARGS: LOOPBACK,
  }
}

function environment(dir: string, name: string, port: number, distPort: number, epmdPort: number) {
  return {
    ...commandEnvironment(dir, epmdPort),
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

async function writeFiles(dir: string, { plugins = [], config = [], cookie }: NodePlan, node: Node): Promise<void> {
  const limits = [`vm_memory_high_watermark.absolute = ${WATERMARK_BYTES}`, 'disk_free_limit.absolute = 50MB']
  await mkdir(join(dir, 'conf.d'), { recursive: true })
  // Before any command: whichever runs first without it would make up a cookie of its own.
  await writeFile(join(dir, '.erlang.cookie'), cookie, { mode: 0o400 })
  await writeFile(join(dir, 'rabbitmq.conf'), [...limits, ...config, ''].join('\n'))
  await writeFile(join(dir, 'advanced.config'), ADVANCED_CONFIG)
  await writeFile(join(dir, 'enabled_plugins'), `[${plugins.join(',')}].\n`)
  await writeFile(join(dir, 'env.conf'), '')
  await writeFile(join(dir, NODE_FILE), JSON.stringify(node))
}

/** Starts the register of names that the nodes and commands of its port find each other by. `dir`: for its log. */
export async function startEpmd(installation: Installation, dir: string, epmdPort: number): Promise<PrivateProcess> {
  const env = commandEnvironment(dir, epmdPort)
  const [command, ...args] = commandIn(installation, ['epmd', '-port', `${epmdPort}`, '-address', '127.0.0.1'])
  const epmd = await launch({ command, args, cwd: dir, env, log: join(dir, 'epmd.log') })
  return readyOrEnded(epmd, () => converse(epmdPort, ASK_FOR_NAMES), EPMD_WITHIN_MS)
}

// EPMD's NAMES_REQ: a length of one byte, then the letter n.
const ASK_FOR_NAMES = Buffer.from([0, 1, 110])

/** Starts the node, and waits until it speaks AMQP. */
export async function startNode(layout: Layout, withinMs = 60_000): Promise<PrivateProcess> {
  const { scripts, env, dir, name, port } = layout
  const [command, ...args] = commandIn(layout, [join(scripts, 'rabbitmq-server')])
  const node = await launch({ command, args, cwd: dir, env, log: join(dir, 'output.log') })
  return readyOrEnded(node, () => greets(port, name), withinMs)
}

// On a lost race for the port, another broker would greet; ours tells its node's name as part of the cluster's.
async function greets(port: number, name: string): Promise<void> {
  const greeting = await converse(port, PROTOCOL_HEADER)
  const foreign = greeting.includes('cluster_name') && !greeting.includes(name)
  if (greeting[0] !== 1 || foreign) throw new Error(`port ${port} is answered by something else`)
}

/** One started node. */
export interface PrivateNode extends RabbitMq {
  readonly name: string
  /** Started, and neither stopped, killed nor frozen since. */
  readonly up: boolean
}

/** What nobody but its maker knows of a node. `remove` lets go of what is not the node's process. */
export interface Life {
  readonly first: PrivateProcess
  begin(): Promise<PrivateProcess>
  remove(): Promise<void>
}

/** The verbs over a started node. */
export function nodeServer(layout: Layout, life: Life): PrivateNode {
  const { name, port } = layout
  const server = control({ url: `amqp://guest:guest@127.0.0.1:${port}`, port, ...life })
  let up = true
  const turns = (verb: () => Promise<void>, to: boolean) => async () => {
    await verb()
    up = to
  }
  const kill9 = turns(server.kill9, false)
  const node = {
    ...server,
    start: turns(server.start, true),
    stop: turns(server.stop, false),
    restart: turns(server.restart, true),
    freeze: turns(server.freeze, false),
    thaw: turns(server.thaw, true),
    ctl: (...args: readonly string[]) => ctl(layout, args),
    nodeFile: join(layout.dir, NODE_FILE),
    name,
    async kill9({ atOnce = false } = {}) {
      if (!atOnce && up) await ctl(layout, ['eval', NAMES_TO_DISK]).catch(() => 'it was down already')
      await kill9()
    },
  }
  return Object.defineProperty(node as typeof node & { up: boolean }, 'up', { get: () => up })
}
