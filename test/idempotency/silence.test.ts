// When claims wait after a silence of the store, and that they do not wait for ever.

import { expect } from 'chai'
import { StoreSilence } from '../../lib/idempotency/silence.ts'
import { VirtualTime } from '../consumer/virtual-time.ts'

const LEASE_MS = 15_000
const GRACE_MS = 3_000

describe('the silence of a store', () => {
  let time: VirtualTime
  let silence: StoreSilence
  beforeEach(() => {
    time = new VirtualTime(1)
    time.install()
    silence = new StoreSilence(LEASE_MS)
    silence.begins()
  })
  afterEach(() => time.uninstall())

  const heardAfter = (ms: number, outage = false) => {
    time.now += ms
    silence.heard(outage)
  }

  it('makes no claim wait where it was shorter than half a lease, in an outage or not', () => {
    heardAfter(LEASE_MS / 3)
    heardAfter(LEASE_MS / 2, true)
    expect(silence.leftMs).to.be.at.most(0)
  })

  it('makes claims wait from its end, for as long as others need to renew, and never longer than a lease', () => {
    heardAfter(LEASE_MS * 0.6)
    expect(silence.leftMs).to.equal(GRACE_MS)
    time.now += GRACE_MS
    expect(silence.leftMs).to.equal(0)
    const brief = new StoreSilence(1_000)
    brief.grace()
    expect(brief.leftMs).to.equal(1_000)
  })

  it('is none where the store is slow all the time', () => {
    heardAfter(LEASE_MS * 0.6)
    heardAfter(LEASE_MS * 0.6)
    expect(silence.leftMs).to.be.at.most(0)
  })

  // With a short lease the grace is as long as that, and the next late answer comes within it.
  it('keeps claims waiting no more than half of the time where the store is slow every other time', () => {
    silence = new StoreSilence(GRACE_MS)
    const waiting: boolean[] = []
    for (let tenth = 1; tenth <= 700; tenth++) {
      time.now += GRACE_MS / 10
      if (tenth % 7 === 6 || tenth % 7 === 0) silence.heard(false)
      waiting.push(silence.leftMs > 0)
    }
    expect(waiting.filter(Boolean)).to.have.length.within(1, 350)
  })

  it('is one each time where it was an outage', () => {
    heardAfter(LEASE_MS * 0.6, true)
    heardAfter(LEASE_MS * 0.6, true)
    expect(silence.leftMs).to.equal(GRACE_MS)
  })
})
