import { expect } from 'chai'
import { contests } from './contestants.ts'
import type { Measured } from './job.ts'
import { quantiles } from './quantiles.ts'
import { section } from './report.ts'

const rates = (...perSecond: number[]): Measured[] => perSecond.map((it) => ({ perSecond: it }))

const result = {
  title: 'Race',
  columns: [{ head: 'messages/s', figure: 'perSecond', compared: true }],
  runs: { slow: rates(1_000, 4_000, 2_000), fast: rates(2_000, 4_000, 8_000) },
  order: [
    ['slow', 'fast'],
    ['fast', 'slow'],
    ['slow', 'fast'],
  ],
  messages: 20_000,
  warmup: 10_000,
  seconds: 61.4,
  load: 0.2,
  at: '2026-11-22T01:02:03.000Z',
  commit: 'abc1234',
} as const

describe("a benchmark's report", () => {
  it('tells the median with its range, and the median of the ratios within a turn, not the ratio of the medians', () => {
    const row = section(result)
      .split('\n')
      .find((line) => line.startsWith('| fast'))
    expect(row?.split('|').map((cell) => cell.trim())).to.deep.equal([
      '',
      'fast',
      '4,000 (2,000–8,000)',
      '2.00 (1.00–4.00)',
      '',
    ])
  })

  it('tells how much was measured, when, of which code, how long it took, and how busy the machine was', () => {
    expect(section(result)).to.contain(
      '3 turns, 20,000 measured after 10,000 to warm up; 2026-11-22, commit abc1234; it took 61 s, and began at a load of 0.2.',
    )
  })

  it('shows a figure that a contestant does not have as a dash', () => {
    const without = { ...result, runs: { ...result.runs, other: [{}, {}, {}] } }
    expect(section(without)).to.match(/\| other +\| +– \| +– \|/)
  })

  it('takes quantiles that were really measured', () => {
    const at = quantiles([5, 1, 4, 2, 3])
    expect([at(0), at(0.5), at(0.99), at(1)]).to.deep.equal([1, 3, 5, 5])
    expect(quantiles([])(0.5)).to.be.NaN
  })

  it('has a contest only where its first contestant can be compared, and names its figures once', () => {
    for (const [name, { columns, contestants }] of Object.entries(contests)) {
      expect(Object.keys(contestants), name).to.not.be.empty
      expect(new Set(columns.map(({ figure }) => figure)).size, name).to.equal(columns.length)
    }
  })
})
