import { expect } from 'chai'
import fc from 'fast-check'
import { exponential, fixed, MAX_DELAY_MS, soundDelayMs, steps } from '../lib/backoff.ts'

const failures = fc.integer({ min: 1, max: 5_000 })

describe('backoff', () => {
  it('never waits longer than it says it could, nor less than nothing, in whole ms', () => {
    const options = fc.record({
      baseMs: fc.integer({ min: 1, max: 100_000 }),
      capMs: fc.integer({ min: 1, max: MAX_DELAY_MS }),
      factor: fc.double({ min: 1, max: 1_000, noNaN: true }),
      jitter: fc.constantFrom('full' as const, 'none' as const),
    })
    fc.assert(
      fc.property(options, failures, (given, n) => {
        const backoff = exponential(given)
        const delay = backoff.delayMs(n)
        expect(Number.isInteger(delay) && delay >= 0).equal(true)
        expect(delay).most(Math.ceil(backoff.maxDelayMs(n)))
        expect(backoff.maxDelayMs(n)).most(given.capMs)
      }),
    )
  })

  it('grows by its factor up to its cap when there is no jitter', () => {
    const { delayMs } = exponential({ baseMs: 100, capMs: 1_000, factor: 3, jitter: 'none' })
    expect([1, 2, 3, 4, 5_000].map(delayMs)).deep.equal([100, 300, 900, 1_000, 1_000])
  })

  it('spreads evenly with full jitter', () => {
    const { delayMs } = exponential({ baseMs: 1_000, capMs: 1_000 })
    const seen = Array.from({ length: 2_000 }, () => delayMs(1))
    expect(Math.min(...seen)).below(100)
    expect(Math.max(...seen)).above(900)
  })

  it('repeats the last of its steps, and a fixed wait for ever', () => {
    expect([1, 2, 3, 9].map(steps(5, 10).delayMs)).deep.equal([5, 10, 10, 10])
    expect([1, 9].map(fixed({ delayMs: 7 }).delayMs)).deep.equal([7, 7])
  })

  it('refuses waits that cannot be kept', () => {
    expect(() => steps()).throw('expected at least one wait in ms')
    expect(() => steps(-1)).throw('expected delayMs')
    expect(() => fixed({ delayMs: MAX_DELAY_MS + 1 })).throw('expected delayMs')
    expect(() => exponential({ baseMs: 0 })).throw('expected baseMs')
    expect(() => exponential({ basems: 1 } as object)).throw('did you mean "baseMs"?')
  })

  it('of a user’s own that throws, or answers no number, is replaced by the usual one', () => {
    const answering = (answer: unknown) => ({ delayMs: () => answer as number, maxDelayMs: () => 0 })
    for (const answer of [Number.NaN, -1, '5', null, undefined, 5n, Promise.resolve(5)])
      expect(soundDelayMs(answering(answer), 1)).within(0, 1_000)
    const throwing = { delayMs: () => expect.fail('no such step'), maxDelayMs: () => 0 }
    expect(soundDelayMs(throwing, 1)).within(0, 1_000)
    expect([0, 7, Number.POSITIVE_INFINITY].map((answer) => soundDelayMs(answering(answer), 1))).deep.equal([
      0,
      7,
      Number.POSITIVE_INFINITY,
    ])
  })
})
