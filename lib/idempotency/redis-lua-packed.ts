/**
 * The Lua that all scripts of the Redis store share: time, presence of owners, and where completed ids are kept.
 *
 * What is stored (all numbers little-endian):
 *
 *     live key   state, fence, attempt, generation, starts, exhausted, digest[8]; a lease adds its sequence and owner.
 *                States: L leased, F released by failure, R returned, D dead, C completed (fence is then epoch ms)
 *     bucket     entries of 16 bytes: identity[11] digest[3] minutes[2], appended; see `redis-packing.ts`
 *     overflow   hash: such entries by the time in their ids, 128 slices of 128 ms; what a full slice cannot take is in one of its 8 parts.
 *                Takes all of a bucket that got full. `moved` is what is left of that then, and without it nobody looks here: so
 *                what goes in prolongs the bucket too, lest that be forgotten first
 *     archive    entries of 17 bytes, of what were small buckets of 64 windows: identity[11] window[1] digest[3] minutes[2]. The window, of
 *                those 64, belongs to the identity: the same random bits in another window are another id
 *     owners     hash: owner -> alive until (epoch ms), since (microseconds, start of its unbroken presence). The key lives longer than
 *                the memory of any owner in it: whoever writes prolongs it to what its own needs, and nobody shortens it
 *
 * A digest of zeros is "not compared". What is full stays full: nothing is taken out of a bucket but all of it, and nothing out of a slice.
 */

/**
 * A bucket takes no more than this, 992 entries, and an archive too; when more come, all go to the bucket's overflow. Every claim has Lua read
 * all of a bucket, which costs Redis more than 1 µs per KiB (Lua hashes each byte of a string), and beyond 16,000 bytes, where Redis copies
 * once more, half as much again. Never to be raised: a bucket that was full, and then is not, would hide its overflow.
 */
export const BUCKET_BYTES_MAX = 15_872

/**
 * A slice takes no more than this, 128 entries: enough for 16,000 ids per second; what it cannot take goes to its parts. Ids that are
 * claimed together were mostly made together, so a slice is read, and written, once for many. Never to be raised: a slice that was full,
 * and then is not, would hide its parts.
 */
export const SLICE_BYTES_MAX = 2_048

/** A part takes no more than this, so that looking into one stays cheap whatever ids a producer invents. */
export const PART_BYTES_MAX = 16 * 1024

/** Buckets of no more than this, 32 entries, go to the archive: in those that are larger the key is a small part. */
export const SMALL_BUCKET_BYTES = 512

/**
 * An entry counts the minutes from the time in the id to its completion: up to 42 days, or, for the id of a clock that is ahead, back so
 * many (the greatest of the 65,536 numbers). Completed earlier or later than that, an id has a key of its own.
 */
export const MINUTES_AHEAD = 4_096

/**
 * How long an owner is remembered at least after it fell silent, ms, and never shorter than its lease: so long it is known that it was
 * away. One that leaves is forgotten at once.
 */
export const SILENT_KEPT_MS = 3_600_000

/** KEYS of each packed place, one after the other: the bucket, its overflow, its archive. */
export const PACKED = String.raw`
local call, sub, search = redis.call, string.sub, string.find
local HEAD, NONE = '<c1dI4I4I4Bc8', string.rep('\0', 8)
local time = call('TIME')
local us = time[1] * 1000000 + time[2]
local ms = math.floor(us / 1000)

local function differ(a, b)
  local none = sub(NONE, 1, #a)
  return a ~= b and a ~= none and b ~= none
end

-- The five bytes kept behind an identity, or nil. An entry is both.
local function find(entries, identity)
  local from, length = 1, #identity
  while true do
    local i = search(entries, identity, from, true)
    if not i then return nil end
    if (i - 1) % (length + 5) == 0 then return sub(entries, i + length, i + length + 4) end
    from = i + 1
  end
end

-- The slice of an overflow, and the part of a slice: fixed, for they decide where an id is found again.
local function sliceOf(identity)
  local high, low = string.byte(identity, 10, 11)
  return string.char(high % 64 * 2 + math.floor(low / 128))
end
local function partOf(identity)
  return sliceOf(identity) .. string.char(string.byte(identity, 1) % 8)
end

-- All that is left of a bucket whose entries are in its overflow.
local MOVED = 'moved'

-- A packed place, as it was before this call; its fields are read when they are asked for.
local function open(at)
  return { at = at, bucket = call('GET', KEYS[at]) or '', archive = call('GET', KEYS[at + 2]) or '', fields = {} }
end

local function findArchived(place, identity)
  if place.archive == '' then return nil end
  local window = tonumber(string.match(KEYS[place.at], '[^:]*$'), 36)
  return find(place.archive, identity .. string.char(window % 64))
end

local function fieldOf(place, name)
  local value = place.fields[name]
  if not value then
    value = call('HGET', KEYS[place.at + 1], name) or ''
    place.fields[name] = value
  end
  return value
end

-- What find() finds, wherever it is.
local function findPacked(place, identity)
  local bucket, moved = place.bucket, place.bucket == MOVED
  local done = not moved and find(bucket, identity) or findArchived(place, identity)
  if done or (not moved and #bucket + 16 <= ${BUCKET_BYTES_MAX}) then return done end
  local slice = fieldOf(place, sliceOf(identity))
  done = find(slice, identity)
  if done or #slice + 16 <= ${SLICE_BYTES_MAX} then return done end
  return find(fieldOf(place, partOf(identity)), identity)
end

local function aliveUntil(owners, who)
  local entry = call('HGET', owners, who)
  if not entry then return 0, 0 end
  return struct.unpack('<dd', entry)
end

-- How long an owner is remembered after its last lease.
local function keptFor(leaseMs) return math.max(leaseMs, ${SILENT_KEPT_MS}) end

-- Prolongs an owner, at the latest when a third of its lease is gone. Returns since when it has been here without a gap, packed, and
-- whether it was away (as record.ts has it).
local function keepAlive(owners, owner, leaseMs, force)
  local entry = call('HGET', owners, owner)
  local till = entry and struct.unpack('<d', entry) or 0
  local since = till > ms and sub(entry, 9, 16) or struct.pack('<d', us)
  if force or till - ms < leaseMs * 2 / 3 then
    call('HSET', owners, owner, struct.pack('<d', ms + leaseMs) .. since)
    local needed = leaseMs + keptFor(leaseMs)
    if call('PTTL', owners) < needed then call('PEXPIRE', owners, needed * 2) end
  end
  return since, entry and till - us / 1000 < leaseMs / 2
end
`
