/** Says on stderr what went wrong, for a person, and picks the exit code. */
import {
  BrokerTimeout,
  ConnectionRefused,
  DatabaseUnavailable,
  InvalidOption,
  NotConnected,
  PermissionRefused,
  SchemaMismatch,
  StoreUnavailable,
  SurehopError,
} from '../lib/index.ts'
import { Declined } from './ask.ts'
import { Interrupted } from './interruption.ts'
import { EXIT } from './session.ts'
import { NobodyReads } from './terminal.ts'
import { redacted, safeLines } from './text.ts'

/** @returns the exit code */
export function explained(error: unknown): number {
  if (error instanceof NobodyReads) return EXIT.done
  const text = error instanceof Error ? error.message || error.name : String(error)
  process.stderr.write(`surehop: ${safeLines(redacted(text))}\n`)
  if (!(error instanceof SurehopError) && error instanceof Error && process.env['SUREHOP_DEBUG'])
    process.stderr.write(`${redacted(error.stack ?? '')}\n`)
  return exitCodeOf(error)
}

const LASTING = [SchemaMismatch, PermissionRefused]
const UNREACHABLE = [NotConnected, ConnectionRefused, BrokerTimeout, StoreUnavailable, DatabaseUnavailable]

export function exitCodeOf(error: unknown): number {
  if (error instanceof Declined || error instanceof Interrupted) return EXIT.interrupted
  if (error instanceof InvalidOption) return EXIT.usage
  // No waiting will bring the tables, nor the right to read them.
  if (error instanceof StoreUnavailable && LASTING.some((it) => error.cause instanceof it)) return EXIT.partly
  return UNREACHABLE.some((it) => error instanceof it) ? EXIT.unreachable : EXIT.partly
}
