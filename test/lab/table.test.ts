import { expect } from 'chai'
import { broken, endOf, failings, type Played, PROMISES, table } from './table.ts'
import type { Verdict } from './world.ts'

const machine = { cpu: 'a cpu', cores: 2, memoryGib: 8, system: 'an os', load: 0 }
const versions = { surehop: '1.2.3', rabbitmq: '3.10.8', node: '20.19.0' }
const about = { seed: 7, at: '2026-01-02', seconds: 170, load: '9 messages a row', machine, versions }

function played(change: Partial<Played['verdict']> = {}, more: Partial<Played> = {}): Played {
  const zero = { lost: 0, doubled: 0, repeated: 0, zombies: 0, outOfOrder: 0, phantom: 0, left: 0, deadLetters: 0 }
  const contests = { putOff: 3, takenOver: 2, refused: 1, unmoored: 5 }
  const attempts = { attempts: 0, retried: 4, soonestRetryMs: 201.4, reordered: 0 }
  const told = { unknown: { told: 0, withdrawn: 0, arrived: 0 }, neverSent: 0 }
  const verdict = {
    ...{ messages: 12_345, ...zero, ...contests, ...attempts, ...told, longestGapMs: 8_040, evidence: [] },
    ...change,
  } satisfies Verdict
  return { id: 'x', name: 'a fault', limits: [], injected: 3, seconds: 9, verdict, ...more }
}

