// A private RabbitMQ cluster of three nodes on loopback, with an epmd, a cookie and a folder of its own.
//
//   forming -> whole <-> less than whole (a node killed, stopped or frozen) -> closed
//
// Promises: a quorum queue that is declared while all nodes are up has a replica on each; a node keeps its name, its ports and its
// data over kill and stop; `whole` heals whatever was done to the nodes; nothing outlives this process.
// A minority pauses (`pause_minority`) where the release knows that: up to 4.2; newer ones leave it to Raft.
// Does not promise: that a node without a majority starts. `start` of a single one waits for the others; `whole` starts all at once.
//
// Measured on two busy cores: whole 17 s after the call with RabbitMQ 3.10, 10 s with 4.0, 17 s with 4.3; a node takes 125 to 145 MB.

import { dataFolder } from '../../support/data-folder.ts'
import { eventually } from '../../support/eventually.ts'
import { firstThatStarts, freePort } from '../../support/ports.ts'
import { installed } from '../../support/rabbitmq.ts'
import {
  type Installation,
  type Layout,
  layNode,
  type NodePlan,
  nodeServer,
  type PrivateNode,
  startEpmd,
  startNode,
  versionOf,
} from '../../support/rabbitmq-node.ts'
import type { RabbitMqCluster, Release } from '../world.ts'
import { releaseWanted } from './releases.ts'

/** Options of {@link startRabbitMqCluster}. */
export interface ClusterOptions {
  /** Default: that of SUREHOP_RABBITMQ, else the installed one. */
  readonly release?: Release
  /** More lines of rabbitmq.conf, for each node. */
  readonly config?: readonly string[]
}

const NAMES = ['n1', 'n2', 'n3'] as const
const NODE_WITHIN_MS = 150_000
const WHOLE_WITHIN_MS = 240_000

// Asked of the leader, which answers once a majority has told it that it still leads.
const LEADER = `Leader = fun(Queue) ->
  {Name, _} = amqqueue:get_pid(Queue),
  case rpc:call(node(), ra, consistent_query, [{Name, node()}, {erlang, is_tuple, []}, 3000], 6000) of
    {ok, _, {_, Node}} -> Node;
    _ -> none
  end
end`

/**
 * Whether a node is part of the whole: `apart`, `missing` with those it knows to run, `unled` with a queue, or `whole`. A queue is led
 * if a leader answers for it. Not the question above: after a restart, the leader of a queue without traffic leaves it open
 * for a minute and more on 3.10, while all members are there and name the same leader (measured).
 */
const STANDING = `Led = fun(Queue) ->
  {Name, _} = amqqueue:get_pid(Queue),
  case rpc:call(node(), ra, members, [{Name, node()}, 3000], 6000) of
    {ok, _, {_, _}} -> true;
    _ -> false
  end
end,
Running = case erlang:function_exported(rabbit_nodes, list_running, 0) of
  true -> rabbit_nodes:list_running();
  false -> rabbit_nodes:all_running()
end,
Partitions = case erlang:function_exported(rabbit_node_monitor, partitions, 0) of
  true -> rabbit_node_monitor:partitions();
  false -> []
end,
Quorum = [Queue || Queue <- rabbit_amqqueue:list(), amqqueue:get_type(Queue) =:= rabbit_quorum_queue],
case {length(Running), Partitions} of
  {1, [_ | _]} -> apart;
  {${NAMES.length}, _} ->
    case lists:search(fun(Queue) -> not Led(Queue) end, Quorum) of
      false -> whole;
      {value, Queue} -> {unled, amqqueue:get_name(Queue)}
    end;
  _ -> {missing, Running}
end.`

/** Brings a cluster up beside all others. @throws ReleaseUnavailable */
export async function startRabbitMqCluster(options: ClusterOptions = {}): Promise<RabbitMqCluster> {
  const installation = await installed(options.release ?? releaseWanted())
  if (!installation) throw new Error('A private cluster needs RabbitMQ installed; a container is not enough.')
  return firstThatStarts(() => open(installation, options))
}

