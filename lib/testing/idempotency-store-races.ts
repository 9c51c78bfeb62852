/**
 * Cases of the contract that only happen when several ask at once: a store that reads, decides and then writes fails here.
 */

import assert from 'node:assert/strict'
import { v7 } from 'uuid'
import type { Claim, ClaimResult } from '../idempotency/idempotency.ts'
import { type Bench, bothKinds, completed, dead, failed } from './store-bench.ts'

/** So many ask at once. */
const OWNERS = 8
/** So many times: what must not happen does not happen each time. */
const ROUNDS = 10

type Contest = {
  readonly of: string
  readonly before: (t: Bench, id: string) => Promise<unknown>
  readonly part: Partial<Claim>
}

const contests: readonly Contest[] = [
  { of: 'what an owner that left had begun', before: abandoned, part: {} },
  { of: 'the next attempt', before: (t, id) => t.end(id, failed(2)), part: { attempt: 2 } },
  { of: 'the next generation', before: (t, id) => t.end(id, dead(0)), part: { generation: 1 } },
]

/** See the head of this file. */
export const racePromises: Readonly<Record<string, (t: Bench) => Promise<void>>> = {
  async 'lets one of many concurrent owners run'(t) {
    for (const id of bothKinds()) await oneOfMany(t, id, {}, 'an unknown id')
  },

  async 'lets one of many concurrent owners run what somebody had begun before'(t) {
    for (const { of, before, part } of contests)
      for (const id of bothKinds()) {
        await before(t, id)
        await oneOfMany(t, id, part, of)
      }
  },

  async 'records the end of a lease, or lets the next owner take it over, never both at once'(t) {
    await Promise.all(Array.from({ length: ROUNDS }, (_, round) => endedOrTaken(t, `a ${round}`, round % 2 === 0)))
  },

  async 'records one of two ends that are reported at once'(t) {
    const grants = await Promise.all(Array.from({ length: ROUNDS }, () => leased(t, 'a')))
    await Promise.all(grants.map((grant) => endedOnce(t, 'a', grant)))
  },
}

interface Lease {
  readonly id: string
  readonly fencingToken: number
}

async function leased(t: Bench, owner: string): Promise<Lease> {
  const id = v7()
  const { fencingToken } = await t.grant(owner, id)
  return { id, fencingToken }
}

async function endedOrTaken(t: Bench, owner: string, endsFirst: boolean): Promise<void> {
  const { id, fencingToken } = await leased(t, owner)
  await t.leave(owner)
  const early = endsFirst ? t.settle(owner, id, fencingToken, completed) : undefined
  const [taken, ended] = await Promise.all([t.claim('b', id), early ?? t.settle(owner, id, fencingToken, completed)])
  const { state } = await t.look(id)
  const may = ended === 'settled' ? ['settled', 'completed', 'completed'] : ['lost', 'acquired', 'leased']
  assert.deepEqual([ended, taken.status, state], may)
}

async function endedOnce(t: Bench, owner: string, { id, fencingToken }: Lease): Promise<void> {
  const answers = await Promise.all([completed, failed(2)].map((end) => t.settle(owner, id, fencingToken, end)))
  const settled = answers.filter((answer) => answer === 'settled').length
  assert.equal(settled, 1, `answered ${answers.join(' and ')}`)
  assert.equal((await t.look(id)).state, answers[0] === 'settled' ? 'completed' : 'released')
}

async function abandoned(t: Bench, id: string): Promise<void> {
  await t.grant('gone', id)
  await t.leave('gone')
}

async function oneOfMany(t: Bench, id: string, part: Partial<Claim>, of: string): Promise<void> {
  const owners = Array.from({ length: OWNERS }, (_, n) => `owner ${n}`)
  const answers = await Promise.all(owners.map((owner) => t.claim(owner, id, part)))
  const had = (status: ClaimResult['status']) => answers.filter((answer) => answer.status === status).length
  assert.deepEqual([had('acquired'), had('leased')], [1, OWNERS - 1], `of ${OWNERS} that asked for ${of}`)
}
