/**
 * The Lua of the Redis store: the decisions of `record.ts`, said once more where the data is, atomically.
 *
 * Every key a script touches stands in KEYS, and all keys of one shard share one hash tag. Nothing is written before the
 * first write command: where Redis refuses it (OOM, READONLY, NOREPLICAS), nothing has changed. Time is Redis' own.
 *
 * What is stored (all numbers little-endian):
 *
 *     live key   state, fence, attempt, generation, starts, exhausted, digest[8]; a lease adds its sequence and owner.
 *                States: L leased, F released by failure, R returned, D dead, C completed (fence is then epoch ms)
 *     bucket     entries of 16 bytes: identity[11] digest[3] minutes[2], appended; see `redis-packing.ts`
 *     overflow   hash: such entries in 128 fields, by a byte of the identity: all of a bucket that got full. `moved` is what is left of that
 *                then, and without it nobody looks here: so what goes in prolongs the bucket too, lest that be forgotten first
 *     owners     hash: owner -> alive until (epoch ms), since (microseconds, start of its unbroken presence)
 *
 * A digest of zeros is "not compared".
 */

import { createHash } from 'node:crypto'

/** A script and the name by which Redis knows it once loaded. */
export interface Script {
  readonly lua: string
  readonly sha: string
}

/**
 * A bucket takes no more than this, 992 entries; when more come, all go to its overflow. Every claim has Lua read all of a bucket, which costs
 * Redis more than 1 µs per KiB (Lua hashes each byte of a string), and beyond 16,000 bytes, where Redis copies once more, half as much
 * again. Never to be raised: a bucket that was full, and then is not, would hide its overflow.
 */
export const BUCKET_BYTES_MAX = 15_872

/** A field takes no more than this, so that looking into one stays cheap whatever ids a producer invents. */
export const FIELD_BYTES_MAX = 32 * 1024

const COMMON = String.raw`
local call, sub, search = redis.call, string.sub, string.find
local HEAD, NONE = '<c1dI4I4I4Bc8', string.rep('\0', 8)
local time = call('TIME')
local us = time[1] * 1000000 + time[2]
local ms = math.floor(us / 1000)

local function differ(a, b)
  local none = sub(NONE, 1, #a)
  return a ~= b and a ~= none and b ~= none
end

-- The five bytes kept beside an identity, or nil.
local function find(bucket, identity)
  local from = 1
  while true do
    local i = search(bucket, identity, from, true)
    if not i then return nil end
    if (i - 1) % 16 == 0 then return sub(bucket, i + 11, i + 15) end
    from = i + 1
  end
end

-- Of an overflow; fixed, for it decides where an id is found again.
local function fieldOf(identity)
  return string.char(string.byte(identity, 2) % 128)
end

-- All that is left of a bucket whose entries are in its overflow.
local MOVED = 'moved'

-- The same of a bucket and, if it is or was full, of its overflow.
local function findPacked(bucket, overflow, identity)
  if bucket ~= MOVED then
    local done = find(bucket, identity)
    if done or #bucket + 16 <= ${BUCKET_BYTES_MAX} then return done end
  end
  return find(call('HGET', overflow, fieldOf(identity)) or '', identity)
end

local function aliveUntil(owners, who)
  local entry = call('HGET', owners, who)
  if not entry then return 0, 0 end
  return struct.unpack('<dd', entry)
end

-- Prolongs an owner, at the latest when a third of its lease is gone; returns since when it has been here without a gap, packed.
local function keepAlive(owners, owner, leaseMs, force)
  local entry = call('HGET', owners, owner)
  local till = entry and struct.unpack('<d', entry) or 0
  local since = till > ms and sub(entry, 9, 16) or struct.pack('<d', us)
  if force or till - ms < leaseMs * 2 / 3 then
    call('HSET', owners, owner, struct.pack('<d', ms + leaseMs) .. since)
    if call('PTTL', owners) < leaseMs * 10 then call('PEXPIRE', owners, leaseMs * 20) end
  end
  return since
end
`

/**
 * Claims.
 * KEYS: s owner hashes, n live keys, the buckets, each followed by its overflow. ARGV: owner, payload: a header `n s retentionMs
 * leaseMs maxStarts`, then 43 bytes per claim `shard bucket identity`, followed by a first lease as it is stored after its fence:
 * `attempt generation 1 0 digest sequence` (bucket: its number among the last keys; 0: the id is not packed).
 * Returns 17 bytes per claim `status number attempt-or-generation starts` (status 9: a first lease, its attempt is the claim's),
 * then 8 bytes per owner hash: its `since`.
 * Races: none; two owners' claims of one id come one after the other, and the liveness of the holder is read right here.
 * A message that nobody has seen costs one search of its bucket and one command; only what is known already is looked at closely.
 */
