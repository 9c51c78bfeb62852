// When a channel that only refuses is blamed, and how little is kept for that.

import { expect } from 'chai'
import { PATIENCE_MS, Refusals } from '../../lib/producer/refusals.ts'

describe('refusals of a channel', () => {
  it('are told once per target, when they have lasted long, without an ack in between', () => {
    const refusals = new Refusals()
    expect(refusals.nacked('', 'full', 0)).equal(false)
    expect(refusals.nacked('', 'full', PATIENCE_MS - 1)).equal(false)
    refusals.acked('', 'full')
    expect(refusals.nacked('', 'full', PATIENCE_MS)).equal(false)
    expect(refusals.nacked('', 'full', 2 * PATIENCE_MS - 1)).equal(false)
    expect(refusals.nacked('', 'full', 2 * PATIENCE_MS)).equal(true)
    expect(refusals.nacked('', 'full', 2 * PATIENCE_MS)).equal(false)
  })

  it('of one target are not ended by the acks of another', () => {
    const refusals = new Refusals()
    refusals.nacked('', 'full', 0)
    refusals.acked('', 'empty')
    expect(refusals.nacked('', 'full', PATIENCE_MS)).equal(true)
  })

  it('begin anew with a new channel', () => {
    const refusals = new Refusals()
    refusals.nacked('', 'full', 0)
    refusals.forget()
    expect(refusals.nacked('', 'full', PATIENCE_MS)).equal(false)
  })

  it('are noticed for the first hundred targets only, so that routing keys without end fill no memory', () => {
    const refusals = new Refusals()
    for (let n = 0; n < 200; n++) refusals.nacked('', `queue ${n}`, 0)
    expect(refusals.nacked('', 'queue 150', PATIENCE_MS)).equal(false)
    expect(refusals.nacked('', 'queue 151', PATIENCE_MS)).equal(false)
    expect(refusals.nacked('', 'queue 99', PATIENCE_MS)).equal(true)
  })
})