async function open(installation: Installation, options: ClusterOptions): Promise<RabbitMqCluster> {
  const folder = await dataFolder('cluster')
  const undo: (() => Promise<unknown>)[] = [folder.remove]
  const close = async () => {
    for (const step of undo.splice(0).reverse()) await step()
  }
  try {
    const epmdPort = await freePort()
    const epmd = await startEpmd(installation, folder.path, epmdPort)
    undo.push(() => epmd.end('SIGKILL'))
    const version = await versionOf(installation, folder.path, epmdPort)
    const layouts = await lay(
      { installation, parent: folder.path, epmdPort, cookie: `surehop${epmdPort}` },
      version,
      options,
    )
    const nodes = await startAll(layouts, version, (node) => undo.push(node.close))
    const cluster = clusterOf(version, nodes, close)
    await cluster.whole()
    return cluster
  } catch (error) {
    await close()
    throw error
  }
}

async function lay(
  plan: Omit<NodePlan, 'name'>,
  version: string,
  { config = [] }: ClusterOptions,
): Promise<readonly Layout[]> {
  const names = NAMES.map((name) => `${name}-${plan.epmdPort}-${process.pid}`)
  const peers = names.map((name, i) => `cluster_formation.classic_config.nodes.${i + 1} = ${name}@localhost`)
  const formation = ['cluster_formation.peer_discovery_backend = classic_config', ...peers]
  const partition = isBefore(version, 4, 3) ? ['cluster_partition_handling = pause_minority'] : []
  const lines = [...formation, ...partition, ...config]
  return Promise.all(names.map((name) => layNode({ ...plan, name, config: lines })))
}

function isBefore(version: string, major: number, minor: number): boolean {
  const [ours = 0, theirs = 0] = version.split('.').map(Number)
  return ours < major || (ours === major && theirs < minor)
}

/** RabbitMQ 4 waits for its peers, 3 would form a cluster of its own: there, the first is up before the others start. */
async function startAll(
  layouts: readonly Layout[],
  version: string,
  tell: (node: PrivateNode) => void,
): Promise<readonly PrivateNode[]> {
  const start = async (layout: Layout) => {
    const begin = () => startNode(layout, NODE_WITHIN_MS)
    const node = nodeServer(layout, { first: await begin(), begin, remove: async () => {} })
    tell(node)
    return node
  }
  if (!isBefore(version, 4, 0)) return settled(layouts.map(start))
  const first = await start(layouts[0]!)
  return [first, ...(await settled(layouts.slice(1).map(start)))]
}

/** All of them; waits for the last one also when one has failed, so that there is nothing that starts after the undoing. */
async function settled<T>(starts: readonly Promise<T>[]): Promise<readonly T[]> {
  await Promise.allSettled(starts)
  return Promise.all(starts)
}

function clusterOf(version: string, nodes: readonly PrivateNode[], end: () => Promise<void>): RabbitMqCluster {
  let closed: Promise<void> | undefined
  const close = () => (closed ??= end())
  return {
    version,
    nodes,
    leaderOf: (queue) => leaderOf(nodes, queue),
    whole: () => whole(nodes),
    close,
    [Symbol.asyncDispose]: close,
  }
}

async function leaderOf(nodes: readonly PrivateNode[], queue: string): Promise<PrivateNode> {
  const question = `${LEADER},
    {ok, Queue} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<${JSON.stringify(queue)}/utf8>>)),
    Leader(Queue).`
  for (const node of nodes.filter(({ up }) => up)) {
    const answer = await node.ctl('eval', question).catch(() => 'none')
    const leader = nodes.find(({ name }) => answer.includes(`${name}@`))
    if (leader) return leader
  }
  throw new Error(`The quorum queue ${queue} has no leader now that answers for a majority.`)
}

async function whole(nodes: readonly PrivateNode[]): Promise<void> {
  const check = async () => {
    await settled(nodes.map((node) => node.thaw().then(node.start)))
    // One after the other, because a command takes more of the machine than its answer.
    for (const node of nodes) await isPart(node)
  }
  await eventually(check, { withinMs: WHOLE_WITHIN_MS, what: 'a whole cluster' })
}

/**
 * A node that was frozen for longer than the others wait for it (a minute) goes on by itself afterwards, apart from them: measured
 * with 3.10, `pause_minority` or not. As an operator would, restarts it.
 */
async function isPart(node: PrivateNode): Promise<void> {
  const answer = (await node.ctl('eval', STANDING)).trim()
  if (answer === 'apart') await node.kill9()
  if (answer !== 'whole') throw new Error(`${node.name} says ${answer}`)
}
