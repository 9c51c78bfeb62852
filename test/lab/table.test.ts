import { expect } from 'chai'
import { broken, type Played, PROMISES, table } from './table.ts'

const machine = { cpu: 'a cpu', cores: 2, memoryGib: 8, system: 'an os', load: 0 }
const about = { seed: 7, at: '2026-01-02', seconds: 125, machine, versions: { rabbitmq: '3.10.8', node: '20.19.0' } }

function played(change: Partial<Played['verdict']> = {}, more: Partial<Played> = {}): Played {
  const zero = { lost: 0, doubled: 0, repeated: 0, zombies: 0, outOfOrder: 0, phantom: 0, left: 0, deadLetters: 0 }
  const verdict = { messages: 12_345, ...zero, longestGapMs: 8_040, evidence: [], ...change }
  return { id: 'x', name: 'a fault', limits: [], injected: 3, seconds: 9, verdict, ...more }
}

describe("the lab's table", () => {
  it('passes a row that kept every promise', () => {
    expect(broken(played())).to.deep.equal([])
  })

  for (const promise of PROMISES) {
    it(`fails a row for a single message ${promise}`, () => {
      expect(broken(played({ [promise]: 1 }))).to.deep.equal([`${promise} 1`])
    })
  }

  it('accepts repeated effects, each of which the ledger has explained by a limit', () => {
    expect(broken(played({ repeated: 4 }, { limits: ['redis-forgets'] }))).to.deep.equal([])
    expect(table([played({ repeated: 4 })], about)).to.match(/\| +4 ¹ \|[\s\S]*^¹ The process died, or lost its lease/m)
  })

  it('fails a row that tried nothing, or did not come to its end', () => {
    expect(broken(played({}, { injected: 0 }))).to.deep.equal(['no fault was injected'])
    expect(broken(played({ messages: 0 }))).to.deep.equal(['no message came through'])
    expect(broken(played({}, { trouble: 'it did not drain' }))).to.deep.equal(['it did not drain'])
  })

  it('shows repeated effects with the limit that explains them', () => {
    const text = table([played({ repeated: 4 }, { limits: ['redis-forgets'] })], about)
    expect(text).to.match(/^\| `x` a fault +\| +12,345 \| +3 \| +0 \| +0 \| +4 ² \|/m)
    expect(text).to.match(/^² Redis forgot/m)
    expect(text).not.to.contain('¹')
  })

  it('names a broken row, and says so beneath', () => {
    const text = table([played(), played({ lost: 2 })], about)
    expect(text)
      .to.contain('**a fault: BROKEN**')
      .and.to.contain('1 of 2 rows broke a promise. Seed 7, 2026-01-02, 2 min 5 s')
    expect(table([played()], about)).to.contain('All rows kept their promises')
  })

  it('adds up all rows, with the longest gap of any', () => {
    const text = table([played({}, { injected: 2 }), played({ longestGapMs: 20_000 })], about)
    expect(text).to.match(/^\| all 2 +\| +24,690 \| +5 \|.*\| +20\.0 \|$/m)
  })
})
