import { expect } from 'chai'
import type { Claim, Ending } from '../../lib/idempotency/idempotency.ts'
import {
  type Asked,
  decideClaim,
  decideSettle,
  type IdempotencyRecord,
  retryAfterMs,
} from '../../lib/idempotency/record.ts'

const nowMs = 1_700_000_000_000
const nowUs = nowMs * 1_000
const body = Uint8Array.of(1, 2, 3)
const otherBody = Uint8Array.of(1, 2, 4)

const claim = (part: Partial<Claim> = {}): Claim => ({
  id: 'id',
  digest: body,
  generation: 1,
  attempt: 2,
  sequence: 7,
  ...part,
})

const leased = {
  state: 'leased',
  owner: 'a',
  sequence: 7,
  exhausted: false,
  fence: nowUs - 5,
  attempt: 2,
  generation: 1,
  starts: 1,
  digest: body,
} as const satisfies IdempotencyRecord
const { owner: _, sequence: __, exhausted: ___, ...story } = leased
const released = { ...story, state: 'released', by: 'failed', starts: 0 } as const satisfies IdempotencyRecord
const dead = { ...story, state: 'dead' } as const satisfies IdempotencyRecord
const completed = { state: 'completed', completedAt: nowMs, digest: body } as const satisfies IdempotencyRecord

const whenClaimed = (given: IdempotencyRecord | undefined, part: Partial<Claim> = {}, asked: Partial<Asked> = {}) =>
  decideClaim(given, {
    claim: claim(part),
    owner: 'b',
    askerUntilMs: nowMs + 10_000,
    holderUntilMs: nowMs + 9_000,
    nowUs,
    leaseMs: 15_000,
    maxStarts: 3,
    ...asked,
  })

const whenSettled = (
  given: IdempotencyRecord | undefined,
  ending: Ending,
  part: { owner?: string; token?: number } = {},
) =>
  decideSettle(given, {
    settlement: { id: 'id', fencingToken: part.token ?? leased.fence, digest: body, ending },
    owner: part.owner ?? 'a',
    nowMs,
  })

const acquired = (attempt: number, starts: number, fencingToken = nowUs) => ({
  status: 'acquired',
  fencingToken,
  attempt,
  starts,
})

