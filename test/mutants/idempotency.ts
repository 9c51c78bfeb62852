// Faults in who may run a message and who may end it: memory, Redis (Lua) and Postgres (SQL).

import { type Mutant, tests } from './mutant.ts'

const CONTRACT = 'test/idempotency/contract.test.ts'
const POSTGRES = 'test/idempotency/postgres-model.test.ts'
const RACES = 'test/idempotency/postgres-races.test.ts'
const LOST = 'test/idempotency/lost-replies.test.ts'
const RECORD = 'lib/idempotency/record.ts'
const LUA = 'lib/idempotency/redis-scripts.ts'
const KEPT = 'test/idempotency/redis-memory.test.ts'
const OWNER_CHECK = "if (record.owner !== owner) return { result: 'lost', record }"

/** See the head of this file. */
export const idempotencyMutants: readonly Mutant[] = [
  {
    name: 'record-complete-without-owner',
    breaks: 'whoever knows the token completes another owner’s lease (decisions of memory and Postgres)',
    file: RECORD,
    from: OWNER_CHECK,
    to: "if (record.owner !== owner && settlement.ending.state !== 'completed') return { result: 'lost', record }",
    tests: tests(CONTRACT, 'MemoryIdempotencyStore changes nothing for an owner that was taken over'),
  },
  {
    name: 'record-release-without-owner',
    breaks: 'whoever knows the token releases another owner’s lease (decisions of memory and Postgres)',
    file: RECORD,
    from: OWNER_CHECK,
    to: "if (record.owner !== owner && settlement.ending.state === 'completed') return { result: 'lost', record }",
    tests: tests(CONTRACT, 'MemoryIdempotencyStore changes nothing for an owner that was taken over'),
  },
  {
    name: 'postgres-settle-without-owner',
    breaks: 'the same on Postgres, completing and releasing',
    file: RECORD,
    from: OWNER_CHECK,
    to: '',
    tests: tests(POSTGRES, 'PostgresIdempotencyStore changes nothing for an owner that was taken over'),
  },
  {
    name: 'record-settle-without-token',
    breaks: 'an owner completes with the token of a lease it had before',
    file: RECORD,
    from: "if (record.fence !== settlement.fencingToken) return { result: 'lost', record }",
    to: '',
    tests: tests(CONTRACT, 'MemoryIdempotencyStore grants the same owner anew for another delivery'),
  },
  {
    name: 'redis-late-letter-off-the-record',
    breaks: 'Redis does not take the letter of an attempt that is recorded as failed',
    file: LUA,
    from: "if state == 'F' and ending == 4 then",
    to: "if state == 'F' and ending == 5 then",
    tests: tests(CONTRACT, 'RedisIdempotencyStore on a lent client settles a failed attempt dead'),
  },
  {
    name: 'record-two-live-owners',
    breaks: 'a lease is taken from an owner that lives',
    file: RECORD,
    from: 'if (!mine && asked.holderUntilMs * 1000 > asked.nowUs) {',
    to: 'if (!mine && asked.holderUntilMs === asked.nowUs) {',
    tests: tests('test/idempotency/interleavings.test.ts', 'keep the promises in every interleaving'),
  },
  {
    name: 'record-completed-not-final',
    breaks: 'a completed message is run again',
    file: RECORD,
    from: "if (record.state === 'completed') return { result: { status: 'completed', completedAt: record.completedAt }, record }",
    to: "if (record.state === 'completed') return begin(undefined, asked)",
    tests: tests(CONTRACT, 'MemoryIdempotencyStore keeps completed final, for every generation'),
  },
  {
    name: 'record-token-not-growing',
    breaks: 'every lease of a message has the same fencing token',
    file: RECORD,
    from: 'const fence = Math.max(previousFence + 1, Math.floor(nowUs))',
    to: 'const fence = previousFence || Math.floor(nowUs)',
    tests: tests(CONTRACT, 'MemoryIdempotencyStore lets the next owner take over from one that left'),
  },
  {
    name: 'record-token-without-floor',
    breaks: 'tokens start anew when the store has forgotten the record',
    file: RECORD,
    from: 'const fence = Math.max(previousFence + 1, Math.floor(nowUs))',
    to: 'const fence = previousFence + 1',
    tests: tests('test/idempotency/interleavings.test.ts', 'keep the promises in every interleaving'),
  },
  {
    name: 'record-repeated-claim-starts-again',
    breaks: 'a claim whose reply was lost counts as another start when it is repeated',
    file: RECORD,
    from: 'if (mine && record.sequence === asked.claim.sequence) return { result: grantOf(record), record }',
    to: '',
    tests: tests(CONTRACT, 'MemoryIdempotencyStore gives a repeated claim'),
  },
  {
    name: 'memory-renew-never-lapsed',
    breaks: 'an owner that renewed too late is not told that its leases may be gone',
    file: 'lib/idempotency/memory.ts',
    from: 'if (known.untilMs <= nowMs) known.lapsed = true',
    to: '',
    tests: tests(CONTRACT, 'MemoryIdempotencyStore tells an owner that it renewed too late'),
  },
  {
    name: 'redis-complete-without-owner',
    breaks: 'the quick way of the Lua completes a lease of another owner',
    file: LUA,
    from: 'sub(value, 1, 9) == sub(payload, at + 15, at + 23) and sub(value, 39) == owner then',
    to: 'sub(value, 1, 9) == sub(payload, at + 15, at + 23) then',
    tests: tests(CONTRACT, 'RedisIdempotencyStore on a lent client changes nothing for an owner that was taken over'),
  },
  {
    name: 'redis-release-without-owner',
    breaks: 'the Lua releases a lease of another owner',
    file: LUA,
    from: 'if sub(value, after + 8) ~= owner then return 3 end',
    to: '',
    tests: tests(CONTRACT, 'RedisIdempotencyStore on a lent client changes nothing for an owner that was taken over'),
  },
  {
    name: 'redis-renew-never-lapsed',
    breaks: 'Redis takes the presence of an owner that fell silent for unbroken',
    file: LUA,
    from: "local since = till > ms and sub(entry, 9, 16) or struct.pack('<d', us)",
    to: "local since = entry and sub(entry, 9, 16) or struct.pack('<d', us)",
    tests: tests(LOST, 'the Redis store tells an owner that it was away too long'),
  },
  {
    name: 'redis-two-live-owners',
    breaks: 'the Lua takes a lease from an owner that lives',
    file: LUA,
    from: 'if till * 1000 > us then return wait(till) end',
    to: '',
    tests: tests(CONTRACT, 'RedisIdempotencyStore on a lent client lets one of many concurrent owners run'),
  },
  {
    name: 'redis-completed-not-final',
    breaks: 'a packed completion is overlooked: the message is run again',
    file: LUA,
    from: 'else replies[i] = done and packed(done, at) or granted end',
    to: 'else replies[i] = granted end',
    tests: tests(CONTRACT, 'RedisIdempotencyStore on a lent client keeps completed final'),
  },
  {
    name: 'redis-claim-without-overflow',
    breaks: 'a claim does not look into the overflow of a full bucket: the message is run again',
    file: LUA,
    from: 'done = findPacked(bucket, KEYS[s + n + b + 1], sub(payload, at + 3, at + 13))',
    to: 'done = find(bucket, sub(payload, at + 3, at + 13))',
    tests: tests(KEPT, 'what the Redis store keeps goes to the overflow where a bucket is full'),
  },
  {
    name: 'redis-overflow-outlives-its-bucket',
    breaks: 'a full bucket is forgotten before its overflow, and what is in that with it',
    file: LUA,
    from: 'prolong(KEYS[n + b + 1])\n  prolong(KEYS[n + b])',
    to: 'prolong(KEYS[n + b + 1])',
    tests: tests(KEPT, 'what the Redis store keeps prolongs a full bucket together with its overflow'),
  },
  {
    name: 'redis-token-not-growing',
    breaks: 'the Lua gives every lease of a message the same fencing token',
    file: LUA,
    from: 'fence = math.max(fence + 1, us)',
    to: 'fence = math.max(fence, 1)',
    tests: tests(CONTRACT, 'RedisIdempotencyStore on a lent client lets the next owner take over from one that left'),
  },
  {
    name: 'postgres-renew-never-lapsed',
    breaks: 'Postgres takes the presence of an owner that fell silent for unbroken',
    file: 'lib/idempotency/postgres-statements.ts',
    from: 'since = CASE WHEN o.until <= clock_timestamp() THEN clock_timestamp() ELSE o.since END',
    to: 'since = o.since',
    tests: tests(LOST, 'the Postgres inbox tells an owner that it was away too long'),
  },
  {
    name: 'postgres-settle-without-lock',
    breaks: 'an ending and a takeover that meet both succeed',
    file: 'lib/idempotency/postgres-statements.ts',
    from: 'ORDER BY r.id FOR UPDATE',
    to: 'ORDER BY r.id',
    tests: tests(RACES, 'lets an ending or a takeover win, never both'),
  },
  {
    name: 'postgres-commit-without-fence',
    breaks: 'a handler that was taken over commits its effect all the same',
    file: 'lib/idempotency/postgres-completion.ts',
    from: 'AND fence = CAST($3 AS bigint)',
    to: 'AND CAST($3 AS bigint) IS NOT NULL',
    tests: tests('test/idempotency/postgres-transactional.test.ts', 'commits nothing after its lease was taken over'),
  },
  {
    name: 'inbox-record-outside-transaction',
    breaks: 'the record is not part of the handler’s transaction: a crash after the commit repeats the effect',
    file: 'lib/idempotency/postgres-transactional.ts',
    from: 'await complete(lent, lease, xid)',
    to: '',
    tests: tests(
      'test/idempotency/postgres-transactional.test.ts',
      'commits its work, its record and its publishes together',
    ),
  },
]
