/** The queues of the benchmark: quorum queues with the same arguments for every contestant, filled where need be. */

import { type ChannelModel, type ConfirmChannel, connect as connectRaw } from 'amqplib'
import { v7 } from 'uuid'
import { connect, type Surehop } from '../../lib/index.ts'
import { workQueueTopology } from '../../lib/topology/queues.ts'
import { unique } from '../support/unique.ts'

/** Messages in flight while filling. */
const FILL_BATCH = 1_000

export class Queues {
  readonly #surehop: Surehop
  readonly #connection: ChannelModel
  readonly #channel: ConfirmChannel

  private constructor(surehop: Surehop, connection: ChannelModel, channel: ConfirmChannel) {
    this.#surehop = surehop
    this.#connection = connection
    this.#channel = channel
  }

  static async open(amqpUrl: string): Promise<Queues> {
    const surehop = await connect({ amqp: amqpUrl, service: 'bench' })
    const connection = await connectRaw(amqpUrl, { noDelay: true })
    return new Queues(surehop, connection, await connection.createConfirmChannel())
  }

  get brokerVersion(): string {
    return String(this.#connection.connection.serverProperties.version)
  }

  /** A new queue with so many messages in it, as a service would send them. */
  async fresh(messages: number, bodyBytes: number): Promise<string> {
    const queue = unique('bench')
    await this.#surehop.declare(workQueueTopology(queue))
    const content = Buffer.alloc(bodyBytes, 'surehop ')
    for (let left = messages; left > 0; left -= FILL_BATCH) {
      for (let i = 0; i < Math.min(left, FILL_BATCH); i++) this.#fill(queue, content)
      await this.#channel.waitForConfirms()
    }
    return queue
  }

  async drop(queue: string): Promise<void> {
    const { queues } = workQueueTopology(queue)
    for (const { name } of queues) await this.#channel.deleteQueue(name)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#connection.close()
    await this.#surehop.close()
  }

  #fill(queue: string, content: Buffer): void {
    const messageId = v7()
    this.#channel.publish('', queue, content, {
      persistent: true,
      messageId,
      timestamp: Math.floor(Date.now() / 1_000),
      appId: 'bench',
      contentType: 'application/octet-stream',
      headers: { transaction_id: messageId },
    })
  }
}
