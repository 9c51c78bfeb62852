/**
 * Writes the named events to a pino-like logger. Promises: no body, no header value, no password in any line.
 */
import { textOf } from '../errors.ts'
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
}

/**
 * Logs every event of one instance.
 * @returns a function that ends it
 */
export function logEvents(instance: string, logger: Logger): () => void {
  const ends = eventNames
    .filter((name) => isOn(logger, LEVELS[name]))
    .map((name) => onEvent(name, (data) => data.instance === instance && write(logger, name, data)))
  return () => {
    for (const end of ends) end()
  }
}

function write(logger: Logger, name: EventName, data: EventData<EventName>): void {
  const { instance: _, ...fields } = data
  logger[LEVELS[name]]({ event: name, ...Object.fromEntries(Object.entries(fields).map(plain)) }, `surehop ${name}`)
}

/** Errors become their text: the error of a handler may carry a payload in its fields. */
function plain([field, value]: [string, unknown]): [string, unknown] {
  return field === 'error' ? [field, value === undefined ? undefined : textOf(value, 300)] : [field, value]
}

/** pino tells whether a level is written at all; unwanted levels cost nothing. */
function isOn(logger: Logger, level: Level): boolean {
  const asked = (logger as { isLevelEnabled?: (level: string) => boolean }).isLevelEnabled
  return asked ? asked.call(logger, level) : true
}
