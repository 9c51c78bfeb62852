/**
 * What a service publishes with. `publish()` resolves only when the broker has confirmed *and* routed the message; otherwise it
 * rejects with one `PublishFailed` that says what is known: returned, nacked, unknown or not-sent.
 */
import { pause, unlessAborted, within } from '../deadline.ts'
import { BrokerTimeout, ChannelLost, InvalidOption, NotConnected, PublishFailed } from '../errors.ts'
import { HEADER, newMessageId, type OutgoingMessage } from '../message.ts'
import { callable, checkOptions, flag, given, having, integer, needed, number, object, text } from '../options.ts'
import { type Schema, validate } from '../schema.ts'
import type { DelayRoute } from '../topology/delay.ts'
import { Batch, type PublishResult } from './batch.ts'
import { type Encoded, type EncodeOptions, encode, type Target } from './encode.ts'
import type { Asker, Publisher, Receipt, SendOptions } from './publisher.ts'
import { untilAborted } from './source.ts'

/** Options of a producer. All have defaults. */
export interface ProducerOptions {
  /** How long a publish may take in all, waiting and repeating included, ms. Default 30,000. */
  readonly deadlineMs?: number
  /** Fail when no queue takes the message. Default true. */
  readonly mandatory?: boolean
  /** Most messages sent and not yet answered. Default 1,000. Then `publish()` waits. */
  readonly windowMessages?: number
  /** Most bytes sent and not yet answered. Default 16 MiB. */
  readonly windowBytes?: number
  /** Most publishes that wait for the window or the broker; one more is refused at once (`not-sent`). Default 10,000. */
  readonly maxWaiting?: number
  /** Most bytes of bodies that wait so; one more message is refused at once (`not-sent`). Default 256 MiB. */
  readonly maxWaitingBytes?: number
  /** Largest body, bytes. Default 16 MiB, the limit of RabbitMQ 4. */
  readonly maxBodyBytes?: number
  /** Standard Schemas by message type: a body that does not fit is refused before it is sent. */
  readonly schemas?: Readonly<Record<string, Schema>>
}

/** Options of one publish. */
export interface PublishOptions {
  /** Default: the producer's. */
  readonly deadlineMs?: number
  /** Default: the producer's. */
  readonly mandatory?: boolean
  /** Gives up waiting; a message already sent ends as `unknown`. */
  readonly signal?: AbortSignal
}

export const PRODUCER_DEFAULTS = {
  deadlineMs: 30_000,
  mandatory: true,
  windowMessages: 1_000,
  windowBytes: 16 * 1024 * 1024,
  maxWaiting: 10_000,
  maxWaitingBytes: 256 * 1024 * 1024,
  maxBodyBytes: 16 * 1024 * 1024,
} as const

const PUBLISH_RULES = {
  deadlineMs: number(0, 2_147_483_647),
  mandatory: flag,
  signal: having('an AbortSignal', 'addEventListener'),
}

const RULES = {
  deadlineMs: number(1, 2_147_483_647),
  mandatory: flag,
  windowMessages: integer(1, 65_535),
  windowBytes: integer(1),
  maxWaiting: integer(1),
  maxWaitingBytes: integer(1),
  maxBodyBytes: integer(1, 134_217_728),
  schemas: object,
}

/** @throws InvalidOption */
export function checkProducerOptions(options: ProducerOptions): void {
  checkOptions('producer()', options, RULES)
  for (const [type, schema] of Object.entries(options.schemas ?? {})) {
    const standard = (schema as Partial<Schema> | undefined)?.['~standard']
    checkOptions(`producer({schemas: {"${type}"}})`, { validate: standard?.validate }, { validate: needed(callable) })
  }
}

/** What a producer needs from its surroundings. */
export interface ProducerParts {
  readonly publisher: Publisher
  readonly service: string
  /** For the publishes of handlers. */
  readonly derived: boolean
  /** Ends the publisher, and whatever keeps it. */
  readonly close: () => Promise<void>
  /** What `delayRoute` declared is gone: it must declare anew. */
  readonly forgetDelays: () => void
  readonly delayRoute: (delayMs: number, exchange: string, routingKey: string) => Promise<DelayRoute>
}

/** Publishes messages. Made by `surehop.producer()`. */
export class Producer {
  readonly #parts: ProducerParts
  readonly #options: Required<Omit<ProducerOptions, 'schemas'>> & Pick<ProducerOptions, 'schemas'>
  readonly #defaults: SendOptions
  readonly #encoding: EncodeOptions

  /** Use `surehop.producer()`. */
  constructor(parts: ProducerParts, options: ProducerOptions) {
    checkProducerOptions(options)
    this.#parts = parts
    this.#options = { ...PRODUCER_DEFAULTS, ...given(options) }
    const { deadlineMs, mandatory, maxBodyBytes } = this.#options
    this.#defaults = { deadlineMs, mandatory, signal: undefined }
    this.#encoding = { service: parts.service, derived: parts.derived, maxBodyBytes }
  }

