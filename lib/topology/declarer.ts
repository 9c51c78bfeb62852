/**
 * Declares topologies on a connection: one after another, each thing once per connection, and again after a reconnect.
 * Promises: a refused declaration names the argument, both values and the way out, and harms no other channel.
 */
import type { Connection } from '../connection/connection.ts'
import { ResourceMissing, TopologyInvalid } from '../errors.ts'
import { arrivalAtExchange, arrivalAtQueue, type DelayRoute, delayRoute, delayTopology, levelFor } from './delay.ts'
import { type Binding, type DeclareStep, declareSteps, EMPTY, merge, type Topology } from './topology.ts'

/** The oldest broker that has at-least-once dead-lettering for quorum queues. */
const OLDEST_VERSION = [3, 10] as const
/**
 * Where delayed messages arrive is bound again after so long, ms: who deletes a queue or exchange and makes it anew takes the binding with
 * it, and nothing tells; what is due meanwhile is undeliverable.
 */
const ARRIVAL_MS = 30_000
/** So many targets of delayed messages are remembered. */
const ARRIVALS_MAX = 10_000

/** What is declared for one target of delayed messages. */
interface Arrival {
  /** All levels up to it. */
  readonly top: number
  /** When it is bound again, by `performance.now()`. */
  until: number
}

/** Declares on one connection, one thing after another. */
export class Declarer {
  readonly #connection: Connection
  readonly #done = new Set<string>()
  /** Targets of delayed messages that are declared, so that a delayed publish costs no work. */
  readonly #arrivals = new Map<string, Arrival>()
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
    return this.#inTurn(declareSteps(topology))
  }

  /** The same for what may have been deleted since it was declared. */
  declareAnew(topology: Topology): Promise<void> {
    const steps = declareSteps(topology)
    for (const step of steps) this.#done.delete(idOf(step))
    return this.#inTurn(steps)
  }

  #inTurn(steps: readonly DeclareStep[]): Promise<void> {
    const turn = this.#last.then(() => this.#run(steps))
    this.#last = turn.catch(() => {})
    return turn
  }

  /** Declares everything again when next asked for: something was deleted under us. With a queue: all that concerns it. */
  forget(queue?: string): void {
    this.#arrivals.clear()
    if (queue === undefined) this.#done.clear()
    for (const step of this.#done) if (step.includes(`queue "${queue}`)) this.#done.delete(step)
  }

  /** Declares what a delayed message needs and answers where to publish it. */
  async delayRoute(delayMs: number, exchange: string, routingKey: string): Promise<DelayRoute> {
    await this.#letArrive(levelFor(delayMs), exchange === '' ? arrivalAtQueue(routingKey) : arrivalAtExchange(exchange))
    return delayRoute(delayMs, exchange, routingKey)
  }

  async #letArrive(level: number, arrival: Binding): Promise<void> {
    const key = JSON.stringify(arrival)
    const known = this.#arrivals.get(key)
    const again = performance.now() + ARRIVAL_MS
    const late = known !== undefined && known.until <= performance.now()
    if (known && !late && known.top >= level) return
    if (late) known.until = again // Others go on meanwhile, with what is known.
    if (this.#arrivals.size >= ARRIVALS_MAX) this.forget()
    const bindings = { ...EMPTY, bindings: [arrival] }
    try {
      if (late) await this.declareAnew(bindings)
      await this.declare(merge(delayTopology(level), bindings))
    } catch (error) {
      this.#arrivals.delete(key)
      throw error
    }
    const { top = level, until = again } = this.#arrivals.get(key) ?? {}
    if (this.#connection.isOpen) this.#arrivals.set(key, { top: Math.max(level, top), until })
  }

  async #run(steps: readonly DeclareStep[]): Promise<void> {
    const open = steps.filter((step) => !this.#done.has(idOf(step)))
    if (open.length === 0) return
    try {
      await this.#declareAll(open)
    } catch (error) {
      if (!isDeclared(error, steps)) throw error
      this.forget()
      await this.#declareAll(steps)
    }
  }

  async #declareAll(open: readonly DeclareStep[]): Promise<void> {
    const { rpcTimeoutMs, events } = this.#connection.options
    await this.#connection.ready(rpcTimeoutMs)
    this.#checkVersion()
    const started = performance.now()
    await this.#connection.withChannel(async (channel) => {
      for (const step of open) {
        await this.#connection.rpc(step.doing, () => step.run(channel))
        this.#done.add(idOf(step))
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

function idOf({ doing, key }: DeclareStep): string {
  return doing + key
}

/** What is missing was to be declared, or was once, and has been deleted since. */
function isDeclared(error: unknown, steps: readonly DeclareStep[]): boolean {
  if (!(error instanceof ResourceMissing)) return false
  return steps.some(({ doing }) => doing.startsWith('declare ') && doing.endsWith(` ${error.resource}`))
}