describe("the lab's table", () => {
  it('passes a row that kept every promise', () => {
    expect(failings(played())).to.deep.equal([])
    expect(endOf(played())).to.equal('kept')
  })

  for (const promise of PROMISES) {
    it(`fails a row for a single message ${promise}`, () => {
      expect(failings(played({ [promise]: 1 }))).to.deep.equal([`${promise} 1`])
      expect(endOf(played({ [promise]: 1 }))).to.equal('BROKEN')
    })
  }

  it('accepts repeated effects, each of which the ledger has explained by a limit', () => {
    expect(failings(played({ repeated: 4 }, { limits: ['redis-forgets'] }))).to.deep.equal([])
    expect(table([played({ repeated: 4 })], about)).to.match(/\| +4 ¹ \|[\s\S]*^¹ The process died, or lost its lease/m)
  })

  it('fails a row that tried nothing, or did not come to its end', () => {
    expect(failings(played({}, { injected: 0 }))).to.deep.equal(['no fault was injected'])
    expect(failings(played({ messages: 0 }))).to.deep.equal(['no message came through'])
    expect(failings(played({}, { trouble: 'it did not drain' }))).to.deep.equal(['it did not drain'])
  })

  it('fails a row that was to make processes meet, and in which they did not', () => {
    const provokes = ['takenOver', 'refused'] as const
    expect(failings(played({}, { provokes }))).to.deep.equal([])
    expect(failings(played({ refused: 0 }, { provokes }))).to.deep.equal([
      'nobody whose run was taken over tried to write',
    ])
    expect(failings(played({ takenOver: 0, refused: 0 }, { provokes }))).to.have.lengthOf(2)
    const cut = failings(played({ unmoored: 0 }, { provokes: ['unmoored'] }))
    expect(cut).to.deep.equal(['no consumer lost its channel'])
    expect(table([played()], about)).to.match(/\| +3 \/ 2 \/ 1 \|/)
  })

  it('shows repeated effects with the limit that explains them', () => {
    const text = table([played({ repeated: 4 }, { limits: ['redis-forgets'] })], about)
    expect(text).to.match(/^\| `x` a fault +\| +12,345 \| +3 \| +0 \| +0 \| +4 ² \|/m)
    expect(text).to.match(/^² Redis forgot/m)
    expect(text).not.to.contain('¹')
  })

  it('says under it which rows were played again by themselves, and what they had broken before', () => {
    const again = [{ id: 'x', commit: '1a2b3c4', seed: 9, at: '2026-01-03', before: ['no fault was injected'] }]
    expect(table([played()], { ...about, again })).to.contain(
      '`x` was played again by itself (seed 9, 2026-01-03, commit 1a2b3c4). Before: no fault was injected.',
    )
  })

  it('says over it which code it is of, when, and under which load', () => {
    const text = table([played()], { ...about, commit: '1a2b3c4 with changes' })
    expect(text.split('\n')[0]).to.equal(
      'Surehop 1.2.3, commit 1a2b3c4 with changes, on RabbitMQ 3.10.8, 2026-01-02. Load: 9 messages a row.',
    )
    expect(table([played()], about).split('\n')[0]).to.match(/^Surehop 1\.2\.3, on RabbitMQ/)
  })

  it('counts disorder within a limit beside the rest, with the limit', () => {
    expect(failings(played({ reordered: 12 }))).to.deep.equal([])
    expect(table([played({ reordered: 12 })], about)).to.match(/\| +0 \+ 12 ³ \|[\s\S]*^³ Handled after a later one/m)
    expect(table([played()], about)).not.to.contain('³')
  })

  it('shows how many unknown publishes arrived, and nothing where there were none', () => {
    const unknown = { told: 7, withdrawn: 4, arrived: 3 }
    const text = table([played({ unknown, neverSent: 2 }), played()], about)
    expect(text.match(/\| +3 of 4 \|/g)).to.have.lengthOf(2)
    expect(text).to.match(/^\| `x` .*\| +– \|/m)
    expect(text).to.contain('The publishes of 7 messages ended `unknown`; 4 of those were never repeated')
    expect(text).to.contain('2 publishes ended `not-sent` or `returned`')
  })

  it('tells how many attempts were judged, and the soonest of all rows', () => {
    const text = table([played(), played({ soonestRetryMs: 300 }), played({ retried: 0 })], about)
    expect(text).to.contain('8 attempts beyond a first were judged; the soonest began 201 ms after')
  })

  it('names what a mix leaves out, and what was not played', () => {
    const text = table([played({}, { leftOut: ['a', 'b'] })], { ...about, notPlayed: ['y', 'z'] })
    expect(text).to.contain('`x` has every fault of the lab but `a`, `b`.')
    expect(text).to.contain('Not played, for lack of time: y, z.')
    expect(table([], about)).to.contain('No row was played.')
  })

  it('names a broken row, and says so beneath', () => {
    const text = table([played(), played({ lost: 2 })], about)
    expect(text)
      .to.contain('**a fault: BROKEN**')
      .and.to.contain('1 of 2 rows broke a promise. Seed 7, 2026-01-02, 2 min 50 s')
    expect(table([played()], about)).to.contain('All rows kept their promises')
  })

  const untried: Readonly<Record<string, Played>> = {
    'whose fault could not be injected or healed': played({}, { trouble: '"a fault" could not be injected or healed' }),
    'in which nothing was injected': played({}, { injected: 0 }),
    'through which nothing came': played({ messages: 0 }),
    'in which nothing came to what it is there for': played({ refused: 0 }, { provokes: ['refused'] }),
  }

  for (const [what, row] of Object.entries(untried)) {
    it(`fails a row ${what}, and does not say that it broke a promise`, () => {
      expect(failings(row)).to.have.lengthOf(1)
      expect(broken(row)).to.deep.equal([])
      expect(endOf(row)).to.equal('NOT TRIED TO THE END')
      expect(table([played(), row], about))
        .to.contain('**a fault: NOT TRIED TO THE END**')
        .and.to.contain('1 of 2 rows could not be tried to the end. Seed 7')
        .and.not.to.match(/BROKEN|broke a promise|All rows kept/)
    })
  }

  it('says that a promise was broken also of a row that could not be tried to the end', () => {
    const row = played({ lost: 2 }, { trouble: 'it did not drain' })
    expect(failings(row)).to.deep.equal(['lost 2', 'it did not drain'])
    expect(endOf(row)).to.equal('BROKEN')
  })

  it('counts those that broke a promise and those that could not be tried apart', () => {
    const rows = [played(), played({ lost: 2 }, { trouble: 'it did not drain' }), played({}, { injected: 0 })]
    expect(table(rows, about)).to.contain(
      '1 of 3 rows broke a promise, 1 of 3 rows could not be tried to the end. Seed 7',
    )
  })

  it('adds up all rows, with the longest gap of any', () => {
    const text = table([played({}, { injected: 2 }), played({ longestGapMs: 20_000 })], about)
    expect(text).to.match(/^\| all 2 +\| +24,690 \| +5 \|.*\| +20\.0 \|$/m)
  })
})
