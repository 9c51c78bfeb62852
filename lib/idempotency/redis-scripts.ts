/**
 * The scripts of the Redis store: the decisions of `record.ts`, said once more where the data is, atomically.
 *
 * Every key a script touches stands in KEYS, and all keys of one shard share one hash tag. Nothing is written before the
 * first write command: where Redis refuses it (OOM, READONLY, NOREPLICAS), nothing has changed. Time is Redis' own.
 * What is stored stands in `redis-lua-packed.ts`.
 */

import { createHash } from 'node:crypto'
import { CLAIM } from './redis-lua-claim.ts'
import { BUCKET_BYTES_MAX, PACKED, SMALL_BUCKET_BYTES } from './redis-lua-packed.ts'
import { SETTLE } from './redis-lua-settle.ts'
import { SHARDS } from './redis-packing.ts'

/** A script and the name by which Redis knows it once loaded. */
export interface Script {
  readonly lua: string
  readonly sha: string
}

/**
 * Renews one owner in each of its shards, or takes it out.
 * KEYS: owner hashes. ARGV: owner, payload `leaseMs leave`. Returns 8 bytes per hash: `since` (0: it was not here, when leaving).
 * Those silent for so long that nobody need know are swept on the way, of one hash in sixteen: any claim would take over from them.
 */
const RENEW = `
local owner = ARGV[1]
local leaseMs, leave = struct.unpack('<dB', ARGV[2])
local sinces = {}
for i, owners in ipairs(KEYS) do
  local since
  if leave == 1 then
    local till, began = aliveUntil(owners, owner)
    since = struct.pack('<d', till > ms and began or 0)
    redis.call('HDEL', owners, owner)
  else
    since = keepAlive(owners, owner, leaseMs, true)
  end
  local all = (us + i) % ${SHARDS} == 0 and redis.call('HGETALL', owners) or {}
  for j = 1, #all, 2 do
    if struct.unpack('<d', all[j + 1]) + keptFor(leaseMs) <= ms then redis.call('HDEL', owners, all[j]) end
  end
  sinces[i] = since
end
return table.concat(sinces)
`

/**
 * Reads and changes nothing.
 * KEYS: s owner hashes, n live keys, the packed places. ARGV: payload: a header `n s`, then per id `shard place identity`.
 * Returns one string per id: empty (absent), `P` and the entry's five bytes, or `0`/`1` (holder alive) and the live value.
 */
const LOOK = `
local payload = ARGV[1]
local n, s, at = struct.unpack('<I2I2', payload)
local places, replies = {}, {}
for i = 1, n do
  local shard, b, identity
  shard, b, identity, at = struct.unpack('<BHc11', payload, at)
  local value = redis.call('GET', KEYS[s + i])
  if value then
    local state, _, _, _, _, _, _, after = struct.unpack(HEAD, value)
    local alive = state == 'L' and aliveUntil(KEYS[shard], string.sub(value, after + 8)) > ms
    replies[i] = (alive and '1' or '0') .. value
  else
    if b > 0 and not places[b] then places[b] = open(s + n + b) end
    local done = b > 0 and findPacked(places[b], identity)
    replies[i] = done and 'P' .. done or ''
  end
end
return replies
`

/**
 * Puts small buckets into their archive, where they cost no key of their own, and gives back what Redis reserved beyond the length of
 * others (APPEND reserves twice the length; overflows and archives are written without).
 * KEYS: an archive, its 64 buckets in order. No ARGV. An archive lives as long as the bucket that would have lived longest.
 * Races: none, an id is in one or the other for whoever asks; a bucket that is written to again begins anew beside its archive.
 */
const TIDY = `
local archive, more, gone = KEYS[1], {}, {}
local length, till = redis.call('STRLEN', archive), redis.call('PTTL', archive)
for i = 2, #KEYS do
  local bucket = KEYS[i]
  local size = redis.call('STRLEN', bucket)
  local left = size > 0 and redis.call('PTTL', bucket) or 0
  if left > 0 and size % 16 == 0 and size <= ${SMALL_BUCKET_BYTES} and length + size / 16 * 17 <= ${BUCKET_BYTES_MAX} then
    local entries, window = redis.call('GET', bucket), string.char(i - 2)
    for j = 1, size, 16 do
      more[#more + 1] = string.sub(entries, j, j + 10) .. window .. string.sub(entries, j + 11, j + 15)
    end
    gone[#gone + 1] = bucket
    length, till = length + size / 16 * 17, math.max(till, left)
  elseif size > 0 and redis.call('MEMORY', 'USAGE', bucket) > size * 1.25 + 150 then
    redis.call('SET', bucket, redis.call('GET', bucket), 'KEEPTTL')
  end
end
if #gone > 0 then
  redis.call('SET', archive, (redis.call('GET', archive) or '') .. table.concat(more), 'PX', string.format('%.0f', till))
  redis.call('DEL', unpack(gone))
end
return 0
`

export const claimScript = script(PACKED + CLAIM)
export const settleScript = script(PACKED + SETTLE)
export const renewScript = script(PACKED + RENEW)
export const lookScript = script(PACKED + LOOK)
export const tidyScript = script(TIDY)

function script(lua: string): Script {
  return { lua, sha: createHash('sha1').update(lua).digest('hex') }
}
