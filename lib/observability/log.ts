/**
 * Writes the named events to a pino-like logger. Promises: no body, no header value, no password in any line.
 */
import { HEADER } from '../message.ts'
import { errorHeaders, tellable } from '../reason.ts'
import { type EventData, type EventName, eventNames, onEvent } from './events.ts'

/** The part of pino we use; any logger with these methods fits. */
export interface Logger {
  debug(fields: object, text: string): void
  info(fields: object, text: string): void
  warn(fields: object, text: string): void
  error(fields: object, text: string): void
}

type Level = keyof Logger

const LEVELS: Readonly<Record<EventName, Level>> = {
  'connection.state': 'info',
  'connection.blocked': 'warn',
  'connection.unblocked': 'info',
  'channel.state': 'debug',
  'topology.declared': 'debug',
  'publish.confirmed': 'debug',
  'publish.failed': 'error',
  'publish.resent': 'warn',
  'consumer.state': 'info',
  'message.completed': 'debug',
  'message.failed': 'warn',
  'message.retried': 'info',
  'message.duplicate': 'debug',
  'message.put-off': 'debug',
  'message.dead-lettered': 'error',
  'message.stale': 'warn',
  'store.unavailable': 'error',
  'store.available': 'info',
  'store.warning': 'warn',
  'lease.lapsed': 'warn',
  'dead-letter.replayed': 'info',
  'dead-letter.discarded': 'info',
  'outbox.sent': 'debug',
  'outbox.held': 'warn',
  'outbox.parked': 'error',
  'outbox.backlog': 'debug',
  'outbox.warning': 'warn',
  'relay.state': 'info',
  'transaction.prepared': 'debug',
  'transaction.decided': 'debug',
  'transaction.published': 'debug',
  'transaction.checked': 'info',
  'transaction.parked': 'error',
  'transaction.warning': 'warn',
}

/**
 * Logs every event of one instance.
 * @returns a function that ends it
 */
export function logEvents(instance: string, logger: Logger): () => void {
  const ends = eventNames
    .filter((name) => isOn(logger, LEVELS[name]) || (isState(name) && isOn(logger, 'warn')))
    .map((name) => onEvent(name, (data) => data.instance === instance && write(logger, name, data)))
  return () => {
    for (const end of ends) end()
  }
}

function write(logger: Logger, name: EventName, data: EventData<EventName>): void {
  const { instance: _, ...fields } = data
  const { error, ...plain } = fields as { error?: unknown }
  const line = { event: name, ...rounded(plain), ...(error === undefined ? {} : described(name, error)) }
  logger[levelOf(name, fields as { error?: unknown; to?: string })](line, `surehop ${name}`)
}

/** What breaks off is worth a warning, what fails for good an error. */
function levelOf(name: EventName, { error, to }: { error?: unknown; to?: string }): Level {
  if (to === 'failed') return 'error'
  return isState(name) && LEVELS[name] === 'info' && error !== undefined ? 'warn' : LEVELS[name]
}

function isState(name: EventName): boolean {
  return name.endsWith('.state')
}

/** Errors become their type, text and, of handlers, frames: the error itself may carry a payload in its fields. */
function described(name: EventName, error: unknown): object {
  const told = errorHeaders(error)
  const stack = told[HEADER.errorStack]
  return {
    errorType: told[HEADER.errorType],
    error: isBare(error) ? BARE : told[HEADER.errorMessage],
    ...(name.startsWith('message.') && stack !== undefined
      ? { fingerprint: told[HEADER.errorFingerprint], stack }
      : {}),
  }
}

/** A handler may throw its message, or an answer it got, and that is no error. */
function isBare(thrown: unknown): boolean {
  return typeof thrown === 'object' && thrown !== null && !(tellable(thrown) instanceof Error)
}

const BARE = 'an object that is no error was thrown: it may carry the message, and is not shown'

/** Times to the microsecond. */
function rounded(fields: object): object {
  return Object.fromEntries(
    Object.entries(fields).map(([name, value]) => [
      name,
      typeof value === 'number' ? Math.round(value * 1_000) / 1_000 : value,
    ]),
  )
}

/** pino tells whether a level is written at all; unwanted levels cost nothing. */
function isOn(logger: Logger, level: Level): boolean {
  const asked = (logger as { isLevelEnabled?: (level: string) => boolean }).isLevelEnabled
  return asked ? asked.call(logger, level) : true
}
