// The servers of a run behind their proxies: one RabbitMQ release at a time, one Redis, one Postgres, and what single rows need.
//
// Promises: workers reach everything through proxies, except a Redis under Sentinel or Cluster, whose clients are told the servers'
// own addresses; what was opened is closed, last first, also where a later part could not be opened.

import { startPostgres } from '../support/postgres.ts'
import { startRedis } from '../support/redis.ts'
import type { Server } from '../support/server.ts'
import { startProxy, type TcpProxy } from '../support/tcp-proxy.ts'
import { startRabbitMqCluster } from './cluster/rabbitmq-cluster.ts'
import { startRedisCluster } from './cluster/redis-cluster.ts'
import { startRedisSentinel } from './cluster/redis-sentinel.ts'
import type { Row } from './mix.ts'
import type { RabbitMqCluster, RedisPlace, Release, World } from './world.ts'

/** How workers reach the servers. */
export interface Reach {
  readonly amqp: readonly string[]
  readonly redis: RedisPlace
  readonly postgres: string
}

/** The servers as one row has them. */
export interface Place extends AsyncDisposable {
  readonly reach: Reach
  readonly world: Omit<World, 'fleet'>
}

interface Usual {
  readonly rabbitmq: RabbitMqCluster
  readonly brokerProxies: readonly TcpProxy[]
  readonly redis: Server
  readonly redisProxy: TcpProxy
  readonly postgres: Server
  readonly postgresProxy: TcpProxy
}

/** Brings up all that every row needs. */
export async function openGrounds(release: Release): Promise<Grounds> {
  const opened = new Opened()
  try {
    const rabbitmq = await opened.keep(startRabbitMqCluster({ release }))
    const redis = await opened.keep(startRedis())
    const postgres = await opened.keep(startPostgres())
    const brokerProxies = []
    for (const { url } of rabbitmq.nodes) brokerProxies.push(await opened.keep(startProxy(url)))
    const redisProxy = await opened.keep(startProxy(redis.url))
    const postgresProxy = await opened.keep(startProxy(postgres.url))
    return new Grounds({ rabbitmq, brokerProxies, redis, redisProxy, postgres, postgresProxy }, opened)
  } catch (error) {
    await opened.close()
    throw error
  }
}

/** See the head of this file. */
export class Grounds implements AsyncDisposable {
  readonly usual: Usual
  readonly #opened: Opened
  /** The cluster is as it should be, as far as anybody knows: asking it costs seconds on a busy machine. */
  #whole = true

  constructor(usual: Usual, opened: Opened) {
    this.usual = usual
    this.#opened = opened
  }

  /** Whole again, whatever the row before did, and with what this one needs beside the usual. */
  async prepare({ needs, faults }: Row): Promise<Place> {
    const { rabbitmq, redis, postgres, brokerProxies, redisProxy, postgresProxy } = this.usual
    await Promise.all([redis, postgres].map((server) => server.thaw().then(server.start)))
    if (!this.#whole) await rabbitmq.whole()
    this.#whole = !faults.some(({ touches }) => touches === 'broker')
    await Promise.all([...brokerProxies, redisProxy, postgresProxy].map((proxy) => proxy.resume()))
    const amqp = brokerProxies.map(({ url }) => url)
    const special = await specialRedis(needs)
    const place: RedisPlace = special?.place ?? { kind: 'single', url: redisProxy.url }
    return {
      reach: { amqp, redis: place, postgres: postgresProxy.url },
      world: { ...this.usual, ...special?.world },
      [Symbol.asyncDispose]: async () => special?.close(),
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#opened.close()
  }
}

async function specialRedis(needs: Row['needs']) {
  if (needs === 'sentinel') {
    const sentinel = await startRedisSentinel()
    const place: RedisPlace = { kind: 'sentinel', name: sentinel.name, sentinels: sentinel.sentinels }
    return { place, world: { sentinel }, close: () => sentinel.close() }
  }
  if (needs === 'redis-cluster') {
    const redisCluster = await startRedisCluster()
    const place: RedisPlace = { kind: 'cluster', startupNodes: redisCluster.startupNodes }
    return { place, world: { redisCluster }, close: () => redisCluster.close() }
  }
  return undefined
}

/** What is to be closed, last first. */
class Opened {
  readonly #all: AsyncDisposable[] = []

  async keep<T extends AsyncDisposable>(opening: Promise<T>): Promise<T> {
    const one = await opening
    this.#all.push(one)
    return one
  }

  async close(): Promise<void> {
    for (const one of this.#all.splice(0).reverse()) await one[Symbol.asyncDispose]()
  }
}
