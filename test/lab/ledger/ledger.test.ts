// What is on record is read back: by anybody, after kill -9, with a torn last line, and while it is still written.

import { appendFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import fc from 'fast-check'
import { startChild } from '../../support/child.ts'
import { type Entry, monotonicNs } from '../ledger.ts'
import { entryOf, lineOf } from './lines.ts'
import { LedgerReader } from './reader.ts'
import { LedgerWriter } from './writer.ts'

const OUTCOMES = ['confirmed', 'unknown', 'refused', 'nacked', 'returned', 'not-sent'] as const
const number = fc.nat(Number.MAX_SAFE_INTEGER)
const word = fc.string({ unit: 'grapheme' })
const path = fc.constantFrom('direct' as const, 'outbox' as const)
const entry: fc.Arbitrary<Entry> = fc.oneof(
  fc.record({
    ...{ is: fc.constant('offered' as const), at: number, id: word, path, key: word, n: number },
    fate: fc.constantFrom('well' as const, 'late' as const, 'dead' as const),
  }),
  fc.record({
    ...{ is: fc.constant('told' as const), at: number, id: word },
    outcome: fc.constantFrom(...OUTCOMES),
  }),
  fc.record({
    ...{ is: fc.constant('started' as const), at: number, id: word, token: number },
    ...{ attempt: number, generation: number },
  }),
  fc.record({ is: fc.constantFrom('effect' as const, 'threw' as const), at: number, id: word, token: number }),
  fc.record({
    ...{ is: fc.constant('ended' as const), at: number, id: word, token: number, since: number },
    as: fc.constantFrom('completed' as const, 'failed' as const, 'returned' as const, 'dead' as const),
  }),
  fc.record({
    is: fc.constantFrom('dropped' as const, 'committed' as const, 'withdrawn' as const),
    at: number,
    id: word,
  }),
  fc.record({
    ...{ is: fc.constant('denied' as const), at: number, id: word, token: number, since: number },
    as: fc.constantFrom('completed' as const, 'failed' as const, 'returned' as const, 'dead' as const),
  }),
  fc.record({ is: fc.constant('put-off' as const), at: number, id: word }),
  fc.record({ is: fc.constant('lapsed' as const), at: number }),
  fc.record({ is: fc.constant('cut-off' as const), at: number, worker: number }),
  fc.record({ is: fc.constant('silent' as const), at: number, from: number }),
  fc.record({ is: fc.constant('unmoored' as const), at: number }),
  fc.record({ is: fc.constant('output' as const), at: number, id: word, of: word }),
  fc.record({
    ...{ is: fc.constant('rules' as const), at: number, leaseMs: number, concurrency: number },
    ...{ inOrder: fc.uniqueArray(path), redelivered: fc.constantFrom('front' as const, 'back' as const) },
    ...{ attempts: number, delayMs: number },
  }),
  fc.record({ is: fc.constant('forgot' as const), at: number, from: number, since: number }),
  fc.record({ is: fc.constant('born' as const), at: number, worker: number, role: word }),
  fc.record({
    ...{ is: fc.constant('died' as const), at: number, worker: number },
    how: fc.constantFrom('killed' as const, 'closed' as const, 'crashed' as const),
  }),
  fc.record({ is: fc.constant('done' as const), at: number, id: word, place: number }),
  fc.record({ is: fc.constant('dead' as const), at: number, id: word, why: word }),
  fc.record({ is: fc.constant('left' as const), at: number, id: word, where: word }),
)

describe("the lab's ledger", () => {
  let folder: string

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'surehop-ledger-'))
  })

  afterEach(() => rmSync(folder, { recursive: true, force: true }))

  const read = () => [...new LedgerReader(folder).entries()]

  it('gives every entry back as it was', () => {
    fc.assert(fc.property(entry, (one) => void expect(entryOf(lineOf(one))).to.deep.equal(one)))
  })

  it('has one line an entry, whatever is in it', () => {
    fc.assert(fc.property(entry, (one) => void expect(lineOf(one)).not.to.match(/[\n\r]/)))
  })

  it('keeps what was written over kill -9, in order and without a gap', async function () {
    this.timeout(60_000)
    await using child = startChild(new URL('./fixtures/scribe.ts', import.meta.url), { args: [folder] })
    const told = await child.next<number>({ where: (last) => last >= 5_000, withinMs: 50_000 })
    await child.kill9()
    const tokens = read().map((one) => ('token' in one ? one.token : 0))
    expect(tokens.length).to.be.at.least(told)
    expect(tokens.every((token, i) => token === i + 1)).to.equal(true)
  })

  it('does not give a torn last line, and counts it; gives it when its rest has come', () => {
    writeFileSync(join(folder, '3'), 'e 5 a 1\ne 6 b')
    const reader = new LedgerReader(folder)
    expect([...reader.entries()]).to.deep.equal([{ is: 'effect', at: 5, id: 'a', token: 1, by: 3 }])
    expect(reader.torn).to.equal(1)
    appendFileSync(join(folder, '3'), ' 2\n')
    expect([...reader.entries()]).to.deep.equal([{ is: 'effect', at: 6, id: 'b', token: 2, by: 3 }])
    expect(reader.torn).to.equal(0)
  })

  it('says which line cannot be read, when it is not the last one', () => {
    writeFileSync(join(folder, '1'), 'e 5 a 1\n??\ne 6 b 2\n')
    expect(read).to.throw('expected a line of a ledger, got "??"')
  })

  it('has what was noted on record at the end of the turn, before what is written after it', async () => {
    const ledger = new LedgerWriter(folder, 1)
    ledger.note({ is: 'dropped', at: 1, id: 'a' })
    expect(read()).to.have.lengthOf(0)
    await new Promise(setImmediate)
    expect(read()).to.have.lengthOf(1)
    ledger.note({ is: 'dropped', at: 2, id: 'b' })
    ledger.write({ is: 'dropped', at: 3, id: 'c' })
    expect(read().map(({ at }) => at)).to.deep.equal([1, 2, 3])
    ledger.close()
  })

  it('never gives one number to two processes', () => {
    new LedgerWriter(folder, 1).close()
    expect(() => new LedgerWriter(folder, 1)).to.throw('EEXIST')
  })

  it('has a clock that all processes share and that never goes back', () => {
    const [before, now, after] = [process.hrtime.bigint(), monotonicNs(), process.hrtime.bigint()]
    expect(now).to.be.within(Number(before), Number(after))
  })
})