  /**
   * Publishes to an exchange and waits until the broker has confirmed and routed it.
   * @param exchange name of the exchange; `''` means: to the queue that the routing key names
   * @throws PublishFailed with its outcome; InvalidOption
   */
  publish(exchange: string, message: OutgoingMessage, options: PublishOptions = NO_OPTIONS): Promise<Receipt> {
    try {
      return this.#started({ exchange }, message, this.#checked(exchange, options))
    } catch (error) {
      return Promise.reject(error)
    }
  }

  /**
   * Publishes straight to a queue.
   * @throws PublishFailed (`returned` when the queue does not exist); InvalidOption
   */
  send(queue: string, message: OutgoingMessage, options: PublishOptions = NO_OPTIONS): Promise<Receipt> {
    try {
      checkTarget('queue', queue, 1)
      return this.#started({ exchange: '', routingKey: queue }, message, this.#checked('', options))
    } catch (error) {
      return Promise.reject(error)
    }
  }

  /**
   * Publishes many messages, as fast as the window allows, and tells the outcome of each, in the order given.
   * Never rejects for a message's failure. Takes any iterable, also an async one; no more than a window's messages wait to be sent at a time.
   * Once its signal has fired, or the producer is closed, it asks an iterable that is no array for no more: what that had left has no outcome.
   * Nor does it wait for what an async one was asked for.
   * @throws InvalidOption
   */
  async publishMany(
    exchange: string,
    messages: Iterable<OutgoingMessage> | AsyncIterable<OutgoingMessage>,
    options: PublishOptions = NO_OPTIONS,
  ): Promise<PublishResult[]> {
    const send = this.#checked(exchange, options)
    const { publisher } = this.#parts
    const batch = new Batch({ exchange }, send)
    // One that was closed before asks for a message, whose outcome tells of it.
    const ends = [send.signal, publisher.closing.aborted ? undefined : publisher.closing]
    let over = false
    try {
      if (Symbol.asyncIterator in messages) {
        for await (const message of untilAborted(messages, ...ends)) {
          await this.#take(batch, message)
          await publisher.room(send.signal)
          over = publisher.isOver(send.signal)
          if (over) break
        }
      } else {
        const mayBeEndless = !Array.isArray(messages)
        for (const message of messages) {
          const taking = this.#take(batch, message)
          if (taking) await taking
          if (publisher.crowded) await publisher.room(send.signal)
          over = mayBeEndless && publisher.isOver(send.signal)
          if (over) break
        }
      }
    } catch (error) {
      // Of a source that fails to clean up, when it is let go of: what was sent has its outcomes.
      if (!over) throw error
    }
    return batch.results()
  }

  /** What takes time to prepare is to be waited for: nothing overtakes it then, and nothing piles up beside what waits to be sent. */
  #take(batch: Batch, message: OutgoingMessage): Promise<void> | undefined {
    const place = batch.place()
    try {
      const { publisher } = this.#parts
      const prepared = this.#prepare(batch.target, message, batch.send)
      if (prepared instanceof Promise || publisher.full(prepared.content.length))
        return this.#takeLater(batch, place, message, prepared)
      publisher.publishFor(place, prepared, batch.send)
    } catch (error) {
      place.failed(error)
    }
    return undefined
  }

  /** Others may have filled the bounds meanwhile. */
  async #takeLater(
    batch: Batch,
    place: Asker,
    message: OutgoingMessage,
    prepared: Encoded | Promise<Encoded>,
  ): Promise<void> {
    try {
      const encoded = await prepared
      await this.#parts.publisher.roomFor(encoded.content.length, batch.send.signal)
      if (message.delayMs)
        this.#publish(message, encoded, batch.send).then(
          (receipt) => place.confirmed(receipt),
          (error) => place.failed(error),
        )
      else this.#parts.publisher.publishFor(place, encoded, batch.send)
    } catch (error) {
      place.failed(error)
    }
  }

  #started(target: Target, message: OutgoingMessage, send: SendOptions): Promise<Receipt> {
    try {
      return this.#publish(message, this.#prepare(target, message, send), send)
    } catch (error) {
      return Promise.reject(error)
    }
  }

  /**
   * Takes no more, sends what was taken within `drainMs` of `connect()`, and closes its channel. `surehop.close()` does it for all
   * producers; for one of many that come and go. Harmless when repeated.
   */
  close(): Promise<void> {
    return this.#parts.close()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  /** A delayed message that is returned found its level deleted: the next one declares it anew. */
  #publish(message: OutgoingMessage, prepared: Encoded | Promise<Encoded>, send: SendOptions): Promise<Receipt> {
    const sent = this.#parts.publisher.publish(prepared, send)
    if (!message?.delayMs) return sent
    return sent.catch((error: unknown) => {
      if (error instanceof PublishFailed && error.outcome === 'returned') this.#parts.forgetDelays()
      throw error
    })
  }

  #checked(exchange: string, options: PublishOptions): SendOptions {
    checkTarget('exchange', exchange)
    if (options === NO_OPTIONS) return this.#defaults
    checkOptions('publish()', options, PUBLISH_RULES)
    const { deadlineMs = this.#options.deadlineMs, mandatory = this.#options.mandatory, signal } = options
    return { deadlineMs, mandatory, signal }
  }

  /** At once where it can be, so that publishes keep their order. */
  #prepare(target: Target, message: OutgoingMessage, send: SendOptions): Encoded | Promise<Encoded> {
    const schema = this.#schemaOf(message)
    try {
      if (!schema && !message?.delayMs) return encode(target, message, this.#encoding)
    } catch (cause) {
      throw notSent(target, message, cause, send)
    }
    return this.#prepareLater(target, message, schema, send)
  }

  async #prepareLater(
    target: Target,
    message: OutgoingMessage,
    schema: Schema | undefined,
    send: SendOptions,
  ): Promise<Encoded> {
    try {
      const body = schema && (await validate(schema, message.body, (answer) => inTime(answer, send)))
      const checked = schema ? { ...message, body } : message
      const encoded = encode(target, checked, this.#encoding)
      return message.delayMs ? await this.#delayed(encoded, message.delayMs, send) : encoded
    } catch (cause) {
      throw notSent(target, message, cause, send)
    }
  }

  #schemaOf(message: OutgoingMessage | undefined): Schema | undefined {
    const { schemas } = this.#options
    const type = message?.type
    return schemas && type !== undefined && Object.hasOwn(schemas, type) ? schemas[type] : undefined
  }

  async #delayed(encoded: Encoded, delayMs: number, send: SendOptions): Promise<Encoded> {
    const { exchange, routingKey } = encoded
    const route = await persist(() => this.#parts.delayRoute(delayMs, exchange, routingKey), send)
    const from = { [HEADER.exchange]: encoded.exchange, [HEADER.routingKey]: encoded.routingKey }
    const headers = { ...encoded.properties.headers, ...from, ...route.headers }
    return {
      ...encoded,
      exchange: route.exchange,
      routingKey: route.routingKey,
      properties: { ...encoded.properties, headers },
    }
  }
}