const CLAIM = `
local owner, payload = ARGV[1], ARGV[2]
local n, s, retention, leaseMs, maxStarts, at = struct.unpack('<I2I2ddd', payload)
local remembered = string.format('%.0f', retention)
local first, granted = struct.pack('<c1d', 'L', us), struct.pack('<BdI4I4', 9, us, 0, 1)
local buckets, replies = {}, {}

local function reply(status, number, attempt, starts)
  return struct.pack('<BdI4I4', status, number, attempt, starts)
end

local function grant(exhausted, fence, attempt, starts)
  return reply(exhausted == 1 and 7 or 1, fence, attempt, starts)
end

local function lease(key, fence, attempt, generation, starts, exhausted, digest, sequence)
  fence = math.max(fence + 1, us)
  local head = struct.pack(HEAD, 'L', fence, attempt, generation, starts, exhausted, digest)
  call('SET', key, head .. struct.pack('<d', sequence) .. owner, 'PX', remembered)
  return grant(exhausted, fence, attempt, starts)
end

local function wait(till)
  return reply(2, math.max(1, math.ceil(math.min(math.max((till - us / 1000) / 3, 250), leaseMs / 3))), 0, 0)
end

local function packed(done, at)
  if differ(sub(done, 1, 3), sub(payload, at + 27, at + 29)) then return reply(6, 0, 0, 0) end
  return reply(8, struct.unpack('<H', sub(done, 4, 5)), 0, 0)
end

local function known(key, value, owners, at)
  local attempt, generation, _, _, digest, sequence = struct.unpack('<I4I4I4Bc8d', payload, at + 14)
  local state, fence, hadAttempt, hadGeneration, starts, exhausted, hadDigest, after = struct.unpack(HEAD, value)
  local newer = state ~= 'C' and generation > hadGeneration
  if not newer and differ(hadDigest, digest) then return reply(6, 0, 0, 0) end
  if state == 'C' then return reply(4, fence, 0, 0) end
  if generation < hadGeneration or (state == 'D' and not newer) then return reply(5, 0, hadGeneration, 0) end
  if state == 'L' then
    local holder = sub(value, after + 8)
    if holder == owner then
      if struct.unpack('<d', value, after) == sequence then return grant(exhausted, fence, hadAttempt, starts) end
    else
      local till = aliveUntil(owners, holder)
      if till * 1000 > us then return wait(till) end
    end
  end
  if newer then return lease(key, fence, attempt, generation, 1, 0, digest, sequence) end
  if state ~= 'L' and attempt < hadAttempt then return reply(3, fence, hadAttempt, 0) end
  if hadDigest == NONE then hadDigest = digest end
  attempt = math.max(attempt, hadAttempt)
  if starts >= maxStarts then return lease(key, fence, attempt, generation, starts, 1, hadDigest, sequence) end
  return lease(key, fence, attempt, generation, starts + 1, 0, hadDigest, sequence)
end

for i = 1, s do replies[n + i] = keepAlive(KEYS[i], owner, leaseMs, false) end
for i = 1, n do
  local key = KEYS[s + i]
  local shard, low, high = string.byte(payload, at, at + 2)
  local b, done, value = low + high * 256, nil, nil
  if b > 0 then
    local bucket = buckets[b]
    if not bucket then
      bucket = call('GET', KEYS[s + n + b]) or ''
      buckets[b] = bucket
    end
    done = findPacked(bucket, KEYS[s + n + b + 1], sub(payload, at + 3, at + 13))
  end
  if done then value = call('GET', key)
  else value = call('SET', key, first .. sub(payload, at + 14, at + 42) .. owner, 'NX', 'GET', 'PX', remembered) end
  if value then replies[i] = known(key, value, KEYS[shard], at)
  else replies[i] = done and packed(done, at) or granted end
  at = at + 43
end
return table.concat(replies)
`

/**
 * Settles.
 * KEYS: n live keys, the buckets, each followed by its overflow. ARGV: owner, payload: a header `n retentionMs`, then 43 bytes
 * per settlement `ending bucket number idMs L fence digest identity` (ending: 1 completed, 2 failed, 3 returned, 4 dead).
 * Returns one byte per settlement: 1 settled, 2 already, 3 lost.
 * Reads and decides all first, then writes: additions before removals, so that a refused write loses nothing.
 * A completion whose record is plainly the settler's lease is not taken apart; whatever is in doubt is.
 */
