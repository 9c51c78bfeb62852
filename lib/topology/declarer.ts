/**
 * Declares topologies on a connection: one after another, each thing once per connection, and again after a reconnect.
 * Promises: a refused declaration names the argument, both values and the way out, and harms no other channel.
 */
import type { Connection } from '../connection/connection.ts'
import { TopologyInvalid } from '../errors.ts'
import { arrivalAtExchange, arrivalAtQueue, type DelayRoute, delayRoute, delayTopology, levelFor } from './delay.ts'
import { type DeclareStep, declareSteps, EMPTY, merge, type Topology } from './topology.ts'

/** The oldest broker that has at-least-once dead-lettering for quorum queues. */
const OLDEST_VERSION = [3, 10] as const

/** Declares on one connection, one thing after another. */
export class Declarer {
  readonly #connection: Connection
  readonly #done = new Set<string>()
  /** Delay routes whose topology is declared, so that a delayed publish costs no work. */
  readonly #routes = new Set<string>()
  #last: Promise<unknown> = Promise.resolve()

  constructor(connection: Connection) {
    this.#connection = connection
    connection.onChange(() => !connection.isOpen && this.forget())
  }

  /**
   * Declares what is not declared yet on this connection.
   * @throws TopologyInvalid, TopologyMismatch, PermissionRefused, ResourceMissing, BrokerTimeout
   */
  declare(topology: Topology): Promise<void> {
    const steps = declareSteps(topology)
    const turn = this.#last.then(() => this.#run(steps))
    this.#last = turn.catch(() => {})
    return turn
  }

  /** Declares everything again when next asked for: something was deleted under us. With a queue: all that concerns it. */
  forget(queue?: string): void {
    this.#routes.clear()
    if (queue === undefined) this.#done.clear()
    for (const step of this.#done) if (step.includes(`queue "${queue}`)) this.#done.delete(step)
  }

  /** Declares what a delayed message needs and answers where to publish it. */
  async delayRoute(delayMs: number, exchange: string, routingKey: string): Promise<DelayRoute> {
    const arrival = exchange === '' ? arrivalAtQueue(routingKey) : arrivalAtExchange(exchange)
    const level = levelFor(delayMs)
    const route = JSON.stringify([level, arrival])
    if (!this.#routes.has(route)) {
      await this.declare(merge(delayTopology(level), { ...EMPTY, bindings: [arrival] }))
      if (this.#connection.isOpen) this.#routes.add(route)
    }
    return delayRoute(delayMs, exchange, routingKey)
  }

  async #run(steps: readonly DeclareStep[]): Promise<void> {
    const open = steps.filter((step) => !this.#done.has(step.doing + step.key))
    if (open.length === 0) return
    const { rpcTimeoutMs, events } = this.#connection.options
    await this.#connection.ready(rpcTimeoutMs)
    this.#checkVersion()
    const started = performance.now()
    await this.#connection.withChannel(async (channel) => {
      for (const step of open) {
        await this.#connection.rpc(step.doing, () => step.run(channel))
        this.#done.add(step.doing + step.key)
      }
    })
    events.emit('topology.declared', { steps: open.length, durationMs: performance.now() - started })
  }

  #checkVersion(): void {
    const version = this.#connection.serverVersion ?? ''
    const [major = 0, minor = 0] = version.split('.').map(Number)
    const [oldMajor, oldMinor] = OLDEST_VERSION
    if (major > oldMajor || (major === oldMajor && minor >= oldMinor)) return
    throw new TopologyInvalid(
      `RabbitMQ ${version} has no at-least-once dead-lettering: expected ${OLDEST_VERSION.join('.')} or later`,
    )
  }
}
