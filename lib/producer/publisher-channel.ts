/**
 * The confirm channel that publishes go out on: built anew when lost, and also when it does nothing but refuse.
 *
 *     fit ──a target has refused all for long──▶ to be renewed ──nothing is on the wire──▶ rebuilt ──▶ fit
 *                                                      └──not within `RENEW_WITHIN_MS`──▶ fit, until the next time
 *
 * Promises: what the broker says of publishes (a return, a refusal by closing the channel) is in the books before the answer that
 * follows it; a channel is renewed only while nothing is on the wire, since that would void confirms.
 * Does NOT write the answers (ack, nack) into the books: that is up to whoever sent.
 */
import type { ConfirmChannel } from 'amqplib'
import { ChannelKeeper } from '../connection/channel-keeper.ts'
import type { Connection } from '../connection/connection.ts'
import { refusedExchange } from '../connection/refusal.ts'
import { ChannelLost, PermissionRefused } from '../errors.ts'
import { HEADER } from '../message.ts'
import { type Answered, publishOn } from './channel-publish.ts'
import type { Confirms } from './confirms.ts'
import type { Encoded } from './encode.ts'
import type { ExchangeCheck } from './exchange-check.ts'
import type { Pending } from './pending.ts'
import { Refusals } from './refusals.ts'

/** How long nothing is sent, so that the channel can be renewed while nothing is on the wire, ms. */
const RENEW_WITHIN_MS = 1_000
/** Class and method of basic.publish in AMQP 0-9-1. */
const BASIC_PUBLISH = { classId: 60, methodId: 40 }

/** What the channel of a publisher works on. */
export interface PublisherChannelOptions {
  readonly connection: Connection
  readonly confirms: Confirms
  readonly exchanges: ExchangeCheck
  /** There may be a channel now, or none any more. */
  readonly changed: () => void
}

/** The channel under a publisher. */
export class PublisherChannel {
  readonly #connection: Connection
  readonly #confirms: Confirms
  readonly #exchanges: ExchangeCheck
  readonly #changed: () => void
  readonly #keeper: ChannelKeeper<ConfirmChannel>
  readonly #refusals = new Refusals()
  /** Set while a channel that only refuses is about to be renewed: nothing new goes out on it until then. */
  #renewal: NodeJS.Timeout | undefined

  constructor({ connection, confirms, exchanges, changed }: PublisherChannelOptions) {
    this.#connection = connection
    this.#confirms = confirms
    this.#exchanges = exchanges
    this.#changed = changed
    this.#keeper = new ChannelKeeper<ConfirmChannel>({
      connection,
      role: 'publish',
      open: () => connection.openConfirmChannel(),
      setup: async (channel) => this.#listen(channel),
      onLost: () => this.#lost(),
    })
    this.#keeper.onChange(changed)
  }

  /** Starts opening, without waiting for it. */
  start(): void {
    this.#keeper.keep()
  }

  get problem(): string | undefined {
    return this.#keeper.problem
  }

  /** The channel on which something may be sent now. */
  ready(): ConfirmChannel | undefined {
    const { channel } = this.#keeper
    return !channel || this.#connection.blockedReason !== undefined || this.#renews() ? undefined : channel
  }

  /** @throws what amqplib throws: the message cannot be encoded, or the channel is closed */
  send(channel: ConfirmChannel, { message, mandatory }: Pending, answered: Answered): void {
    publishOn(channel, { message, mandatory, headers: headersOf(message) }, answered)
  }

  acked({ exchange, routingKey }: Encoded): void {
    this.#refusals.acked(exchange, routingKey)
  }

  nacked({ exchange, routingKey }: Encoded): void {
    if (this.#refusals.nacked(exchange, routingKey, performance.now())) this.#renewSoon()
  }

  /** Gives the present channel up. */
  rebuild(reason: Error): void {
    this.#keeper.rebuild(reason)
  }

  close(): Promise<void> {
    clearTimeout(this.#renewal)
    return this.#keeper.close()
  }

  /** To renew the channel with publishes on the wire would void their confirms: when there are none, or not now. */
  #renewSoon(): void {
    this.#renewal ??= setTimeout(() => {
      this.#renewal = undefined
      this.#changed()
    }, RENEW_WITHIN_MS).unref()
  }

  /** @returns true while nothing may be sent: the channel is about to be another one */
  #renews(): boolean {
    if (!this.#renewal) return false
    // Until the keeper tells that the old channel is gone, nothing goes out on it, a publish of this very moment included.
    if (this.#confirms.onWire === 0)
      this.#keeper.rebuild(
        new ChannelLost('the broker refused all publishes to a target for long: a new channel may be heard'),
      )
    return true
  }

  #lost(): void {
    this.#refusals.forget()
    clearTimeout(this.#renewal)
    this.#renewal = undefined
    this.#exchanges.forget()
  }

  #listen(channel: ConfirmChannel): void {
    channel.on('error', (error) => this.#blame(error))
    channel.on('return', ({ properties, fields }) => {
      const { replyCode, replyText } = fields as unknown as { replyCode: number; replyText: string }
      const ours = this.#confirms.markReturned(idOf(properties), { code: replyCode, text: replyText })
      if (!ours) this.#keeper.rebuild(new Error(`the broker returned a message that is not ours: ${replyText}`))
    })
  }

  /** The broker closes the channel over one publish; find out which. */
  #blame(error: Error & { readonly classId?: number; readonly methodId?: number }): void {
    if (error.classId !== BASIC_PUBLISH.classId || error.methodId !== BASIC_PUBLISH.methodId) return
    const { exchange, cause } = refusedExchange(error)
    if (exchange !== undefined && cause instanceof PermissionRefused) this.#exchanges.refused(exchange, cause)
    this.#confirms.blame(cause, exchange)
  }
}

/**
 * A message of a foreign producer may have no message id of its own: without a name its return would pass for a confirm. A row or a half
 * message that was forged may have a name already: its return would pass for another's.
 */
function headersOf({ messageId, properties }: Encoded): Record<string, unknown> {
  return properties.messageId === messageId && properties.headers[HEADER.publishId] === undefined
    ? properties.headers
    : { ...properties.headers, [HEADER.publishId]: messageId }
}

function idOf({ messageId, headers }: { messageId?: unknown; headers?: Record<string, unknown> | undefined }): string {
  const own = headers?.[HEADER.publishId]
  return typeof own === 'string' ? own : String(messageId)
}