const SETTLE = `
local owner, payload = ARGV[1], ARGV[2]
local n, retention, at = struct.unpack('<I2d', payload)
local remembered = string.format('%.0f', retention)
local values = call('MGET', unpack(KEYS, 1, n))
local written, touched, buckets, entries, lengths, spilled, moved, replies = {}, {}, {}, {}, {}, {}, {}, {}

local function write(key, value)
  written[key] = value
  touched[#touched + 1] = key
end

local function release(key, state, fence, attempt, generation, starts, digest)
  write(key, struct.pack(HEAD, state, fence, attempt, generation, starts, 0, digest))
end

-- Everything in a full bucket goes to its overflow, unless a field has no room: then the bucket stays beside it.
local function move(b)
  local bucket, parts, fields = call('GET', KEYS[n + b]) .. (entries[b] or ''), {}, {}
  for i = 1, #bucket, 16 do
    local field = fieldOf(sub(bucket, i, i + 10))
    local part = parts[field] or { call('HGET', KEYS[n + b + 1], field) or '' }
    part[#part + 1] = sub(bucket, i, i + 15)
    parts[field] = part
  end
  for field, part in pairs(parts) do
    fields[field] = table.concat(part)
    if #fields[field] > ${FIELD_BYTES_MAX} then return end
  end
  spilled[b], moved[b], entries[b], lengths[b] = fields, true, nil, #MOVED
end

-- Into the overflow; false if there is no room either.
local function spill(b, identity, entry)
  if lengths[b] ~= #MOVED and not spilled[b] then move(b) end
  local fields, field = spilled[b] or {}, fieldOf(identity)
  local value = fields[field] or call('HGET', KEYS[n + b + 1], field) or ''
  if #value + 16 > ${FIELD_BYTES_MAX} then return false end
  fields[field] = value .. entry
  spilled[b] = fields
  return true
end

-- False if there is no room anywhere.
local function pack(b, identity, digest, at)
  local minutes = math.max(0, math.min(65535, math.floor((ms - struct.unpack('<d', payload, at + 7)) / 60000)))
  local entry = identity .. sub(digest, 1, 3) .. string.char(minutes % 256, math.floor(minutes / 256))
  local length = lengths[b] or call('STRLEN', KEYS[n + b])
  lengths[b] = length
  if length == #MOVED or length + 16 > ${BUCKET_BYTES_MAX} then return spill(b, identity, entry) end
  lengths[b] = length + 16
  entries[b] = entries[b] and entries[b] .. entry or entry
  return true
end

local function complete(key, b, identity, digest, at)
  if b > 0 and pack(b, identity, digest, at) then return write(key, false) end
  write(key, struct.pack(HEAD, 'C', ms, 0, 0, 0, 0, digest))
end

-- Before this call, or by it.
local function isPacked(b, identity)
  if b == 0 then return nil end
  if not buckets[b] then buckets[b] = call('GET', KEYS[n + b]) or '' end
  local field = spilled[b] and spilled[b][fieldOf(identity)]
  return findPacked(buckets[b], KEYS[n + b + 1], identity) or find(entries[b] or '', identity) or find(field or '', identity)
end

local function settle(key, value, b, identity, at)
  local ending, _, number, _, _, token, digest = struct.unpack('<BHI4dc1dc8', payload, at)
  if not value then
    if isPacked(b, identity) then return 2 end
    if ending == 1 then complete(key, b, identity, digest, at)
    elseif ending == 2 then release(key, 'F', token, number, 0, 0, digest)
    elseif ending == 4 then release(key, 'D', token, 1, number, 0, digest) end
    return 1
  end
  local state, fence, attempt, generation, starts, exhausted, hadDigest, after = struct.unpack(HEAD, value)
  if state == 'C' then return 2 end
  if fence ~= token then return 3 end
  if hadDigest ~= NONE then digest = hadDigest end
  if state == 'F' and ending == 4 then
    release(key, 'D', fence, attempt, number, starts, digest)
    return 1
  end
  if state == 'F' then return ending == 2 and attempt == number and 1 or 3 end
  if state == 'R' then return ending == 3 and 1 or 3 end
  if state == 'D' then return ending == 4 and generation == number and 1 or 3 end
  if sub(value, after + 8) ~= owner then return 3 end
  if ending == 1 then complete(key, b, identity, digest, at)
  elseif ending == 2 then release(key, 'F', fence, number, generation, 0, digest)
  elseif ending == 3 then release(key, 'R', fence, attempt, generation, exhausted == 1 and starts or starts - 1, digest)
  else release(key, 'D', fence, attempt, number, starts, digest) end
  return 1
end

for i = 1, n do
  local key = KEYS[i]
  local ending, low, high = string.byte(payload, at, at + 2)
  local b, identity = low + high * 256, sub(payload, at + 32, at + 42)
  local value = written[key]
  if value == nil then value = values[i] end
  if ending == 1 and value and sub(value, 1, 9) == sub(payload, at + 15, at + 23) and sub(value, 39) == owner then
    local digest = sub(value, 23, 30)
    if digest == NONE then digest = sub(payload, at + 24, at + 31) end
    complete(key, b, identity, digest, at)
    replies[i] = 1
  else
    replies[i] = settle(key, value, b, identity, at)
  end
  at = at + 43
end

local function prolong(key, atLeast)
  local left, enough = call('PTTL', key), atLeast
  if left < retention then enough = math.max(enough, math.ceil(retention + retention / 64)) end
  if left < enough then call('PEXPIRE', key, string.format('%.0f', enough)) end
end

for b, more in pairs(entries) do
  call('APPEND', KEYS[n + b], more)
  prolong(KEYS[n + b], 0)
end
for b, fields in pairs(spilled) do
  local set = {}
  for field, value in pairs(fields) do
    set[#set + 1] = field
    set[#set + 1] = value
  end
  call('HSET', KEYS[n + b + 1], unpack(set))
  prolong(KEYS[n + b + 1], moved[b] and call('PTTL', KEYS[n + b]) or 0)
  if moved[b] then call('SET', KEYS[n + b], MOVED, 'KEEPTTL') end
  prolong(KEYS[n + b], 0)
end
local gone = {}
for _, key in ipairs(touched) do
  if written[key] then call('SET', key, written[key], 'PX', remembered)
  else gone[#gone + 1] = key end
end
if #gone > 0 then call('DEL', unpack(gone)) end
return string.char(unpack(replies))
`

