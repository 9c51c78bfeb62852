// Deliveries, channels and producers that need no broker, for tests of the consumer's rooms.

import { EventEmitter } from 'node:events'
import type { Channel } from 'amqplib'
import { Delivery, Epoch } from '../../lib/consumer/delivery.ts'
import type { Run } from '../../lib/consumer/handler.ts'
import type { OutgoingMessage, RawDelivery, RawProperties } from '../../lib/message.ts'
import type { Producer, PublishOptions } from '../../lib/producer/producer.ts'
import type { Receipt } from '../../lib/producer/publisher.ts'

/** What a channel was told: `ack 1`, `ack up to 1`, `nack 2 requeue`. */
export class FakeChannel extends EventEmitter {
  readonly told: string[] = []
  open = true

  ack({ fields }: RawDelivery, allUpTo = false): void {
    this.#tell(`ack ${allUpTo ? 'up to ' : ''}${fields.deliveryTag}`)
  }

  nack({ fields }: RawDelivery, _all: boolean, requeue: boolean): void {
    this.#tell(`nack ${fields.deliveryTag}${requeue ? ' requeue' : ''}`)
  }

  /** As amqplib does: from now on it throws; the event may come later. */
  die(options: { readonly quietly?: boolean } = {}): void {
    this.open = false
    if (!options.quietly) this.emit('close')
  }

  epoch(): Epoch {
    return new Epoch(this as unknown as Channel)
  }

  #tell(what: string): void {
    if (!this.open) throw Object.assign(new Error('Channel closed'), { name: 'IllegalOperationError' })
    this.told.push(what)
  }
}

/** A raw delivery as amqplib hands it over. */
export function rawDelivery(of: { tag?: number; body?: unknown; properties?: RawProperties } = {}): RawDelivery {
  const { tag = 1, body = { n: 1 }, properties = {} } = of
  return {
    content: Buffer.isBuffer(body) ? body : Buffer.from(JSON.stringify(body)),
    fields: { deliveryTag: tag, redelivered: false, exchange: 'shop', routingKey: 'order.placed' },
    properties: { messageId: 'm-1', headers: {}, ...properties },
  }
}

/** A delivery on a channel of its own, or on the given epoch. */
export function delivery(tag = 1, epoch: Epoch = new FakeChannel().epoch()): Delivery {
  return new Delivery(rawDelivery({ tag }), epoch)
}

/** A run as `decode` gives it. */
export function run(of: Partial<Run> & { readonly id?: string; readonly body?: unknown } = {}): Run {
  const { id = 'm-1', body = {}, ...rest } = of
  const raw = rawDelivery({ body })
  const unset = {
    type: undefined,
    key: undefined,
    correlationId: undefined,
    replyTo: undefined,
    contentType: undefined,
  }
  return {
    message: {
      ...unset,
      messageId: id,
      transactionId: `t-${id}`,
      body,
      rawBody: raw.content,
      appId: undefined,
      publishedAt: undefined,
      headers: {},
      exchange: 'shop',
      routingKey: 'order.placed',
      queue: 'work',
    },
    digest: undefined,
    guarded: true,
    generation: 0,
    firstFailedAt: undefined,
    attempt: 1,
    fencingToken: 7,
    ...rest,
  }
}

/** A producer that notes what it is given and answers as `answer` says. */
export class FakeProducer {
  readonly published: { exchange: string; message: OutgoingMessage; options: PublishOptions }[] = []
  answer: () => Promise<void> = async () => {}

  get asProducer(): Producer {
    return this as unknown as Producer
  }

  async publish(exchange: string, message: OutgoingMessage, options: PublishOptions): Promise<Receipt> {
    this.published.push({ exchange, message, options })
    await this.answer()
    const { messageId = 'made-up', transactionId = 'made-up' } = message
    return { outcome: 'confirmed', messageId, transactionId, sends: 1 }
  }

  send(queue: string, message: OutgoingMessage, options: PublishOptions): Promise<Receipt> {
    return this.publish('', { ...message, routingKey: queue }, options)
  }
}
