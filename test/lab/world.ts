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

/** One node. `kill9` forces the names of young queues to the disk first, see `support/rabbitmq-node.ts`. */
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
}

/** What a process of the fleet does. */
export type Role =
  | 'producer'
  | 'outbox-writer'
  | 'relay'
  | 'consumer'
  | 'inbox-consumer'
  | 'operator'
  | 'half-producer'
  | 'half-checker'

/** Who is there beside the usual, in rows that ask for it: somebody who sends dead letters again; senders of half messages. */
export type Cast = 'operator' | 'halves'

/** The working processes. A killed one is replaced at once, by a new process with a new number. */
export interface Fleet {
  /** The work queues, consumed by `consumer` and by `inbox-consumer`; quorum queues with a replica on each node. */
  readonly queues: readonly string[]
  /** What the cast works on: the dead letters that are sent again; the half messages that are asked for. */
  readonly castQueues: Readonly<Record<Cast, string>>
  /** How long a consumer's lease lasts: one that is frozen for longer wakes as a zombie, ms. */
  readonly leaseMs: number
  /** Numbers of those that live, by role. */
  living(role: Role): readonly number[]
  /** kill -9, and a new process in its place. @returns when the new one works */
  kill9(worker: number): Promise<void>
  /** SIGSTOP, then SIGCONT after so many ms, or when `during` has ended. @returns when it goes on */
  freeze(worker: number, during: number | (() => Promise<unknown>)): Promise<void>
  /** How many of its handlers have begun and not ended, by the ledger. */
  inWork(worker: number): number
  /** How many of its runs that had not ended were begun anew by another process, by the ledger. */
  takenFrom(worker: number): number
  /** Resets its connections to the brokers, and nobody else's; those to Redis and Postgres stay. */
  cutOff(worker: number, proxies: readonly TcpProxy[]): void
  /** Ends it and starts another in its place, whose clock is off by this many ms. @returns the new one's number */
  restartWithClock(worker: number, offsetMs: number): Promise<number>
  /** Puts on record what Redis forgot, see `ledger.ts`; ns of the monotonic clock. */
  redisForgot(times: { readonly since: number; readonly from: number; readonly at: number }): void
}

/** What the runner asks of a fleet beside its troubles. Messages are offered from its start until `enough`, never far ahead of the consumers. */
export interface Workload extends Fleet, AsyncDisposable {
  progress(): Progress
  /** Offers nothing new. @returns when all that was offered is confirmed, or sent by the relay */
  enough(withinMs: number): Promise<void>
  /** Waits until every message offered and accepted has ended, and the queues are empty; rejects with what is missing. */
  drained(withinMs: number): Promise<void>
  /** Of processes that ended by themselves, or did not close in time, and that nobody was told of yet, in words. */
  crashes(): readonly string[]
  /** Closes all workers in good order; the ledger stays until `discard`. What of them does not end well is in `crashes`. */
  close(): Promise<void>
  /** Where the ledger is kept. */
  readonly folder: string
  /** Removes the ledger. */
  discard(): Promise<void>
}

/** How far the work is. */
export interface Progress {
  readonly offered: number
  /** Confirmed, or committed to the outbox. */
  readonly accepted: number
  /** Ids with at least one effect. */
  readonly handled: number
}

/** What the ledger says when all is over; what of it must be 0 for a row to pass: `PROMISES` in `table.ts`. */
export interface Verdict {
  /** Accepted: confirmed, or committed to the outbox. */
  readonly messages: number
  /** Accepted, and without an effect; or an effect whose own message did not come out of the second leg. */
  readonly lost: number
  /** Effects beyond the first of their id that no stated limit explains; what counts as explained: `reconcile-runs.ts`. */
  readonly doubled: number
  /** Effects beyond the first of their id within a limit that the README states: by a process that died, after Redis forgot. */
  readonly repeated: number
  /** Recorded ends of a lease that had gone to somebody else, and tokens that were given twice or had not grown. */
  readonly zombies: number
  /** Attempts beyond the policy's, before their time, counted twice or not at all: `reconcile/attempts.ts`. */
  readonly attempts: number
  /** First effects of a key that came before an earlier message's of the same key, where order is promised. */
  readonly outOfOrder: number
  /** The same within a limit that the README states: by a lost consumer, whose messages the broker puts at the back of the queue. */
  readonly reordered: number
  /** Effects of messages that nobody offered, or whose transaction was rolled back. */
  readonly phantom: number
  /** Messages left in any queue, unplanned dead letters included, and rows left in an outbox. */
  readonly left: number
  /** Messages that were meant to fail for good, and lie in the dead letters. */
  readonly deadLetters: number
  /** Attempts beyond a first that were judged, and the least time from a failure to the next attempt, ms. */
  readonly retried: number
  readonly soonestRetryMs?: number
  /** Messages of which a publish ended `unknown`; of these, those that were never offered again; of these, those that arrived. */
  readonly unknown: { readonly told: number; readonly withdrawn: number; readonly arrived: number }
  /** Messages whose only publish ended `not-sent` or `returned`: one of them that arrives is a phantom. */
  readonly neverSent: number
  /** Claims of messages that another process held, which were put off. */
  readonly putOff: number
  /** Runs whose message another process began anew, while theirs was alive and had not ended. */
  readonly takenOver: number
  /** Of those, how many tried their effect or their record afterwards, and were refused. */
  readonly refused: number
  /** How often a consumer lost its channel: a network or a node that fails where nobody is connected proves nothing. */
  readonly unmoored: number
  /** Longest time without any effect on a path while accepted messages were waiting there, ms. */
  readonly longestGapMs: number
  /** The first few of each kind that is not 0, with what is needed to look further. */
  readonly evidence: readonly string[]
}

/** What a fault touches; two that touch the same are never in force at once. */
export type Touches =
  | 'broker'
  | 'broker-network'
  | 'redis'
  | 'postgres'
  | 'publishing'
  | 'consuming'
  | 'relaying'
  | 'operating'
  | 'deciding'

/** A limit that the README states: effects may be repeated where a fault reaches it. */
export type Limit = 'redis-forgets' | 'process-dies'

/** What a fault is there to provoke: a row in which it never came to that proves nothing. */
export type Provoked = 'putOff' | 'takenOver' | 'refused' | 'unmoored'

/** One kind of trouble. */
export interface Fault {
  /** What `--only` names it. */
  readonly id: string
  /** As the table shows it, such as `SIGKILL of the leader`. */
  readonly name: string
  readonly touches: Touches
  /** What the row needs beside the usual. */
  readonly needs?: 'sentinel' | 'redis-cluster'
  /** Who must be in the fleet beside the usual. */
  readonly cast?: Cast
  /** What its cast must have come to, by its name among the judge's counts: else the row proves nothing. */
  readonly tries?: readonly string[]
  readonly limit?: Limit
  readonly provokes?: readonly Provoked[]
  /** Makes its choices (which node, how long) now, so that a seed tells the schedule, whatever the world does meanwhile. */
  deal(random: Random): Injection
}

/** One dealt trouble. */
export interface Injection {
  /** Its choices, such as `node 2, 14.2 s`. */
  readonly choices: string
  /** Injects and heals: returns when the world is whole again as far as this one is concerned. */
  inject(world: World): Promise<void>
}
