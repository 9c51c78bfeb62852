/** The Lua that answers claims: the decision of `record.ts` on a claim, once more. */
import { RENEWAL_GRACE_MS } from './record.ts'

/**
 * Claims.
 * KEYS: s owner hashes, n live keys, the packed places. ARGV: owner, payload: a header `n s retentionMs
 * leaseMs maxStarts`, then 43 bytes per claim `shard place identity`, followed by a first lease as it is stored after its fence:
 * `attempt generation 1 0 digest sequence` (place: the number of its first key among the last keys; 0: the id is not packed).
 * Returns 17 bytes per claim `status number attempt-or-generation starts` (status 9: a first lease, its attempt is the claim's),
 * then 8 bytes per owner hash: its `since`.
 * Races: none; two owners' claims of one id come one after the other, and the liveness of the holder is read right here. So is that
 * of the asker: a claim that lay in the socket of a frozen Redis is executed before the renewals that lie behind it, and takes nobody over.
 * A message that nobody has seen costs one search where it would be and one command; only what is known already is looked at closely.
 */
export const CLAIM = `
local owner, payload = ARGV[1], ARGV[2]
local n, s, retention, leaseMs, maxStarts, at = struct.unpack('<I2I2ddd', payload)
local remembered = string.format('%.0f', retention)
local first, granted = struct.pack('<c1d', 'L', us), struct.pack('<BdI4I4', 9, us, 0, 1)
local places, replies, away = {}, {}, {}

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

local function known(key, value, shard, at)
  local attempt, generation, _, _, digest, sequence = struct.unpack('<I4I4I4Bc8d', payload, at + 14)
  local state, fence, hadAttempt, hadGeneration, starts, exhausted, hadDigest, after = struct.unpack(HEAD, value)
  local newer = state ~= 'C' and generation > hadGeneration
  if not newer and differ(hadDigest, digest) then return reply(6, 0, 0, 0) end
  if state == 'C' then return reply(4, fence, 0, 0) end
  if generation < hadGeneration or (state == 'D' and not newer) then return reply(5, 0, hadGeneration, 0) end
  if state == 'L' then
    local holder = sub(value, after + 8)
    if holder == owner then
      local had = struct.unpack('<d', value, after)
      if had == sequence then return grant(exhausted, fence, hadAttempt, starts) end
      if had > sequence then return wait(0) end
    else
      local till = aliveUntil(KEYS[shard], holder)
      if till * 1000 > us then return wait(till) end
      if till > 0 and away[shard] then return reply(2, math.ceil(math.min(${RENEWAL_GRACE_MS}, leaseMs)), 0, 0) end
    end
  end
  if newer then return lease(key, fence, attempt, generation, 1, 0, digest, sequence) end
  if state ~= 'L' and attempt < hadAttempt then return reply(3, fence, hadAttempt, 0) end
  if hadDigest == NONE then hadDigest = digest end
  attempt = math.max(attempt, hadAttempt)
  if starts >= maxStarts then return lease(key, fence, attempt, generation, starts, 1, hadDigest, sequence) end
  return lease(key, fence, attempt, generation, starts + 1, 0, hadDigest, sequence)
end

for i = 1, s do replies[n + i], away[i] = keepAlive(KEYS[i], owner, leaseMs, false) end
for i = 1, n do
  local key = KEYS[s + i]
  local shard, low, high = string.byte(payload, at, at + 2)
  local b, done, value = low + high * 256, nil, nil
  if b > 0 then
    local place = places[b]
    if not place then
      place = open(s + n + b)
      places[b] = place
    end
    done = findPacked(place, sub(payload, at + 3, at + 13))
  end
  if done then value = call('GET', key)
  else value = call('SET', key, first .. sub(payload, at + 14, at + 42) .. owner, 'NX', 'GET', 'PX', remembered) end
  if value then replies[i] = known(key, value, shard, at)
  else replies[i] = done and packed(done, at) or granted end
  at = at + 43
end
return table.concat(replies)
`
