/**
 * Sends one row of the outbox and judges how that ended.
 *
 *     confirmed and routed ──▶ sent
 *     returned, no such exchange, not permitted, cannot be read or encoded ──▶ counted: held, after so many parked
 *     nacked (a full queue), no answer in time ──▶ held, not counted
 *     not connected, blocked, refused login ──▶ again: nothing is written, the relay waits for the broker
 *
 * A row whose time has not come takes the rest of its delay in the broker, never less.
 */
import { type Backoff, MAX_DELAY_MS, soundDelayMs } from '../backoff.ts'
import type { Connection } from '../connection/connection.ts'
import {
  BrokerTimeout,
  ChannelLost,
  Closed,
  ConnectionRefused,
  MessageInvalid,
  NotConnected,
  PublishFailed,
} from '../errors.ts'
import { withoutPriority } from '../forward.ts'
import { HEADER } from '../message.ts'
import type { Encoded } from '../producer/encode.ts'
import type { Publisher } from '../producer/publisher.ts'
import type { DelayRoute } from '../topology/delay.ts'
import type { Verdict } from './relay-book.ts'
import type { RelayedRow } from './relay-table.ts'
import { isLongKey, sendable } from './sendable.ts'

/** What a sender is put together from. */
export interface SenderParts {
  readonly connection: Connection
  readonly publisher: Publisher
  readonly delayRoute: (delayMs: number, exchange: string, routingKey: string) => Promise<DelayRoute>
  /** What `delayRoute` declared is gone: it must declare anew. */
  readonly forgetDelays: () => void
  readonly deadlineMs: number
  readonly attempts: number
  readonly backoff: Backoff
}

/** Failures that say nothing of the row. */
const PASSING = [NotConnected, BrokerTimeout, ChannelLost, Closed, ConnectionRefused]
/** Of what a column of the table can hold, one less. */
const MOST_ATTEMPTS = 2 ** 31 - 2
/** Clocks differ, and are put right. */
const DAY_MS = 24 * 3_600_000
/** Rows whose uncounted failures are remembered, for their backoff. */
const REMEMBERED = 10_000

/** Sends rows through one publisher. */
export class Sender {
  readonly #parts: SenderParts
  /** Failures that are not counted in the table, by position. */
  readonly #uncounted = new Map<number, number>()

  constructor(parts: SenderParts) {
    this.#parts = parts
  }

  /** Why nothing can be sent now. */
  get problem(): string | undefined {
    const { connection } = this.#parts
    if (connection.isOpen && connection.blockedReason === undefined) return undefined
    return connection.problems[0] ?? 'the connection to the broker is not open'
  }

  /** @throws PublishFailed, and what reading the row or declaring its delay throws */
  send(row: RelayedRow): Promise<unknown> {
    try {
      const message = sendable(row)
      const restMs = restOf(row)
      return restMs > 0 ? this.#delayed(message, restMs) : this.#publish(message)
    } catch (error) {
      return Promise.reject(error)
    }
  }

  /** What is to become of a row that was not sent. */
  judge(row: RelayedRow, error: unknown): Verdict | 'again' {
    const { attempts: most } = this.#parts
    const cause = error instanceof Error ? error : new Error(String(error))
    if (this.#saysNothing(cause)) return 'again'
    const { position, key } = row
    const attempts = Math.min(Math.max(0, row.attempts), MOST_ATTEMPTS)
    if (cause instanceof PublishFailed && cause.retryable) {
      const failures = (this.#uncounted.get(position) ?? 0) + 1
      this.#remember(position, failures)
      return { state: 'held', attempts, delayMs: this.#pauseAfter(failures), error: cause }
    }
    const state = attempts + 1 >= most || isLongKey(key) ? 'parked' : 'held'
    return { state, attempts: attempts + 1, delayMs: this.#pauseAfter(attempts + 1), error: cause }
  }

  #pauseAfter(failures: number): number {
    return Math.min(MAX_DELAY_MS, soundDelayMs(this.#parts.backoff, failures))
  }

  /** Nothing need be remembered of it any more. */
  forget(row: RelayedRow): void {
    if (this.#uncounted.size > 0) this.#uncounted.delete(row.position)
  }

  #saysNothing(error: Error): boolean {
    if (!(error instanceof PublishFailed)) return PASSING.some((kind) => error instanceof kind)
    const { fatal } = this.#parts.connection
    const unsent = error.outcome === 'not-sent'
    return error.retryable ? unsent || this.problem !== undefined : unsent && fatal !== undefined
  }

  #remember(position: number, failures: number): void {
    this.#uncounted.delete(position)
    this.#uncounted.set(position, failures)
    if (this.#uncounted.size <= REMEMBERED) return
    const [oldest] = this.#uncounted.keys()
    this.#uncounted.delete(oldest!)
  }

  #publish(message: Encoded): Promise<unknown> {
    return this.#parts.publisher.publish(message, {
      mandatory: true,
      deadlineMs: this.#parts.deadlineMs,
      // One that was repeated by the publisher would keep its place in the window, and a full queue would hold up all others.
      failsOnNack: true,
    })
  }

  /** A delayed message that is returned found its level deleted: the next one declares it anew. */
  async #delayed(message: Encoded, delayMs: number): Promise<unknown> {
    const { exchange, routingKey, properties } = message
    const route = await this.#parts.delayRoute(delayMs, exchange, routingKey)
    const from = { [HEADER.exchange]: exchange, [HEADER.routingKey]: routingKey }
    const headers = { ...properties.headers, ...from, ...route.headers }
    const { exchange: enter, routingKey: key } = route
    const onTheWay = { exchange: enter, routingKey: key, properties: withoutPriority({ ...properties, headers }) }
    return this.#publish({ ...message, ...onTheWay }).catch((error: unknown) => {
      if (error instanceof PublishFailed && error.outcome === 'returned') this.#parts.forgetDelays()
      throw error
    })
  }
}

/** How long it is not to be delivered yet. @throws MessageInvalid */
function restOf({ waitMs, readAt }: RelayedRow): number {
  if (waitMs === undefined) return 0
  if (waitMs > MAX_DELAY_MS + DAY_MS)
    throw new MessageInvalid('deliver_at', 'expected deliver_at to be at most 30 days ahead')
  return waitMs - (performance.now() - readAt)
}
