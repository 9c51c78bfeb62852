/**
 * One inspector at a time: an exclusive queue beside the inspected one, which the broker removes with its connection.
 * (An exclusive consumer would do for one channel; a long queue is read over several.) A second inspector is refused at once.
 */
import type { Channel } from 'amqplib'
import { type Connection, closeChannel } from '../connection/connection.ts'
import { ResourceBusy } from '../errors.ts'

const LOCK_SUFFIX = '.inspector'
/** The broker knows connections; two inspectors on one connection must know of each other here. */
const held = new WeakMap<Connection, Set<string>>()

/** The right to look into one queue of dead letters; one holder at a time. */
export class InspectorLock {
  /** Also good for asking about the queue, as long as the lock is held. */
  readonly channel: Channel
  readonly #connection: Connection
  readonly #queue: string

  private constructor(connection: Connection, queue: string, channel: Channel) {
    this.#connection = connection
    this.#queue = queue
    this.channel = channel
  }

  /** @throws ResourceBusy when somebody else holds it; NotConnected, PermissionRefused */
  static async acquire(connection: Connection, queue: string): Promise<InspectorLock> {
    const here = held.get(connection) ?? new Set()
    held.set(connection, here)
    if (here.has(queue)) throw busy(queue)
    here.add(queue)
    try {
      return new InspectorLock(connection, queue, await lockChannel(connection, queue))
    } catch (error) {
      here.delete(queue)
      throw error instanceof ResourceBusy ? busy(queue, error) : error
    }
  }

  async release(): Promise<void> {
    const { rpcTimeoutMs } = this.#connection.options
    const name = this.#queue + LOCK_SUFFIX
    await this.#connection.rpc('release the lock', () => this.channel.deleteQueue(name)).catch(() => {})
    await closeChannel(this.channel, rpcTimeoutMs)
    held.get(this.#connection)?.delete(this.#queue)
  }
}

async function lockChannel(connection: Connection, queue: string): Promise<Channel> {
  const channel = await connection.openChannel()
  const lock = { exclusive: true, durable: false, autoDelete: true }
  try {
    await connection.rpc(`lock queue "${queue}"`, () => channel.assertQueue(queue + LOCK_SUFFIX, lock))
    return channel
  } catch (error) {
    await closeChannel(channel, connection.options.rpcTimeoutMs)
    throw error
  }
}

function busy(queue: string, cause?: Error): ResourceBusy {
  return new ResourceBusy(
    `queue "${queue}" is being looked at or replayed by somebody else: one at a time, so that no letter is seen or sent twice. Wait until they are done`,
    { cause },
  )
}