describe('the decision on a claim', () => {
  it('given nothing, grants with the clock as token', () => {
    const { result, record } = whenClaimed(undefined)
    expect(result).to.deep.equal(acquired(2, 1))
    expect(record).to.deep.equal({ ...leased, owner: 'b', fence: nowUs })
  })

  it('given a token ahead of the clock, grants the next one', () => {
    const { result } = whenClaimed({ ...released, fence: nowUs + 50 })
    expect(result).to.deep.equal(acquired(2, 1, nowUs + 51))
  })

  it('given a live holder, asks for patience and changes nothing', () => {
    const { result, record } = whenClaimed(leased)
    expect(result).to.deep.equal({ status: 'leased', retryAfterMs: 3_000 })
    expect(record).to.equal(leased)
  })

  it('given a holder whose time is up this very moment, takes over', () => {
    expect(whenClaimed(leased, {}, { holderUntilMs: nowMs }).result).to.deep.equal(acquired(2, 2))
    expect(whenClaimed(leased, {}, { holderUntilMs: nowMs + 1 }).result.status).to.equal('leased')
  })

  it('given a holder whose time is up, and an asker that was away itself, asks for patience and changes nothing', () => {
    for (const askerUntilMs of [0, nowMs - 1, nowMs, nowMs + 7_499]) {
      for (const part of [{}, { generation: 2 }, { sequence: 9 }])
        for (const given of [leased, { ...leased, starts: 3 }]) {
          const { result, record } = whenClaimed(given, part, { holderUntilMs: nowMs - 1, askerUntilMs })
          expect(result).to.deep.equal({ status: 'leased', retryAfterMs: 3_000 })
          expect(record).to.equal(given)
        }
    }
    const short = whenClaimed(leased, {}, { holderUntilMs: 0, askerUntilMs: 0, leaseMs: 300 })
    expect(short.result).to.deep.equal({ status: 'leased', retryAfterMs: 300 })
  })

  it('given a holder whose time is up, and an asker that it has heard of, or never, takes over', () => {
    for (const askerUntilMs of [nowMs + 7_500, nowMs + 15_000, undefined])
      expect(whenClaimed(leased, {}, { holderUntilMs: nowMs - 1, askerUntilMs }).result).to.deep.equal(acquired(2, 2))
  })

  it('given an asker that was away, grants what nobody holds, its own leases, and those of an owner that left', () => {
    const away = { askerUntilMs: 0, holderUntilMs: undefined }
    expect(whenClaimed(undefined, {}, away).result).to.deep.equal(acquired(2, 1))
    expect(whenClaimed(released, {}, away).result).to.deep.equal(acquired(2, 1))
    expect(whenClaimed(dead, { generation: 2 }, away).result).to.deep.equal(acquired(2, 1))
    expect(
      whenClaimed(leased, { sequence: 8 }, { owner: 'a', askerUntilMs: 0, holderUntilMs: 0 }).result,
    ).to.deep.equal(acquired(2, 2))
    expect(whenClaimed(leased, {}, away).result).to.deep.equal(acquired(2, 2))
  })

  it('given the same claim again, answers the same, be the holder alive or not', () => {
    for (const holderUntilMs of [undefined, 0, nowMs + 9_000]) {
      const { result, record } = whenClaimed(leased, {}, { owner: 'a', holderUntilMs, askerUntilMs: holderUntilMs })
      expect(result).to.deep.equal(acquired(2, 1, leased.fence))
      expect(record).to.equal(leased)
    }
  })

  it('given another delivery of the same owner, starts anew', () => {
    expect(whenClaimed(leased, { sequence: 8 }, { owner: 'a' }).result).to.deep.equal(acquired(2, 2))
  })

  it('given a later lease of the same owner, lets a claim that comes late change nothing', () => {
    for (const part of [{ sequence: 6 }, { sequence: 6, generation: 2 }]) {
      const { result, record } = whenClaimed(leased, part, { owner: 'a' })
      expect(result).to.deep.equal({ status: 'leased', retryAfterMs: 250 })
      expect(record).to.equal(leased)
    }
  })

  it('given as many starts as allowed, grants only the right to park', () => {
    const { result, record } = whenClaimed({ ...leased, starts: 3 }, {}, { holderUntilMs: 0 })
    expect(result).to.deep.equal({ status: 'exhausted', fencingToken: nowUs, attempt: 2, starts: 3 })
    expect(record).to.include({ state: 'leased', owner: 'b', exhausted: true, starts: 3 })
    expect(whenClaimed(record).result).to.deep.equal(result)
    expect(whenClaimed(record, { sequence: 9 }, { owner: 'c', holderUntilMs: 0 }).result.status).to.equal('exhausted')
  })

  it('given an older copy, says what superseded it; given an older attempt, what is ahead', () => {
    for (const given of [leased, released, dead]) {
      expect(whenClaimed(given, { generation: 0 }).result).to.deep.equal({ status: 'superseded', generation: 1 })
    }
    expect(whenClaimed(dead).result).to.deep.equal({ status: 'superseded', generation: 1 })
    expect(whenClaimed(released, { attempt: 1 }).result).to.deep.equal({
      status: 'ahead',
      attempt: 2,
      fencingToken: released.fence,
    })
  })

  it('given a newer generation, starts it from its own attempt, with its own body', () => {
    for (const given of [{ ...leased, starts: 3 }, released, dead]) {
      const { result, record } = whenClaimed(
        given,
        { generation: 2, attempt: 1, digest: otherBody },
        { holderUntilMs: 0 },
      )
      expect(result).to.deep.equal(acquired(1, 1))
      expect(record).to.include({ generation: 2, digest: otherBody })
    }
  })

  it('given a newer generation of what is running, waits', () => {
    expect(whenClaimed(leased, { generation: 2 }).result.status).to.equal('leased')
  })

  it('given another body, reports it in every state', () => {
    for (const given of [leased, released, dead, completed]) {
      const { result, record } = whenClaimed(given, { digest: otherBody })
      expect(result).to.deep.equal({ status: 'conflict' })
      expect(record).to.equal(given)
      expect(whenClaimed(given, { digest: undefined }).result.status).not.to.equal('conflict')
    }
  })

  it('given a completed record, is final for every generation', () => {
    for (const generation of [0, 1, 99]) {
      expect(whenClaimed(completed, { generation }).result).to.deep.equal({ status: 'completed', completedAt: nowMs })
    }
  })

  it('asks for a third of what is left, from 250 ms to a third of the lease', () => {
    expect(retryAfterMs(nowMs + 9_000, nowUs, 15_000)).to.equal(3_000)
    expect(retryAfterMs(nowMs + 1, nowUs, 15_000)).to.equal(250)
    expect(retryAfterMs(nowMs + 60_000, nowUs, 15_000)).to.equal(5_000)
    expect(retryAfterMs(nowMs + 1, nowUs, 300)).to.equal(100)
  })
})

