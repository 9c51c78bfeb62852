// Letters as the fuzzer reads them, by their lines of JSON: whose they are, and whether they say why they are dead.

import type { Specimen } from './specimens.ts'

/** Name of the header with the marker. */
export const MARKER = 'fuzz-marker'
/** A marker, wherever it stands in a line of JSON. */
export const MARKED = /"fuzz:[0-9a-f]+:\d+:\w+"/

/** Why a letter cannot be sent by us at all. */
export const UNSENDABLE = /too deep|cannot be sent again|cannot be encoded|leave no room/

/** The broker's word for what a consumer of ours left to it. */
const REJECTED = 'rejected'
/** Why a consumer of ours gives up by itself. */
const INVALID = 'invalid message'
const REFUSED = 'refused by the handler'
const FAILED = /^(failed \d+ times|still failing \d+ ms after its first failure)$/
const CONFLICT = 'same id, other body'
/** What an invalid message begins its complaint with: the name of what was wrong. */
const NAMES_A_FIELD =
  /^(expected (header )?\S*(message_id|transaction_id|surehop-[a-z-]+)|expected headers |the message has no identity: expected the message_id |the body is not JSON|body[.:[])/

/** Characters of a line that leave no room for the text of an error: amqplib sends 64 KiB of headers. */
const CROWDED = 60_000

/** The marker of a letter, by its line of JSON. */
export function markerIn(line: string): string | undefined {
  return MARKED.exec(line)?.[0].slice(1, -1)
}

/** Did the broker put it there as it was, since we could not send it? */
export function isKept(line: string): boolean {
  const headers = headersOf(line)
  return textIn(headers['surehop-reason']).startsWith(REJECTED) || headers['surehop-unreadable'] !== undefined
}

/** What is wrong with the letter of a message that was to end so, or undefined. */
export function wrongWith(line: string, fate: Specimen['fate']): string | undefined {
  const headers = headersOf(line)
  const reason = textIn(headers['surehop-reason'])
  const message = textIn(headers['surehop-error-message'])
  if (reason.startsWith(REJECTED))
    return UNSENDABLE.test(reason) ? undefined : `its letter does not say what could not be sent: "${reason}"`
  if (message === '' && line.length > CROWDED && (reason === INVALID || reason === REFUSED)) return undefined
  if (reason === INVALID) return NAMES_A_FIELD.test(message) ? undefined : `its letter names no field: "${message}"`
  if (isKept(line) || reason === CONFLICT) return undefined
  if (reason === REFUSED)
    return fate === 'is hopeless' && message.startsWith('no hope')
      ? undefined
      : `it had hope, and its letter says "${message}"`
  if (!FAILED.test(reason)) return `its letter gives no reason: "${reason}"`
  return fate === 'fails' || fate === 'fails once' ? undefined : `its handler did not fail: "${message}"`
}

function headersOf(line: string): Readonly<Record<string, unknown>> {
  return (JSON.parse(line) as { headers: Record<string, unknown> }).headers
}

/** What the broker kept has these as they were forged: tables, with a `toString` of their own among them. */
function textIn(value: unknown): string {
  return typeof value === 'string' ? value : ''
}
