/**
 * The Lua that ends leases: how a message ended becomes what is remembered of it.
 * Promises: see the script. What is refused (a lost lease, a Redis that takes no writes) changes nothing.
 */
import { BUCKET_BYTES_MAX, MINUTES_AHEAD, PART_BYTES_MAX, SLICE_BYTES_MAX } from './redis-lua-packed.ts'

/**
 * Settles.
 * KEYS: n live keys, the packed places. ARGV: owner, payload: a header `n retentionMs`, then 43 bytes
 * per settlement `ending place number idMs L fence digest identity` (ending: 1 completed, 2 failed, 3 returned, 4 dead).
 * Returns one byte per settlement: 1 settled, 2 already, 3 lost.
 * Reads and decides all first, then writes: additions before removals, so that a refused write loses nothing.
 * A completion whose record is plainly the settler's lease is not taken apart; whatever is in doubt is.
 */
export const SETTLE = `
local owner, payload = ARGV[1], ARGV[2]
local n, retention, at = struct.unpack('<I2d', payload)
local remembered = string.format('%.0f', retention)
local values = call('MGET', unpack(KEYS, 1, n))
local written, touched, opened, additions, replies = {}, {}, {}, {}, {}

local function write(key, value)
  written[key] = value
  touched[#touched + 1] = key
end

local function release(key, state, fence, attempt, generation, starts, digest)
  write(key, struct.pack(HEAD, state, fence, attempt, generation, starts, 0, digest))
end

-- What this call adds to a packed place: to its bucket, to the fields of its overflow.
local function additionsTo(b)
  local added = additions[b]
  if not added then
    added = { bucket = {}, length = call('STRLEN', KEYS[n + b]), fields = {}, lengths = {}, moved = false, stuck = false }
    additions[b] = added
  end
  return added
end

local function put(added, b, name, entry, most)
  local length = added.lengths[name] or call('HSTRLEN', KEYS[n + b + 1], name)
  local fits = length + 16 <= most
  added.lengths[name] = fits and length + 16 or length
  if not fits then return false end
  local more = added.fields[name]
  if more then more[#more + 1] = entry else added.fields[name] = { entry } end
  return true
end

-- Into the overflow; false if there is no room.
local function spill(added, b, identity, entry)
  return put(added, b, sliceOf(identity), entry, ${SLICE_BYTES_MAX}) or put(added, b, partOf(identity), entry, ${PART_BYTES_MAX})
end

-- Everything in a full bucket goes to its overflow, unless there is no room: then the bucket stays beside it. Before anything else is spilled.
local function move(added, b)
  local bucket = call('GET', KEYS[n + b]) .. table.concat(added.bucket)
  for i = 1, #bucket, 16 do
    if not spill(added, b, sub(bucket, i, i + 10), sub(bucket, i, i + 15)) then
      added.fields, added.lengths, added.stuck = {}, {}, true
      return
    end
  end
  added.bucket, added.length, added.moved = {}, #MOVED, true
end

-- False if there is no room anywhere, or if the id's own time is so far from now that an entry could not say when it was completed.
local function pack(b, identity, digest, at)
  local minutes = math.floor((ms - struct.unpack('<d', payload, at + 7)) / 60000)
  if minutes < -${MINUTES_AHEAD} or minutes >= 65536 - ${MINUTES_AHEAD} then return false end
  local entry = identity .. sub(digest, 1, 3) .. string.char(minutes % 256, math.floor(minutes / 256) % 256)
  local added = additionsTo(b)
  if added.length ~= #MOVED then
    if added.length + 16 <= ${BUCKET_BYTES_MAX} then
      added.length = added.length + 16
      added.bucket[#added.bucket + 1] = entry
      return true
    end
    if not added.stuck then move(added, b) end
  end
  return spill(added, b, identity, entry)
end

local function complete(key, b, identity, digest, at)
  if b > 0 and pack(b, identity, digest, at) then return write(key, false) end
  write(key, struct.pack(HEAD, 'C', ms, 0, 0, 0, 0, digest))
end

-- Before this call, or by it.
local function isPacked(b, identity)
  if b == 0 then return nil end
  if not opened[b] then opened[b] = open(n + b) end
  local added = additions[b] or { bucket = {}, fields = {} }
  local function isAmong(entries) return entries and find(table.concat(entries), identity) end
  return findPacked(opened[b], identity) or isAmong(added.bucket)
    or isAmong(added.fields[sliceOf(identity)]) or isAmong(added.fields[partOf(identity)])
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

for b, added in pairs(additions) do
  local bucket, overflow, set = KEYS[n + b], KEYS[n + b + 1], {}
  if #added.bucket > 0 then call('APPEND', bucket, table.concat(added.bucket)) end
  for name, more in pairs(added.fields) do
    set[#set + 1] = name
    set[#set + 1] = (call('HGET', overflow, name) or '') .. table.concat(more)
  end
  if #set > 0 then
    call('HSET', overflow, unpack(set))
    prolong(overflow, added.moved and call('PTTL', bucket) or 0)
    if added.moved then call('SET', bucket, MOVED, 'KEEPTTL') end
  end
  prolong(bucket, 0)
end
local gone = {}
for _, key in ipairs(touched) do
  if written[key] then call('SET', key, written[key], 'PX', remembered)
  else gone[#gone + 1] = key end
end
if #gone > 0 then call('DEL', unpack(gone)) end
return string.char(unpack(replies))
`
