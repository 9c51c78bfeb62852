// Requests and answers that get lost on the wire to a real Redis and a real Postgres, at every place of every operation; processes
// that start anew; other owners in between. The pure decisions, told what was executed, must tell the same of every record.
//
//   ingredient \ store                      memory                    Redis                      Postgres
//   several owners, any order               interleavings.test.ts     interleavings, model       postgres-model, postgres-races
//   expiry (silence), leaving, wiped store  model, contract.ts        model.test.ts, contract    postgres-model, contract
//   expiry in the middle of a renewal       (no middle)               (a script has no middle)   postgres-races.test.ts
//   answer ignored (as if lost)             interleavings.test.ts     interleavings.test.ts      postgres-model.test.ts
//   request lost, answer lost, on the wire  (no wire)                 here                       here, each statement
//   process starts anew under its name      (forgets)                 here                       here
//   process dies in the middle of a claim   (no middle)               (a script has no middle)   postgres-races, postgres-kills
//   late request (a frozen store)         interleavings.test.ts     frozen-store.test.ts      frozen-store.test.ts
//   late answer, frozen, down, full         (no wire)                 redis-outage.test.ts       postgres-outage.test.ts
//
//   Invariants: one live owner, completed is final, a zombie changes nothing, each record ends or can be claimed: all of these by what
//   the pure decisions do (`interleavings.test.ts` explores those with an observer of everything), and equality with them here.

import { randomUUID } from 'node:crypto'
import { expect } from 'chai'
import fc from 'fast-check'
import type { Ending, IdempotencyStore, Scope } from '../../lib/idempotency/idempotency.ts'
import { MemoryIdempotencyStore } from '../../lib/idempotency/memory.ts'
import { RedisIdempotencyStore } from '../../lib/idempotency/redis.ts'
import { type Loss, LossyStore } from './lossy-wire.ts'
import { type Command, command, HOUR, idsOfOneShard, Side } from './model-commands.ts'
import { sharedInbox } from './postgres-under-test.ts'
import { fillBuckets } from './redis-filler.ts'
import { sharedRedis, silence as silenceOwners } from './redis-under-test.ts'

type Step =
  | Command
  | { readonly kind: 'restart' }
  | { readonly kind: 'losing'; readonly command: Command; readonly loss: Loss }

/** A backend under test. */
interface Bench {
  readonly lossy: LossyStore
  /** Not over the wire that loses. */
  readonly direct: IdempotencyStore
  silence(scope: Scope): Promise<unknown>
  /** What others have done in this scope, beside these ids. */
  readonly crowd?: (scope: Scope, ids: readonly string[]) => Promise<unknown>
}

/** Plays steps on a real store over a lossy wire, beside the pure decisions. @returns whether something was lost */
async function play({ lossy, direct, silence, crowd }: Bench, steps: readonly Step[]): Promise<boolean> {
  const scope: Scope = { name: randomUUID(), retentionMs: 24 * HOUR, leaseMs: HOUR, maxStarts: 3 }
  const ids = idsOfOneShard()
  await crowd?.(scope, ids)
  let nowMs = Date.now()
  let lost = false
  const model = new MemoryIdempotencyStore({ now: () => ++nowMs })
  const left = new Side(() => model, scope, ids)
  const right = new Side(() => lossy.store, scope, ids)
  const seen = new Side(() => direct, scope, ids)
  const plain = async (command: Command) => {
    const [expected, actual] = [await left.answer(command), await right.answer(command)]
    // Of its presence a store knows more than its model, once answers were lost: see the test below.
    if (command.kind !== 'renew') expect(actual).to.deep.equal(expected)
  }
  for (const step of steps) {
    if (step.kind === 'restart') await lossy.restart()
    else if (step.kind === 'silence') {
      await silence(scope)
      nowMs += 2 * HOUR
    } else if (step.kind === 'losing') {
      const got = await lossy.losing(step.loss, () => right.answer(step.command))
      if ('executed' in got) {
        lost = true
        if (got.executed) await left.unheard(step.command)
      } else if (step.command.kind === 'renew') await left.answer(step.command)
      else expect(got.answer).to.deep.equal(await left.answer(step.command))
    } else if (step.kind !== 'wipe') await plain(step)
    expect(await seen.views(), JSON.stringify(step)).to.deep.equal(await left.views())
  }
  return lost
}

const claim = (owner: number, sequence: number): Command => ({
  kind: 'claim',
  owner,
  parts: [0, 1].map((id) => ({ id, generation: 0, attempt: 1, sequence, digest: 1 })),
})
const settle = (owner: number, ending: Ending): Command => ({
  kind: 'settle',
  owner,
  parts: [0, 1].map((id) => ({ id, grant: 0, off: 0, digest: 1, ending })),
})
const renew = (owner: number, leave: boolean): Command => ({ kind: 'renew', owner, leave })
const silence: Command = { kind: 'silence' }

/** What is under way when the wire fails, and what was before. */
const operations: Record<string, readonly [before: readonly Command[], lossy: Command]> = {
  'the first claim': [[], claim(0, 1)],
  'a claim that takes over': [[claim(1, 1), silence], claim(0, 1)],
  'a claim of what is held': [[claim(1, 1)], claim(0, 1)],
  'the record of a completion': [[claim(0, 1)], settle(0, { state: 'completed' })],
  'the record of a failure': [[claim(0, 1)], settle(0, { state: 'failed', nextAttempt: 2 })],
  'the record of a return': [[claim(0, 1)], settle(0, { state: 'returned' })],
  'the record of a dead letter': [[claim(0, 1)], settle(0, { state: 'dead', generation: 0 })],
  'the record of a zombie': [[claim(0, 1), silence, claim(1, 1)], settle(0, { state: 'completed' })],
  'a record the store knows nothing of': [[], settle(0, { state: 'completed' })],
  'a renewal': [[claim(0, 1)], renew(0, false)],
  'a renewal that comes too late': [[claim(0, 1), silence], renew(0, false)],
  leaving: [[claim(0, 1)], renew(0, true)],
}

