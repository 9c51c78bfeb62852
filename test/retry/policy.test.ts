// After a failed attempt: again in so many ms, or never.

import { expect } from 'chai'
import fc from 'fast-check'
import { exponential, fixed, steps } from '../../lib/backoff.ts'
import { DeadLetterNow, InvalidOption, MessageInvalid, RetryLater } from '../../lib/errors.ts'
import { type RetryOptions, retryPolicy } from '../../lib/retry/policy.ts'

const boom = new Error('boom')

/** Runs a message that always fails to its end: the attempts made, and why it ended. */
function attemptsOf(options: RetryOptions, thrown: (attempt: number) => unknown = () => boom) {
  const policy = retryPolicy(options)
  const firstFailedAt = Date.now()
  for (let attempt = 1; ; attempt++) {
    const verdict = policy.decide(thrown(attempt), attempt, firstFailedAt)
    if (verdict.verdict === 'dead') return { attempts: attempt, reason: verdict.reason }
    expect(verdict.delayMs).to.be.at.least(0)
  }
}

describe('retry policy', () => {
  it('makes exactly as many attempts as asked for, 8 by default', () => {
    expect(attemptsOf({})).to.deep.equal({ attempts: 8, reason: 'failed 8 times' })
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 1_000 }), (attempts) => {
        expect(attemptsOf({ attempts, backoff: fixed({ delayMs: 0 }) }).attempts).to.equal(attempts)
      }),
    )
  })

  it('counts RetryLater as an attempt, and waits as it says', () => {
    const policy = retryPolicy({ attempts: 3 })
    expect(policy.decide(new RetryLater(1_234), 1, Date.now())).to.deep.equal({ verdict: 'retry', delayMs: 1_234 })
    expect(attemptsOf({ attempts: 3 }, () => new RetryLater(0)).attempts).to.equal(3)
  })

  it('repeats RetryLater even where the error would not be retryable', () => {
    const policy = retryPolicy({ retryable: () => false })
    expect(policy.decide(new RetryLater(5), 1, undefined).verdict).to.equal('retry')
  })

  it('gives up at once on DeadLetterNow, on an invalid message and on errors that are not retryable', () => {
    const retryable = (error: unknown) => !(error instanceof RangeError)
    for (const [thrown, reason] of [
      [new DeadLetterNow('no such customer'), 'refused by the handler'],
      [new MessageInvalid('body.n', 'body.n: too small'), 'invalid message'],
      [new RangeError('no'), 'error is not retryable'],
    ] as const)
      expect(attemptsOf({ retryable }, () => thrown)).to.deep.equal({ attempts: 1, reason })
  })

  it('gives up when the next attempt would come later than maxAgeMs after the first failure', () => {
    const policy = retryPolicy({ attempts: 100, maxAgeMs: 1_000, backoff: fixed({ delayMs: 600 }) })
    expect(policy.decide(boom, 1, Date.now()).verdict).to.equal('retry')
    expect(policy.decide(boom, 2, Date.now() - 500).verdict).to.equal('dead')
    expect(policy.decide(new RetryLater(1_500), 1, Date.now()).verdict).to.equal('dead')
    expect(policy.decide(boom, 1, undefined).verdict).to.equal('retry')
  })

  it('waits as the backoff says, by the number of failures', () => {
    const policy = retryPolicy({ attempts: 5, backoff: steps(10, 20, 30) })
    const waits = [1, 2, 3, 4].map((attempt) => policy.decide(boom, attempt, undefined))
    expect(waits.map((v) => v.verdict === 'retry' && v.delayMs)).to.deep.equal([10, 20, 30, 30])
  })

  it('schedules the attempt that a crashed process had decided on, and no attempt more', () => {
    const policy = retryPolicy({ attempts: 3, backoff: steps(10, 20) })
    expect(policy.again(2)).to.deep.equal({ verdict: 'retry', delayMs: 10 })
    expect(policy.again(3)).to.deep.equal({ verdict: 'retry', delayMs: 20 })
    expect(policy.again(4)).to.deep.equal({ verdict: 'dead', reason: 'failed 3 times' })
  })

  it("repeats when retryable() trips over what was thrown, and when a backoff of one's own fails", () => {
    const retryable = (error: unknown) => (error as Error).message.includes('x')
    expect(retryPolicy({ retryable }).decide(undefined, 1, undefined).verdict).to.equal('retry')
    for (const delayMs of [
      () => Number.NaN,
      () => -1,
      () => {
        throw boom
      },
    ]) {
      const verdict = retryPolicy({ backoff: { delayMs, maxDelayMs: () => 1 } }).decide(boom, 1, undefined)
      expect(verdict.verdict === 'retry' && verdict.delayMs).to.be.within(0, 1_000)
    }
  })

  it('knows the longest it can take, for retention and for what waits unacked', () => {
    const policy = retryPolicy({ attempts: 4, backoff: steps(1_000, 5_000, 2_000), maxAgeMs: 3_600_000 })
    expect([policy.longestDelayMs, policy.totalDelayMs, policy.spanMs]).to.deep.equal([5_000, 8_000, 3_600_000])
    expect(retryPolicy({ attempts: 1 }).longestDelayMs).to.equal(0)
  })

  it('never waits longer than it said', () => {
    const options = fc.record({
      baseMs: fc.integer({ min: 1, max: 5_000 }),
      capMs: fc.integer({ min: 1, max: 60_000 }),
    })
    fc.assert(
      fc.property(options, fc.integer({ min: 2, max: 20 }), (times, attempts) => {
        const policy = retryPolicy({ attempts, backoff: exponential(times) })
        for (let attempt = 1; attempt < attempts; attempt++) {
          const verdict = policy.decide(boom, attempt, undefined)
          expect(verdict.verdict === 'retry' && verdict.delayMs).to.be.within(0, policy.longestDelayMs)
        }
      }),
    )
  })

  it('refuses nonsense at start, by name', () => {
    for (const [options, name] of [
      [{ attempts: 0 }, 'attempts'],
      [{ attempts: 1.5 }, 'attempts'],
      [{ maxAgeMs: -1 }, 'maxAgeMs'],
      [{ backoff: { delayMs: () => 1 } }, 'backoff'],
      [{ backoff: { delayMs: () => 1, maxDelayMs: () => Number.NaN } }, 'maxDelayMs'],
      [{ attemps: 3 }, 'did you mean "attempts"'],
    ] as const)
      expect(() => retryPolicy(options as RetryOptions)).to.throw(InvalidOption, name)
  })
})
