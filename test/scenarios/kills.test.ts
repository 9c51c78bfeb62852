// Effects survive the death of those who make them. The full size, as `npm run scenario:kills`.

import { expect } from 'chai'
import { killRun } from './kill-run.ts'

describe('scenario: consumers killed while messages flow', function () {
  this.timeout(900_000)

  it('handles 20,000 messages, each published twice, over 100 kill -9: none lost, none left, every repeated effect explained by a death', async () => {
    const report = await killRun({
      messages: 20_000,
      kills: 100,
      processes: 3,
      leaseMs: 1_000,
      longestLifeMs: 1_500,
      withinMs: 600_000,
    })
    const { unhandled, unexplained, left, repeated } = report
    expect({ unhandled, unexplained, left }).to.deep.equal({ unhandled: 0, unexplained: [], left: 0 })
    expect(report.kills).to.be.at.least(100)
    // Ten handlers at most run, and ten wait for their record, when their process dies.
    expect(repeated).to.be.within(1, 20 * report.kills)
  })
})
