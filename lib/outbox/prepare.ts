/**
 * Checks and stamps the messages of one `add()` before any SQL is sent: a statement that Postgres refuses would take the caller's
 * whole transaction with it.
 */
import { MessageInvalid } from '../errors.ts'
import type { OutgoingMessage } from '../message.ts'
import { hintAt, show, text } from '../options.ts'
import { type Encoded, type EncodeOptions, encode, MESSAGE_FIELDS } from '../producer/encode.ts'
import { type Schema, validate } from '../schema.ts'

/** A message and where it goes: exactly one of an exchange and a queue. */
export type OutboxMessage<Body = unknown> = OutgoingMessage<Body> &
  (
    | {
        /** Name of the exchange; the routing key is `routingKey`, else `type`. */
        readonly exchange: string
        readonly queue?: undefined
      }
    | {
        /** Name of the queue it goes straight to. */
        readonly queue: string
        readonly exchange?: undefined
        readonly routingKey?: undefined
      }
  )

/** A message that is fit to be written. */
export interface ReadyMessage {
  readonly encoded: Encoded
  readonly key: string | undefined
  readonly delayMs: number | undefined
}

/** What preparing needs. */
export interface PrepareOptions extends EncodeOptions {
  readonly schemas?: Readonly<Record<string, Schema>>
}

const FIELDS: readonly string[] = ['exchange', 'queue', ...MESSAGE_FIELDS]

/**
 * Messages without a transaction id get the one of the first: what one call writes is one business transaction. Answers at once
 * where no schema is to be asked.
 * @throws MessageInvalid naming the field, and of several messages which one: `messages[2].key`
 */
export function prepare(
  messages: readonly OutboxMessage[],
  options: PrepareOptions,
): ReadyMessage[] | Promise<ReadyMessage[]> {
  each(messages, checkKnown)
  const { schemas } = options
  if (!messages.some(({ type }) => schemaOf(type, schemas))) return stamped(messages, options)
  return validated(messages, schemas).then((fit) => stamped(fit, options))
}

async function validated(
  messages: readonly OutboxMessage[],
  schemas: PrepareOptions['schemas'],
): Promise<OutboxMessage[]> {
  const checks = each(messages, async (message) => {
    const schema = schemaOf(message.type, schemas)
    return schema ? { ...message, body: await validate(schema, message.body) } : message
  })
  const outcomes = await Promise.allSettled(checks)
  return each(outcomes, (outcome) => {
    if (outcome.status === 'rejected') throw outcome.reason
    return outcome.value
  })
}

function stamped(messages: readonly OutboxMessage[], options: PrepareOptions): ReadyMessage[] {
  let shared: string | undefined
  return each(messages, (message) => {
    const ready = stampedOne(message, shared, options)
    shared ??= ready.encoded.transactionId
    return ready
  })
}

/** Like `map`; a refusal says which message of several it is about. */
function each<T, R>(items: readonly T[], one: (item: T) => R): R[] {
  return items.map((item, i) => {
    try {
      return one(item)
    } catch (cause) {
      if (!(cause instanceof MessageInvalid) || items.length === 1) throw cause
      throw new MessageInvalid(`messages[${i}].${cause.path}`, `messages[${i}]: ${cause.message}`, { cause })
    }
  })
}

function stampedOne(message: OutboxMessage, shared: string | undefined, options: PrepareOptions): ReadyMessage {
  const { exchange, queue, ...rest } = message
  const target = { exchange: targetOf(exchange, queue, message.routingKey), routingKey: queue }
  const of = shared === undefined || rest.transactionId !== undefined ? rest : { ...rest, transactionId: shared }
  const encoded = encode(target, of, options)
  checkStorable(encoded, message.key)
  return { encoded, key: message.key, delayMs: message.delayMs || undefined }
}

function checkKnown(message: OutboxMessage): void {
  if (typeof message !== 'object' || message === null)
    throw new MessageInvalid('message', `expected a message like {exchange, type, body}, got ${show(message)}`)
  for (const name in message)
    if (!FIELDS.includes(name))
      throw new MessageInvalid(name, `unknown message field "${name}", ${hintAt(name, FIELDS)}`)
}

const name = text(255)

function targetOf(exchange: string | undefined, queue: string | undefined, routingKey: string | undefined): string {
  if ((exchange === undefined) === (queue === undefined))
    throw new MessageInvalid(
      'exchange',
      `expected a message to say where it goes, by exchange or by queue, got ${exchange === undefined ? 'neither' : 'both'}`,
    )
  const field = exchange === undefined ? 'queue' : 'exchange'
  const expected = name(exchange ?? queue)
  if (expected) {
    const hint = exchange === '' ? ': for a message straight to a queue, say queue instead' : ''
    throw new MessageInvalid(field, `expected ${field} to be ${expected}, got ${show(exchange ?? queue)}${hint}`)
  }
  if (queue !== undefined && routingKey !== undefined)
    throw new MessageInvalid('routingKey', `expected no routingKey beside queue, got ${show(routingKey)}`)
  return exchange ?? ''
}

function schemaOf(type: unknown, schemas: PrepareOptions['schemas']): Schema | undefined {
  return schemas && typeof type === 'string' && Object.hasOwn(schemas, type) ? schemas[type] : undefined
}

/** AMQP can carry a NUL and half a character, a text column of Postgres cannot. */
function checkStorable({ messageId, transactionId, exchange, routingKey }: Encoded, key: string | undefined): void {
  const texts = { messageId, transactionId, key, [exchange === '' ? 'queue' : 'routingKey']: routingKey, exchange }
  for (const [field, value] of Object.entries(texts))
    if (value !== undefined && /[\0\p{Surrogate}]/u.test(value))
      throw new MessageInvalid(
        field,
        `expected ${field} to be well-formed text without the character NUL, which Postgres cannot store, got ${show(value)}`,
      )
}