const NO_OPTIONS: PublishOptions = {}
/** So many UTF-16 units never take more than 255 bytes. */
const SURELY_SHORT = 85

function checkTarget(what: string, name: string, min = 0): void {
  if (typeof name === 'string' && name.length >= min && name.length <= SURELY_SHORT) return
  checkOptions(
    `publish to ${what}`,
    { [what]: name },
    {
      [what]: needed(
        min === 0
          ? (v) => (typeof v === 'string' && Buffer.byteLength(v) <= 255 ? undefined : 'a name of at most 255 bytes')
          : text(),
      ),
    },
  )
}

function notSent(target: Target, message: OutgoingMessage, cause: unknown, { signal }: SendOptions): Error {
  if (cause instanceof InvalidOption) return cause
  const messageId = typeof message?.messageId === 'string' ? message.messageId.slice(0, 255) : newMessageId()
  const transactionId = typeof message?.transactionId === 'string' ? message.transactionId.slice(0, 255) : messageId
  const { exchange } = target
  const routingKey = String(target.routingKey ?? message?.routingKey ?? message?.type ?? '').slice(0, 255)
  const aborted = signal?.aborted === true && cause === signal.reason
  const retryable = aborted || PASSING.some((kind) => cause instanceof kind)
  const why = aborted ? 'its signal was aborted' : String((cause as Error)?.message ?? cause)
  return new PublishFailed(
    { outcome: 'not-sent', messageId, transactionId, exchange, routingKey, sends: 0, retryable },
    `message ${messageId} was not published (not-sent): ${why}${why.endsWith('?') ? '' : '.'} Nothing was sent.`,
    { cause },
  )
}

/** The deadline passed before the message was ready to be sent. */
class TooLate extends Error {}

/** Failures that may be gone the next time. */
const PASSING = [NotConnected, BrokerTimeout, ChannelLost, TooLate]
const PERSIST_PAUSE_MS = 200

/** A schema may ask elsewhere, where nobody answers; waiting for it keeps no process alive. */
function inTime<T>(checking: Promise<T>, { deadlineMs, signal }: SendOptions): Promise<T> {
  const late = () => new TooLate(`the deadline passed after ${deadlineMs} ms while its schema checked it`)
  return within(unlessAborted(checking, signal), deadlineMs, late, true)
}

/** Repeats what the broker could not answer just now, until the deadline or the abort. */
async function persist<T>(run: () => Promise<T>, { deadlineMs, signal }: SendOptions): Promise<T> {
  const until = performance.now() + deadlineMs
  for (let last: Error | undefined; ; ) {
    const late = () =>
      new NotConnected(
        `the deadline passed after ${deadlineMs} ms while the delay queues were being declared${last ? `: ${last.message}` : ''}`,
      )
    signal?.throwIfAborted()
    try {
      return await within(unlessAborted(run(), signal), Math.max(0, until - performance.now()), late)
    } catch (error) {
      if (!PASSING.some((kind) => error instanceof kind) || performance.now() >= until) throw error
      last = error as Error
      await pause(Math.min(PERSIST_PAUSE_MS, Math.max(0, until - performance.now())), signal)
    }
  }
}