/** How it goes on. */
const sequels: readonly ((lossy: Command) => readonly Step[])[] = [
  (lossy) => [lossy, claim(1, 9), claim(0, 8)],
  (lossy) => [claim(1, 9), lossy, settle(1, { state: 'completed' }), lossy],
  () => [{ kind: 'restart' }, claim(0, 7), settle(0, { state: 'completed' }), claim(1, 9)],
  (lossy) => [silence, claim(1, 9), lossy, settle(1, { state: 'failed', nextAttempt: 2 }), lossy, claim(2, 1)],
]

function losesWhateverIsLost(open: () => Promise<Bench & AsyncDisposable>, pieces: number): void {
  let bench: Bench & AsyncDisposable
  before(async () => {
    bench = await open()
  })
  after(() => bench[Symbol.asyncDispose]())

  for (const [name, [before, lossy]] of Object.entries(operations))
    it(`does what it did, and no more, when ${name} or its answer is lost anywhere on the way`, async () => {
      for (const lost of ['request', 'answer'] as const)
        for (let piece = 1, more = true; more && piece <= pieces; piece++)
          for (const sequel of sequels)
            more = await play(bench, [
              ...before,
              { kind: 'losing', command: lossy, loss: { lost, piece } },
              ...sequel(lossy),
            ])
    })

  it('answers as the pure decisions do, whatever is asked, lost and started anew', async () => {
    const loss = fc.record({
      lost: fc.constantFrom('request' as const, 'answer' as const),
      piece: fc.integer({ min: 1, max: pieces }),
    })
    const losing = fc.record({ kind: fc.constant('losing' as const), command, loss })
    const step: fc.Arbitrary<Step> = fc.oneof(
      { weight: 10, arbitrary: command },
      { weight: 3, arbitrary: losing.filter(({ command: { kind } }) => kind !== 'silence' && kind !== 'wipe') },
      { weight: 1, arbitrary: fc.constant<Step>({ kind: 'restart' }) },
    )
    await fc.assert(
      fc.asyncProperty(
        fc.array(step, { minLength: 3, maxLength: 15 }),
        async (steps) => void (await play(bench, steps)),
      ),
      { numRuns: Number(process.env['FC_RUNS'] ?? 40) },
    )
  })

  it('tells an owner that it was away too long, though the first answer that said so was lost', async () => {
    const scope: Scope = { name: randomUUID(), retentionMs: HOUR, leaseMs: HOUR, maxStarts: 3 }
    const { lossy, silence } = bench
    expect(await lossy.store.renew(scope, 'a')).to.equal('held')
    await silence(scope)
    const got = await lossy.losing({ lost: 'answer', piece: pieces === 1 ? 1 : 3 }, () => lossy.store.renew(scope, 'a'))
    expect(got).to.deep.equal({ executed: true })
    expect(await lossy.store.renew(scope, 'a')).to.equal('lapsed')
    expect(await lossy.store.renew(scope, 'a')).to.equal('held')
  })
}

describe('on a wire that loses requests and answers', function () {
  this.timeout(Number(process.env['FC_RUNS'] ? 3_600_000 : 240_000))

  for (const [name, room] of [
    ['the Redis store', undefined],
    ['the Redis store whose buckets become full', 1],
    ['the Redis store whose buckets are full', 0],
  ] as const)
    describe(name, () => {
      const redis = sharedRedis()
      const crowd = async (scope: Scope, ids: readonly string[]) => {
        if (room !== undefined) await fillBuckets(redis.client, scope.name, ids, room)
      }
      losesWhateverIsLost(async () => {
        const lossy = await LossyStore.redis(redis.url)
        const direct = new RedisIdempotencyStore(redis.client)
        // A script that Redis does not know costs one more answer.
        const scope: Scope = { name: randomUUID(), retentionMs: HOUR, leaseMs: HOUR, maxStarts: 3 }
        await direct.claim(scope, 'a', [{ id: 'a', digest: undefined, generation: 0, attempt: 1, sequence: 1 }])
        await direct.settle(scope, 'a', [
          { id: 'a', fencingToken: 1, digest: undefined, ending: { state: 'returned' } },
        ])
        await direct.renew(scope, 'a')
        const dispose = async () => {
          await lossy[Symbol.asyncDispose]()
          await direct.close()
        }
        const befall = ({ name }: Scope) => silenceOwners(redis.client, name)
        return { lossy, direct, silence: befall, crowd, [Symbol.asyncDispose]: dispose }
      }, 1)
    })

  describe('the Postgres inbox', () => {
    const inbox = sharedInbox()
    const silence = ({ name }: Scope) =>
      inbox.pool.query(
        `UPDATE ${inbox.schema}.inbox_owners SET until = least(until, clock_timestamp()) WHERE scope = $1`,
        [name],
      )
    losesWhateverIsLost(async () => {
      const { connectionString } = inbox.pool.options
      const lossy = await LossyStore.postgres(String(connectionString), inbox.schema)
      const direct = inbox.open()
      return { lossy, direct, silence, [Symbol.asyncDispose]: () => lossy[Symbol.asyncDispose]() }
    }, 9)
  })
})