describe('the decision on a settlement', () => {
  const endings: Ending[] = [
    { state: 'completed' },
    { state: 'failed', nextAttempt: 3 },
    { state: 'returned' },
    { state: 'dead', generation: 1 },
  ]

  it('given the lease, records the ending', () => {
    const records = endings.map((ending) => whenSettled(leased, ending))
    expect(records.map(({ result }) => result)).to.deep.equal(['settled', 'settled', 'settled', 'settled'])
    expect(records.map(({ record }) => record)).to.deep.equal([
      completed,
      { ...released, attempt: 3 },
      { ...released, by: 'returned', starts: 0 },
      { ...dead },
    ])
  })

  it('given another owner or another token, changes nothing', () => {
    for (const ending of endings) {
      for (const part of [{ owner: 'b' }, { token: leased.fence - 1 }, { token: leased.fence + 1 }]) {
        expect(whenSettled(leased, ending, part)).to.deep.equal({ result: 'lost', record: leased })
      }
    }
  })

  it('given the same ending again, says settled; given another, lost', () => {
    for (const ending of endings.slice(1)) {
      const { record } = whenSettled(leased, ending)
      for (const other of endings) {
        if (ending.state === 'failed' && other.state === 'dead') continue
        const expected = other === ending ? 'settled' : 'lost'
        expect(whenSettled(record, other)).to.deep.equal({ result: expected, record })
      }
    }
    for (const ending of endings) expect(whenSettled(completed, ending).result).to.equal('already')
  })

  it('given a failed attempt that was the last, records its letter, whoever has written it; given one handed back, does not', () => {
    const letter: Ending = { state: 'dead', generation: 1 }
    expect(whenSettled(released, letter, { owner: 'b' })).to.deep.equal({
      result: 'settled',
      record: { ...dead, attempt: released.attempt, starts: released.starts },
    })
    expect(whenSettled(released, letter, { token: released.fence - 1 }).result).to.equal('lost')
    expect(whenSettled({ ...released, by: 'returned' }, letter).result).to.equal('lost')
  })

  it('given nothing, records what the owner reports', () => {
    const records = endings.map((ending) => whenSettled(undefined, ending))
    expect(records.map(({ result }) => result)).to.deep.equal(['settled', 'settled', 'settled', 'settled'])
    expect(records.map(({ record }) => record?.state)).to.deep.equal(['completed', 'released', undefined, 'dead'])
  })

  it('given a lease to park, does not give back a start that was none', () => {
    const { record } = whenSettled({ ...leased, starts: 3, exhausted: true }, { state: 'returned' })
    expect(record).to.include({ state: 'released', starts: 3 })
  })
})
