/**
 * Tells what of a received message cannot be sent again as it came. Pure. The broker takes and hands out more than amqplib writes: a
 * message like this is left to the broker, which moves and keeps it as it is.
 */
import { MessageInvalid } from './errors.ts'
import { HEADER, type WireProperties } from './message.ts'
import { show } from './options.ts'

/** Longest property, and longest name of a header, bytes. */
const MAX_SHORT_TEXT = 255
/** No text shorter than this takes more bytes than that: a UTF-16 unit takes three at most. */
const SHORT_FOR_SURE = MAX_SHORT_TEXT / 3

/** @throws MessageInvalid naming the header or property */
export function checkForwardable(properties: WireProperties): void {
  for (const [name, value] of Object.entries(properties)) if (typeof value === 'string') checkShort(name, value)
  const { headers } = properties
  // What was set as one is inherited now, and amqplib sends that, though nobody here has looked at it.
  if (Object.getPrototypeOf(headers) !== Object.prototype)
    throw new MessageInvalid('headers', 'a header named "__proto__" can be read by nobody, and cannot be sent again')
  const left = headers[HEADER.unreadable]
  if (left !== undefined)
    throw new MessageInvalid(
      'headers',
      `headers nested too deep, or named "__proto__", cannot be read and not be sent again: ${show(left)}`,
    )
  for (const name of Object.keys(headers)) {
    checkName(name, name)
    checkTyped(name, headers[name])
  }
}

/** Bytes that are no UTF-8 are read as a character of three bytes each. */
function checkShort(name: string, value: string): void {
  if (isShort(value)) return
  throw new MessageInvalid(
    name,
    `property "${name}" takes more than ${MAX_SHORT_TEXT} bytes now that its bytes were read as UTF-8, and cannot be sent again`,
  )
}

function checkName(header: string, name: string): void {
  if (isShort(name)) return
  throw new MessageInvalid(
    'headers',
    `header ${show(header)} has a name of more than ${MAX_SHORT_TEXT} bytes now that it was read as UTF-8, and cannot be sent again`,
  )
}

function isShort(text: string): boolean {
  return text.length <= SHORT_FOR_SURE || Buffer.byteLength(text) <= MAX_SHORT_TEXT
}

/**
 * amqplib takes a table with a field "!" for a value with its type told. Where a publisher forged one, it writes something else than
 * came, and in the worst case a number that makes the broker close the whole connection, at every try.
 * @throws MessageInvalid
 */
function checkTyped(name: string, value: unknown): void {
  if (typeof value !== 'object' || value === null || value instanceof Uint8Array) return
  if (Object.hasOwn(value, '!')) {
    if (!isTyped(value as { '!': unknown; value?: unknown }))
      throw new MessageInvalid(
        `headers.${name}`,
        `header ${show(name)} has a table with a field "!", which cannot be sent again`,
      )
  } else
    for (const [key, item] of Object.entries(value)) {
      checkName(name, key)
      checkTyped(name, item)
    }
}

/** As amqplib reads timestamps and decimals, and as our producers write them and integers. */
function isTyped({ '!': type, value }: { '!': unknown; value?: unknown }): boolean {
  if (type === 'timestamp') return typeof value === 'number' && Number.isInteger(value) && value >= 0 && value < 2 ** 64
  if (type === 'int64') return typeof value === 'bigint'
  const { places, digits } = (value ?? {}) as { places?: unknown; digits?: unknown }
  return type === 'decimal' && Number.isInteger(places) && Number.isInteger(digits)
}
