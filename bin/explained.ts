/** Says on stderr what went wrong, for a person, and picks the exit code. */
import {
  BrokerTimeout,
  ConnectionRefused,
  DatabaseUnavailable,
  InvalidOption,
  NotConnected,
  StoreUnavailable,
  SurehopError,
} from '../lib/index.ts'
import { Declined } from './ask.ts'
import { EXIT } from './session.ts'
import { redacted, safeLines } from './text.ts'

/** @returns the exit code */
export function explained(error: unknown): number {
  const text = error instanceof Error ? error.message || error.name : String(error)
  process.stderr.write(`surehop: ${safeLines(redacted(text))}\n`)
  if (!(error instanceof SurehopError) && error instanceof Error && process.env['SUREHOP_DEBUG'])
    process.stderr.write(`${redacted(error.stack ?? '')}\n`)
  return exitCodeOf(error)
}

const UNREACHABLE = [NotConnected, ConnectionRefused, BrokerTimeout, StoreUnavailable, DatabaseUnavailable]

export function exitCodeOf(error: unknown): number {
  if (error instanceof Declined) return EXIT.interrupted
  if (error instanceof InvalidOption) return EXIT.usage
  return UNREACHABLE.some((it) => error instanceof it) ? EXIT.unreachable : EXIT.partly
}
