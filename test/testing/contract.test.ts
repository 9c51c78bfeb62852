// The contract suite is for stores of other people: it must fail those that are wrong, and no others.

import { expect } from 'chai'
import type { IdempotencyStore } from '../../lib/idempotency/idempotency.ts'
import { idempotencyStoreContract } from '../../lib/testing/index.ts'
import { FarStore, ForgetfulStore, type Gap, GappedStore, type HeldUp, HeldUpStore, StrictStore } from './stores.ts'

const RACES = /concurrent|at once/
const SHORT_TIMES = /silent|away|renews|too late|retention/
const WHOLE = /./

describe('the contract suite of surehop/testing', () => {
  it('passes a sound store that is far away, whatever lease is shorter than its answers', async () => {
    expect(await failedBy(() => new FarStore(60), SHORT_TIMES)).to.deep.equal([])
  }).timeout(30_000)

  it('passes a sound store on a machine that stands still for longer than a lease, whenever that is', async () => {
    const heldUp = Array.from({ length: 30 }, (_, n): HeldUp => {
      return { call: 1 + Math.floor(n / 2), forMs: 400, before: n % 2 === 0 }
    })
    const failed = await Promise.all(heldUp.map((held) => failedBy(() => new HeldUpStore(held), SHORT_TIMES)))
    expect(failed.flat()).to.deep.equal([])
  }).timeout(60_000)

  it('passes a store that takes an id once in a call', async () => {
    expect(await failedBy(() => new StrictStore(), WHOLE)).to.deep.equal([])
  }).timeout(30_000)

  it('fails a store that forgets before the retention is over', async () => {
    expect(await failedBy(() => new ForgetfulStore(), SHORT_TIMES)).to.deep.equal([
      'forgets an ended record after the retention, not before, and counts it from the end',
    ])
  })

  const gaps: readonly (readonly [Gap, readonly string[]])[] = [
    ['nowhere', []],
    [
      'takeover',
      [
        'lets one of many concurrent owners run what somebody had begun before',
        'records the end of a lease, or lets the next owner take it over, never both at once',
      ],
    ],
    [
      'settlement',
      [
        'records the end of a lease, or lets the next owner take it over, never both at once',
        'records one of two ends that are reported at once',
      ],
    ],
  ]
  for (const [gap, failed] of gaps)
    it(`${failed.length > 0 ? 'fails' : 'passes'} a store with a gap between reading and writing: ${gap}`, async () => {
      expect(await failedBy(() => new GappedStore(gap), RACES)).to.deep.equal(failed)
    })
})

/** The promises that a store breaks, by their names. */
async function failedBy(open: () => IdempotencyStore, which: RegExp): Promise<string[]> {
  const cases = idempotencyStoreContract({ name: '', open }).filter(({ name }) => which.test(name))
  const ends = await Promise.allSettled(cases.map(({ run }) => run()))
  return cases.flatMap(({ name }, i) => (ends[i]!.status === 'rejected' ? [name.trim()] : []))
}
