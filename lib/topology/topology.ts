/**
 * Queues, exchanges and bindings as data; checked for cycles, then declared in an order that loses nothing:
 * exchanges, then queues with every dead-letter target before its source, then bindings.
 */
import type { Channel } from 'amqplib'
import { TopologyInvalid } from '../errors.ts'
import { show } from '../options.ts'

/** A durable queue. */
export interface Queue {
  readonly name: string
  readonly arguments: Readonly<Record<string, string | number | boolean>>
}

/** A durable exchange. */
export interface Exchange {
  readonly name: string
  readonly type: 'direct' | 'topic' | 'fanout' | 'headers'
  /** Exchange that takes what no binding of this one matches. */
  readonly alternate?: string
}

/** From an exchange to a queue or another exchange. */
export interface Binding {
  readonly source: string
  readonly queue?: string
  readonly exchange?: string
  readonly routingKey: string
  readonly arguments?: Readonly<Record<string, string>>
}

/** What shall exist. */
export interface Topology {
  readonly exchanges: readonly Exchange[]
  readonly queues: readonly Queue[]
  readonly bindings: readonly Binding[]
}

export const EMPTY: Topology = { exchanges: [], queues: [], bindings: [] }

/**
 * One topology out of several; repeated entries are kept once (by name).
 * @throws TopologyInvalid when one name is asked for in two ways
 */
export function merge(...parts: readonly Topology[]): Topology {
  return {
    exchanges: unique(
      parts.flatMap((p) => p.exchanges),
      (e) => e.name,
    ),
    queues: unique(
      parts.flatMap((p) => p.queues),
      (q) => q.name,
    ),
    bindings: unique(
      parts.flatMap((p) => p.bindings),
      canonical,
    ),
  }
}

function unique<T>(items: readonly T[], keyOf: (item: T) => string): T[] {
  const kept = new Map<string, T>()
  for (const item of items) {
    const same = kept.get(keyOf(item))
    if (same && canonical(same) !== canonical(item)) throw contradiction(keyOf(item), same, item)
    kept.set(keyOf(item), item)
  }
  return [...kept.values()]
}

function contradiction(name: string, one: unknown, other: unknown): TopologyInvalid {
  return new TopologyInvalid(`"${name}" is asked for in two ways: ${canonical(one)} and ${canonical(other)}`)
}

/** JSON with sorted names. */
function canonical(value: unknown): string {
  return JSON.stringify(value, (_, part) =>
    typeof part === 'object' && part !== null && !Array.isArray(part)
      ? Object.fromEntries(Object.entries(part).sort(([a], [b]) => (a < b ? -1 : 1)))
      : part,
  )
}

/**
 * Dead-letter targets first.
 * @throws TopologyInvalid when dead-lettering runs in a circle: the broker breaks such a circle by never delivering again
 */
export function inDeclareOrder(topology: Topology): Queue[] {
  const byName = new Map(topology.queues.map((q) => [q.name, q]))
  const done = new Set<string>()
  const order: Queue[] = []
  const visit = (name: string, path: readonly string[]): void => {
    if (path.includes(name)) throw cycle([...path.slice(path.indexOf(name)), name])
    const queue = byName.get(name)
    if (!queue || done.has(name)) return
    for (const next of deadLetterTargets(queue, topology)) visit(next, [...path, name])
    done.add(name)
    order.push(queue)
  }
  for (const { name } of topology.queues) visit(name, [])
  return order
}

function cycle(path: readonly string[]): TopologyInvalid {
  return new TopologyInvalid(
    `dead-lettering would run in a circle: ${path.join(' -> ')}. RabbitMQ breaks such circles by never delivering the message again; give one of these queues another dead-letter queue`,
  )
}

/** Queues that this queue's dead letters may reach, through the default exchange or through exchanges of this topology. */
function deadLetterTargets(queue: Queue, topology: Topology): string[] {
  const exchange = queue.arguments['x-dead-letter-exchange']
  if (exchange === undefined) return []
  if (exchange === '') return [String(queue.arguments['x-dead-letter-routing-key'] ?? '')]
  return reachable(String(exchange), topology, new Set())
}

function reachable(exchange: string, topology: Topology, seen: Set<string>): string[] {
  if (seen.has(exchange)) return []
  seen.add(exchange)
  return topology.bindings
    .filter((b) => b.source === exchange)
    .flatMap((b) => (b.queue === undefined ? reachable(b.exchange!, topology, seen) : [b.queue]))
}

/** One step of declaring, with its words for an error message. */
export interface DeclareStep {
  readonly doing: string
  /** With `doing`, what makes this step the same as another. */
  readonly key: string
  readonly run: (channel: Channel) => Promise<unknown>
}

/**
 * All steps in order.
 * @throws TopologyInvalid when a queue is given without arguments: the broker would make it a classic one
 */
export function declareSteps(topology: Topology): DeclareStep[] {
  for (const queue of topology.queues) checkArguments(queue)
  return [
    ...topology.exchanges.map(exchangeStep),
    ...inDeclareOrder(topology).map(queueStep),
    ...topology.bindings.map(bindingStep),
  ]
}

/** From JavaScript it may be anything. */
function checkArguments({ name, arguments: given }: Queue): void {
  if (typeof given === 'object' && given !== null) return
  throw new TopologyInvalid(
    `queue "${name}": expected arguments as an object, got ${show(given)}; { 'x-queue-type': 'quorum' } makes it a quorum queue, {} a classic one`,
  )
}

function exchangeStep({ name, type, alternate }: Exchange): DeclareStep {
  const options = { durable: true, ...(alternate === undefined ? {} : { alternateExchange: alternate }) }
  return {
    doing: `declare ${type} exchange "${name}"`,
    key: alternate ?? '',
    run: (channel) => channel.assertExchange(name, type, options),
  }
}

function queueStep(queue: Queue): DeclareStep {
  return {
    doing: `declare queue "${queue.name}"`,
    key: JSON.stringify(queue.arguments),
    run: (channel) => channel.assertQueue(queue.name, { durable: true, arguments: queue.arguments }),
  }
}

function bindingStep({ source, queue, exchange, routingKey, arguments: args }: Binding): DeclareStep {
  const to = queue === undefined ? `exchange "${exchange}"` : `queue "${queue}"`
  return {
    doing: `bind ${to} to exchange "${source}"`,
    key: JSON.stringify([routingKey, args]),
    run: (channel) =>
      queue === undefined
        ? channel.bindExchange(exchange!, source, routingKey, args)
        : channel.bindQueue(queue, source, routingKey, args),
  }
}