/**
 * Renews one owner in each of its shards, or takes it out.
 * KEYS: owner hashes. ARGV: owner, payload `leaseMs leave`. Returns 8 bytes per hash: `since` (0: it was not here, when leaving).
 * Owners that fell silent are swept on the way; a claim would have taken over from them all the same.
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
  local all = redis.call('HGETALL', owners)
  for j = 1, #all, 2 do
    if struct.unpack('<d', all[j + 1]) <= ms then redis.call('HDEL', owners, all[j]) end
  end
  sinces[i] = since
end
return table.concat(sinces)
`

/**
 * Reads and changes nothing.
 * KEYS: s owner hashes, n live keys, the buckets, each followed by its overflow. ARGV: payload: a header `n s`, then per id `shard bucket identity`.
 * Returns one string per id: empty (absent), `P` and the entry's five bytes, or `0`/`1` (holder alive) and the live value.
 */
const LOOK = `
local payload = ARGV[1]
local n, s, at = struct.unpack('<I2I2', payload)
local replies = {}
for i = 1, n do
  local shard, b, identity
  shard, b, identity, at = struct.unpack('<BHc11', payload, at)
  local value = redis.call('GET', KEYS[s + i])
  if value then
    local state, _, _, _, _, _, _, after = struct.unpack(HEAD, value)
    local alive = state == 'L' and aliveUntil(KEYS[shard], string.sub(value, after + 8)) > ms
    replies[i] = (alive and '1' or '0') .. value
  else
    local done = b > 0 and findPacked(redis.call('GET', KEYS[s + n + b]) or '', KEYS[s + n + b + 1], identity)
    replies[i] = done and 'P' .. done or ''
  end
end
return replies
`

/**
 * Gives back what Redis reserved beyond the length of buckets that have stopped growing (APPEND reserves twice the length; an
 * overflow is written without).
 * KEYS: buckets. No ARGV. Races: none; a bucket that grows again is only larger than it need be.
 */
const COMPACT = `
for _, bucket in ipairs(KEYS) do
  local length = redis.call('STRLEN', bucket)
  if length > 0 and redis.call('MEMORY', 'USAGE', bucket) > length * 1.25 + 150 then
    redis.call('SET', bucket, redis.call('GET', bucket), 'KEEPTTL')
  end
end
return 0
`

export const claimScript = script(COMMON + CLAIM)
export const settleScript = script(COMMON + SETTLE)
export const renewScript = script(COMMON + RENEW)
export const lookScript = script(COMMON + LOOK)
export const compactScript = script(COMPACT)

function script(lua: string): Script {
  return { lua, sha: createHash('sha1').update(lua).digest('hex') }
}
