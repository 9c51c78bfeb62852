/**
 * The Lua of the Redis decision store. One transaction is one hash, the only key a script writes:
 *
 *     decision, at (epoch ms), by, published (id of the half message), checks
 *
 * Nothing is written before the first write command: where Redis refuses it (OOM, READONLY, NOREPLICAS), nothing has changed.
 * Time is Redis' own. Races: none, a script runs alone.
 */
import { createHash } from 'node:crypto'
import type { Script } from '../idempotency/redis-scripts.ts'

const COMMON = `
local call = redis.call
local function view(key) return call('HMGET', key, 'decision', 'at', 'by', 'published', 'checks') end
local function now()
  local time = call('TIME')
  return time[1] .. string.format('%03d', math.floor(time[2] / 1000))
end
-- Never shorter than others have asked for.
local function remember()
  if call('PTTL', KEYS[1]) < tonumber(ARGV[1]) then call('PEXPIRE', KEYS[1], ARGV[1]) end
end
`

/** KEYS: the record. ARGV: retention ms, decision, by. Decides unless it is decided, which is then remembered for as long again; returns the view that stands. */
const DECIDE = `
if call('HEXISTS', KEYS[1], 'decision') == 0 then
  call('HSET', KEYS[1], 'decision', ARGV[2], 'at', now(), 'by', ARGV[3])
end
remember()
return view(KEYS[1])
`

/** KEYS: any number of records. Returns their views; changes nothing. */
const LOOK = `
local views = {}
for i, key in ipairs(KEYS) do views[i] = view(key) end
return views
`

/** KEYS: the record. ARGV: retention ms, half message. A rolled-back one stays as it is; a forgotten one is committed again. */
const PUBLISHED = `
local decision = call('HGET', KEYS[1], 'decision')
if decision == 'rolled-back' then return 0 end
if decision then call('HSET', KEYS[1], 'published', ARGV[2])
else call('HSET', KEYS[1], 'decision', 'committed', 'at', now(), 'by', 'service', 'published', ARGV[2]) end
call('PEXPIRE', KEYS[1], ARGV[1])
return 1
`

/** KEYS: the record. ARGV: retention ms. Returns the count. */
const CHECKED = `
local count = call('HINCRBY', KEYS[1], 'checks', 1)
remember()
return count
`

export const decideScript = script(DECIDE)
export const lookScript = script(LOOK)
export const publishedScript = script(PUBLISHED)
export const checkedScript = script(CHECKED)

function script(body: string): Script {
  const lua = COMMON + body
  return { lua, sha: createHash('sha1').update(lua).digest('hex') }
}
