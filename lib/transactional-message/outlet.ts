/**
 * Publishes the messages of a committed transaction: confirmed and mandatory, in their order, with the ids they were prepared
 * with. Delays count from the prepare, end never early by the clock that prepared, and take no longer than they were asked to,
 * wherever that clock was.
 * Does NOT promise that a message goes out once: whoever publishes it again uses the same ids, and consumers drop the copy.
 */
import { PublishFailed } from '../errors.ts'
import { withoutPriority } from '../forward.ts'
import { HEADER } from '../message.ts'
import type { Encoded } from '../producer/encode.ts'
import type { Publisher } from '../producer/publisher.ts'
import type { Declarer } from '../topology/declarer.ts'
import type { HalfItem, HalfMessage } from './envelope.ts'

/** Publishes half messages' messages. */
export class Outlet {
  readonly #publisher: Publisher
  readonly #declarer: Declarer

  constructor(publisher: Publisher, declarer: Declarer) {
    this.#publisher = publisher
    this.#declarer = declarer
  }

  /**
   * Resolves when every message is confirmed; waits for all before it fails.
   * @throws PublishFailed of the first that failed; what declaring its delay failed with
   */
  async publish({ messages, preparedAt }: HalfMessage, deadlineMs: number): Promise<void> {
    const routed: Encoded[] = []
    for (const message of messages) routed.push(await this.#routed(message, preparedAt))
    const ends = await Promise.allSettled(
      routed.map((message) => this.#publisher.publish(message, { mandatory: true, deadlineMs })),
    )
    const failure = ends.find((end) => end.status === 'rejected')
    if (!failure) return
    // The level of a delay may have been deleted: declared anew the next time.
    if (failure.reason instanceof PublishFailed && failure.reason.outcome === 'returned') this.#declarer.forget()
    throw failure.reason
  }

  async #routed({ encoded, delayMs }: HalfItem, preparedAt: number): Promise<Encoded> {
    const leftMs = delayMs ? Math.min(delayMs, preparedAt + delayMs - Date.now()) : 0
    if (leftMs <= 0) return encoded
    const { exchange, routingKey } = encoded
    const route = await this.#declarer.delayRoute(leftMs, exchange, routingKey)
    const from = { [HEADER.exchange]: exchange, [HEADER.routingKey]: routingKey }
    const headers = { ...encoded.properties.headers, ...from, ...route.headers }
    const properties = withoutPriority({ ...encoded.properties, headers })
    return { ...encoded, exchange: route.exchange, routingKey: route.routingKey, properties }
  }
}
