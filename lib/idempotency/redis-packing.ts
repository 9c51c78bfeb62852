/**
 * Where an id lives in Redis, and how little of it is remembered once it is completed.
 *
 * A UUIDv7 (canonical, lower case) carries its own time, so its place follows from the id alone: a *shard* (all random
 * bits folded to four) and a *window* of 2^14 ms. What is left of it, 74 random bits and 14 bits of time, is exactly 11
 * bytes: a completed id is those, 3 bytes of the body's digest and 2 of time, appended to the bucket of its shard and window. A bucket
 * that gets full, as at more than 900 ids per second, becomes an overflow, of slices of time that are read one by one; one that stays small
 * goes to an archive half an hour later, together with 63 others, by which it is known with its window. Nothing is lost in packing: an id is never taken for another.
 *
 * Measured on Redis 7.0 (`test/bench/redis-memory.ts`), bytes of `used_memory` per completed id, keys and expiry included:
 *
 *     ids per second            1      10     100   1,000  10,000
 *     this, tidied             23      21      20      24      19
 *     this, as written        119      39      28      26      19     (up to 32: APPEND reserves twice the length)
 *     listpack hashes         120      38      24      71      73     (beyond 128 fields it is no listpack)
 *     a key per id            181     181     181     181     181
 *
 * Smaller buckets would cost more at up to 1,000 ids per second: for an overflow, Redis is asked once more by each claim and settlement.
 * Any other id keeps a short key of its own; one that is long or not plain ASCII is known by its SHA-256.
 */

import { createHash } from 'node:crypto'

/** Shards per scope; fixed, for it decides where an id is found again. */
export const SHARDS = 16

/** Length of a window, as a power of two of milliseconds. */
const WINDOW_BITS = 14
const WINDOW_MS = 2 ** WINDOW_BITS

/** Bytes of an identity within its bucket. */
export const IDENTITY_BYTES = 11

/** Windows per archive, as a power of two: 17 minutes. */
const ARCHIVE_BITS = 6

/** The place of one id. */
export interface Place {
  readonly shard: number
  /** Last part of the live key. */
  readonly name: string
  /** Number of the window, or -1 where the id cannot be packed. */
  readonly window: number
  /** The time the id carries, epoch ms; 0 where the id cannot be packed. */
  readonly idMs: number
  /** The identity: 4, 3 and 4 bytes, as signed integers (a greater number would be an object of its own to V8). */
  readonly head: number
  readonly middle: number
  readonly tail: number
}

/** The place of an id: a pure function of the id. */
export function placeOf(id: string): Place {
  return isUuidV7(id) ? placeOfUuid(id) : placeOfText(id)
}

/** The window in which ids made at this time are. */
export function windowAt(ms: number): number {
  return Math.floor(ms / WINDOW_MS)
}

/** The archive to which the bucket of a window goes if it is small. */
export function archiveOf(window: number): number {
  return Math.floor(window / 2 ** ARCHIVE_BITS)
}

/** The windows whose buckets may go to an archive. */
export function windowsOf(archive: number): number[] {
  return Array.from({ length: 2 ** ARCHIVE_BITS }, (_, n) => archive * 2 ** ARCHIVE_BITS + n)
}

/** Writes the 11 bytes of an identity. The bytes that differ most come first: a search skips quickly. */
export function writeIdentity(into: Buffer, place: Place, at: number): void {
  into.writeInt32BE(place.head, at)
  into.writeInt32BE(place.middle << 8, at + 4)
  into.writeInt32BE(place.tail, at + 7)
}

const DASHES = [8, 13, 18, 23]
const HEX_AT = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34]
const NO_DIGIT = 0x100
const nibbles = Uint16Array.from({ length: 128 }, (_, code) => {
  const digit = '0123456789abcdef'.indexOf(String.fromCharCode(code))
  return digit < 0 ? NO_DIGIT : digit
})
/** The 16 bytes of the id under examination. */
const bytes = new Uint8Array(16)

/** Reads the id into `bytes`; true if it is a UUIDv7 in canonical lower-case form. */
function isUuidV7(id: string): boolean {
  if (id.length !== 36) return false
  for (const at of DASHES) if (id.charCodeAt(at) !== 0x2d) return false
  let seen = 0
  for (let i = 0; i < 16; i++) {
    const at = HEX_AT[i]!
    const high = nibbles[id.charCodeAt(at)] ?? NO_DIGIT
    const low = nibbles[id.charCodeAt(at + 1)] ?? NO_DIGIT
    seen |= high | low
    bytes[i] = (high << 4) | low
  }
  return seen < NO_DIGIT && bytes[6]! >> 4 === 7 && bytes[8]! >> 6 === 2
}

function placeOfUuid(name: string): Place {
  const low = word(bytes[2]!, bytes[3]!, bytes[4]!, bytes[5]!)
  const idMs = ((bytes[0]! << 8) | bytes[1]!) * 2 ** 32 + (low >>> 0)
  let folded = 0
  for (let i = 6; i < 16; i++) folded ^= bytes[i]!
  return {
    shard: (folded ^ (folded >> 4)) & 15,
    name,
    window: windowAt(idMs),
    idMs,
    head: word(bytes[15]!, bytes[14]!, bytes[13]!, bytes[12]!),
    middle: (bytes[11]! << 16) | (bytes[10]! << 8) | bytes[9]!,
    tail: ((bytes[8]! & 0x3f) << 26) | ((bytes[6]! & 0x0f) << 22) | (bytes[7]! << 14) | (low & (WINDOW_MS - 1)),
  }
}

function placeOfText(id: string): Place {
  const name = /^[!-~]{1,64}$/.test(id) ? id : `sha256 ${sha256(id)}`
  return { shard: fold(name), name, window: -1, idMs: 0, head: 0, middle: 0, tail: 0 }
}

/** Over UTF-16, so that even ill-formed strings stay different. A raw name has no space in it: the two never meet. */
function sha256(id: string): string {
  return createHash('sha256').update(Buffer.from(id, 'utf16le')).digest('base64url')
}

/** FNV-1a, folded to a shard. */
function fold(text: string): number {
  let hash = 0x811c9dc5
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193)
  return (hash ^ (hash >>> 8) ^ (hash >>> 20)) & (SHARDS - 1)
}

function word(a: number, b: number, c: number, d: number): number {
  return (a << 24) | (b << 16) | (c << 8) | d
}
