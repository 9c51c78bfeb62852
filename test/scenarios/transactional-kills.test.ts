// Deaths at every step of transactional sending. The full size, as `npm run scenario:transactional-kills`; SEED=n for the order of another run.

import { expect } from 'chai'
import { FAULTS } from './transactional-kills/ledger.ts'
import { tableOf } from './transactional-kills/table.ts'
import { FULL_SIZE, seedOfRun, type TransactionalKillReport, transactionalKills } from './transactional-kills.ts'

/** What must be among the steps that had a death, whatever else there is: the beginning of their names. */
const EXPECTED = {
  writer: ['sql BEGIN|', 'sql INSERT INTO orders', 'sql INSERT INTO outbox', 'sql COMMIT|', 'sql ROLLBACK|'],
  relay: [
    'publish events|before',
    'publish events|sent',
    'confirm|arrived',
    'event outbox.sent|',
    'sql DELETE FROM outbox',
  ],
  consumer: [
    'delivery events|',
    'handler|before',
    'handler|after',
    'sql INSERT INTO effects',
    'sql COMMIT|',
    'ack|before',
    'ack|sent',
  ],
  half: [
    'publish charges.half|',
    'confirm|',
    'work|',
    'decisions.decide|',
    'publish events|',
    'decisions.published|',
    'check|',
    'ack|',
  ],
} as const

describe('scenario: processes of transactional sending killed at every step', function () {
  this.timeout(1_800_000)
  let report: TransactionalKillReport

  before(async () => {
    report = await transactionalKills({ ...FULL_SIZE, seed: seedOfRun() })
    console.log(tableOf(report))
  })

  for (const [protocol, promise] of [
    ['outbox', 'sends the messages of every committed transaction and of no other'],
    ['half messages', 'sends the half messages of all work that was done and of no other'],
  ] as const)
    it(`${promise}, with one effect each, over 500 kill -9`, () => {
      const verdict = report.verdicts[protocol]
      expect(Object.fromEntries(FAULTS.map((fault) => [fault, verdict[fault]]))).to.deep.equal(
        Object.fromEntries(FAULTS.map((fault) => [fault, []])),
      )
      expect(verdict.messages).to.be.greaterThan(100)
      expect(report.kills).to.be.at.least(500)
    })

  it('leaves nothing in a queue, undecided, or unsent', () => {
    expect(report.left).to.deep.equal({})
  })

  for (const [role, steps] of Object.entries(EXPECTED))
    it(`kills a ${role} at each of its steps that matter`, () => {
      const killed = report.steps.filter((step) => step.role === role && step.kills > 0).map(({ step }) => step)
      for (const name of steps)
        expect(
          killed.some((step) => step.startsWith(name)),
          `${role}: ${name} among ${killed.join(', ')}`,
        ).to.equal(true)
    })

  it('finds what the same kills do to a service that publishes after its commit, and to a consumer without an inbox', async () => {
    const after = { places: 1, seed: seedOfRun(), withinMs: 3_000 }
    const late = await transactionalKills({ ...after, kills: { 'naive writer': 5 }, only: 'sql COMMIT|after' })
    expect(late.verdicts.outbox.lost).to.have.lengthOf.at.least(5)
    const kills = { writer: 0, relay: 0, 'naive consumer': 5 }
    const bare = await transactionalKills({ ...after, kills, only: 'handler|after' })
    expect(bare.verdicts.outbox.doubled).to.have.lengthOf.at.least(5)
  })
})
