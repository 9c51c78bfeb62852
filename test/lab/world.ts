// What the fault lab is made of: the servers, the network between them, and the processes that work.
//
// A row of the lab is one fault (or a mix) against one workload: the fleet starts, messages flow, the fault is injected again and
// again while they do, it is healed, everything drains, and the ledger is reconciled. Workers know only the proxies, never
// the servers themselves; no worker is told what is about to happen to it.

import type { Server } from '../support/server.ts'
import type { TcpProxy } from '../support/tcp-proxy.ts'
import type { Random } from './random.ts'

/** RabbitMQ releases the lab can bring up: the one that is installed, and newer ones in folders of their own. */
export type Release = 'installed' | '4.0' | '4.3'

/** A three-node cluster; quorum queues have a replica on each node. */
export interface RabbitMqCluster extends AsyncDisposable {
  /** As the broker says it, such as `3.10.8`. */
  readonly version: string
  readonly nodes: readonly ClusterNode[]
  /** The node that leads the quorum queue now; throws while there is none. */
  leaderOf(queue: string): Promise<ClusterNode>
  /** Starts what is down, thaws what is frozen, and waits until every node runs and every quorum queue has a leader and its majority. */
  whole(): Promise<void>
  close(): Promise<void>
}

/** One node. `kill9` forces the names of young queues to the disk first, see `support/rabbitmq.ts`. */
export interface ClusterNode extends Server {
  readonly name: string
  ctl(...args: readonly string[]): Promise<string>
}

/** A master with a replica, and three Sentinels that watch them. */
export interface RedisSentinel extends AsyncDisposable {
  readonly name: string
  readonly sentinels: readonly { readonly host: string; readonly port: number }[]
  /** The server that is master now. */
  master(): Promise<Server>
  readonly servers: readonly Server[]
  /** Waits until there is a master and a replica that follows it; starts what is down. */
  whole(): Promise<void>
  close(): Promise<void>
}

/** Three masters that share the slots, without replicas. */
export interface RedisCluster extends AsyncDisposable {
  readonly startupNodes: readonly { readonly host: string; readonly port: number }[]
  readonly servers: readonly Server[]
  /** Starts what is down, gives lost slots back (empty), and waits until the cluster stands. */
  whole(): Promise<void>
  close(): Promise<void>
}

/** How a worker reaches the Redis of its idempotency store. */
export type RedisPlace =
  | { readonly kind: 'single'; readonly url: string }
  | { readonly kind: 'sentinel'; readonly name: string; readonly sentinels: readonly { host: string; port: number }[] }
  | { readonly kind: 'cluster'; readonly startupNodes: readonly { host: string; port: number }[] }

/** All that a fault can touch. */
export interface World {
  readonly rabbitmq: RabbitMqCluster
  /** One in front of each node, in the order of `rabbitmq.nodes`. */
  readonly brokerProxies: readonly TcpProxy[]
  /** Present where the row asks for it. */
  readonly redis: Server
  readonly redisProxy: TcpProxy
  readonly sentinel?: RedisSentinel
  readonly redisCluster?: RedisCluster
  readonly postgres: Server
  readonly postgresProxy: TcpProxy
  readonly fleet: Fleet
  readonly random: Random
}

/** What a process of the fleet does. */
export type Role = 'producer' | 'outbox-writer' | 'relay' | 'consumer' | 'inbox-consumer'

/** The working processes. A killed one is replaced at once, by a new process with a new number. */
export interface Fleet {
  /** Numbers of those that live, by role. */
  living(role: Role): readonly number[]
  /** kill -9, and a new process in its place. @returns when the new one works */
  kill9(worker: number): Promise<void>
  /** SIGSTOP, for so long, then SIGCONT. @returns when it goes on */
  freeze(worker: number, forMs: number): Promise<void>
  /** Ends it and starts another in its place, whose clock is off by this many ms. */
  restartWithClock(worker: number, offsetMs: number): Promise<void>
}

/** One kind of trouble. */
export interface Fault {
  /** As the table shows it, such as `SIGKILL of the leader`. */
  readonly name: string
  /** What the row needs beside the usual. */
  readonly needs?: readonly ('sentinel' | 'redis-cluster')[]
  /** For rows whose promise has a limit that this fault reaches, in the README's words: effects may be repeated then. */
  readonly limit?: 'redis-forgets' | 'process-dies' | 'none'
  /**
   * Injects once and heals what it did: returns when the world is whole again as far as this fault is concerned. Takes its
   * choices (which node, how long) from `world.random`, so that a seed tells the schedule.
   */
  inject(world: World): Promise<void>
}
