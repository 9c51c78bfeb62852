// What faults are made of: choices dealt from the seed, and how long a fault stays in force.

import { setTimeout as pause } from 'node:timers/promises'
import { eventually } from '../../support/eventually.ts'
import type { TcpProxy } from '../../support/tcp-proxy.ts'
import type { Random } from '../random.ts'
import type { ClusterNode, Fleet, World } from '../world.ts'

/** A span of time, in tenths of a second, so that the choice reads as it is. */
export function span(random: Random, leastMs: number, mostMs: number): number {
  return random.between(leastMs / 100, mostMs / 100) * 100
}

/** `14.2 s` */
export function seconds(ms: number): string {
  return `${(ms / 1_000).toFixed(1)} s`
}

/** The fault is in force for so long: nothing to wait for, it is a length of real time. */
export async function hold(ms: number): Promise<void> {
  await pause(ms)
}

/** The one a dealt number stands for among those there are now. */
export function at<T>(choice: number, from: readonly T[]): T {
  if (from.length === 0)
    throw new Error('expected at least one to choose from, got none: the fleet or cluster is not whole')
  return from[choice % from.length]!
}

/** `node 1` ... `node 3` */
export const NODES = 3

/** Numbers of the nodes to which most are connected, from 0; waits for a connection, since all may have been cut a moment ago. */
export function nodesInUse({ brokerProxies }: World): Promise<readonly number[]> {
  const inUse = () => {
    const connections = brokerProxies.map((proxy) => proxy.connections)
    const most = Math.max(...connections)
    if (most === 0) throw new Error('no connection to any node')
    // What a fault left half open before is no use.
    return connections.flatMap((some, node) => (2 * some >= most ? [node] : []))
  }
  return eventually(async () => inUse(), { withinMs: 60_000, what: 'a connection to break' })
}

/** Runs rabbitmqctl on the first node that can: in a mix, some of them are down. */
export async function ctlSomewhere({ rabbitmq }: World, ...args: readonly string[]): Promise<string> {
  const attempt = async () => {
    const complaints: unknown[] = []
    for (const node of rabbitmq.nodes) {
      const said = await node.ctl(...args).catch((error: unknown) => void complaints.push(error))
      if (said !== undefined) return said
    }
    throw complaints[0]
  }
  return eventually(attempt, { withinMs: 120_000, what: `rabbitmqctl ${args[0]} on any node` })
}

/** Consumers that have begun a handler and not ended it; waits for one. */
export function inWork(fleet: Fleet, role: 'consumer' | 'inbox-consumer'): Promise<readonly number[]> {
  const look = async () => {
    const found = fleet.living(role).filter((worker) => fleet.inWork(worker) > 0)
    return found.length > 0 ? found : Promise.reject(new Error('none is in a handler'))
  }
  return eventually(look, { withinMs: 120_000, what: `${role} in a handler` })
}

/** Kills nodes as one, waits, and makes the cluster whole again. */
export async function killAndReturn({ rabbitmq }: World, nodes: readonly ClusterNode[], downMs: number): Promise<void> {
  await Promise.all(nodes.map((node) => node.kill9()))
  await hold(downMs)
  await rabbitmq.whole()
}

/** Waits until all connections that a proxy has now have ended, whatever new ones come; at most for so long. */
export function untilTheseEnd(proxy: TcpProxy, atMostMs: number): Promise<void> {
  let open = proxy.connections
  if (open === 0) return Promise.resolve()
  return new Promise((resolve) => {
    const finish = () => {
      clearTimeout(timer)
      proxy.off('disconnection', ended)
      resolve()
    }
    const ended = () => {
      if (--open <= 0) finish()
    }
    const timer = setTimeout(finish, atMostMs)
    proxy.on('disconnection', ended)
  })
}
