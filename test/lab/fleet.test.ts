// The lab's own workload, small, on a broker without a proxy: what is sound passes, and consumers that break what Surehop promises are caught.

import { expect } from 'chai'
import { type FleetSettings, startFleet, type WorkingFleet } from './fleet.ts'
import { LedgerReader } from './ledger/reader.ts'
import { type Reconciled, reconcile } from './reconcile.ts'

const MESSAGES = { direct: 300, outbox: 100 }
const WITHIN_MS = 120_000

describe("the lab's fleet", function () {
  this.timeout(400_000)
  // It takes minutes on a busy machine: once is enough to know.
  this.retries(0)

  it('handles everything once while one process of each role is killed', async () => {
    await using fleet = await start({ perSecond: { direct: 150, outbox: 50 }, failing: { late: 50, dead: 20 } })
    for (const role of ['consumer', 'producer', 'inbox-consumer', 'outbox-writer', 'relay'] as const)
      await fleet.kill9(fleet.living(role)[0]!)
    const verdict = await judged(fleet)
    expect(verdict.evidence).to.deep.equal([])
    expect(verdict).to.include({ lost: 0, doubled: 0, zombies: 0, outOfOrder: 0, phantom: 0, left: 0 })
    expect(verdict.messages).to.be.at.least(MESSAGES.direct + MESSAGES.outbox)
    expect(verdict.counts).to.include({ died: 5 + WORKERS })
    await fleet.discard()
  })
})

const WORKERS = 10

async function start(settings: Partial<FleetSettings>): Promise<WorkingFleet> {
  const { AMQP_URL: amqp, REDIS_URL: redis, DATABASE_URL: postgres } = process.env
  if (!amqp || !redis || !postgres)
    throw new Error('services are not there: run with `node test/support/first-run.mjs --services ...`')
  return startFleet({
    amqp: [amqp],
    redis: { kind: 'single', url: redis },
    postgres,
    leaseMs: 1_000,
    messages: MESSAGES,
    ...settings,
  })
}

async function judged(fleet: WorkingFleet): Promise<Reconciled> {
  await fleet.offeredAll
  await fleet.enough(WITHIN_MS)
  await fleet.drained(WITHIN_MS)
  await fleet.close()
  return reconcile(new LedgerReader(fleet.folder).entries())
}
