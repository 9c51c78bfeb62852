// The lab's own workload, small, on a broker without a proxy: what is sound passes, and consumers that break what Surehop promises are caught.

import { expect } from 'chai'
import { eventually } from '../support/eventually.ts'
import { startProxy, type TcpProxy } from '../support/tcp-proxy.ts'
import { allFaults } from './faults/all.ts'
import { type FleetSettings, startFleet, type WorkingFleet } from './fleet.ts'
import { LedgerReader } from './ledger/reader.ts'
import { randomFrom } from './random.ts'
import { type Reconciled, reconcile } from './reconcile.ts'
import type { World } from './world.ts'

const WITHIN_MS = 120_000
const FEW = { producer: 1, 'outbox-writer': 1, relay: 1, consumer: 2, 'inbox-consumer': 2 }
const CALM = {
  ...{ seed: 7, leaseMs: 1_000, workers: FEW },
  ...{ perSecond: { direct: 150, outbox: 40 }, failing: { late: 50, dead: 20 } },
}
/** Only the direct path, whose consumers cheat. */
const CHEATED = {
  workers: { producer: 1, 'outbox-writer': 0, relay: 0, consumer: 2, 'inbox-consumer': 0 },
  failing: { late: 0, dead: 0 },
}
const SLEEPS = 16
const EACH_ROLE = ['consumer', 'producer', 'inbox-consumer', 'outbox-writer', 'relay'] as const
const FAULTLESS = { lost: 0, doubled: 0, zombies: 0, attempts: 0, outOfOrder: 0, phantom: 0, left: 0 }

describe("the lab's fleet", function () {
  this.timeout(400_000)
  // It takes minutes on a busy machine: once is enough to know.
  this.retries(0)

  it('handles everything once while one process of each role is killed', async () => {
    await using fleet = await start()
    for (const role of EACH_ROLE) {
      await more(fleet, 40)
      await fleet.kill9(fleet.living(role)[0]!)
    }
    await more(fleet, 100)
    await fleet.enough(WITHIN_MS)
    await fleet.drained(WITHIN_MS)
    const verdict = await judged(fleet)
    expect(verdict.evidence).to.deep.equal([])
    expect(verdict).to.include(FAULTLESS)
    expect(verdict.messages).to.be.at.least(300)
    expect(verdict.deadLetters).to.be.at.least(1)
    // Each that was born has died; five of them were killed.
    expect(verdict.counts).to.include({ born: verdict.counts['died'] })
    expect(verdict.counts['born']).to.be.at.least(7 + EACH_ROLE.length)
    await fleet.discard()
  })

  it('goes on when a consumer is frozen beyond its lease, and when clocks are wrong', async () => {
    await using fleet = await start()
    await more(fleet, 50)
    for (const role of EACH_ROLE) await fleet.restartWithClock(fleet.living(role)[0]!, 20 * 60_000)
    await Promise.all([
      fleet.freeze(fleet.living('consumer')[1]!, 3_000),
      fleet.freeze(fleet.living('inbox-consumer')[0]!, 3_000),
    ])
    await more(fleet, 100)
    await fleet.enough(WITHIN_MS)
    await fleet.drained(WITHIN_MS)
    const verdict = await judged(fleet)
    expect(verdict.evidence).to.deep.equal([])
    expect(verdict).to.include(FAULTLESS)
    expect(verdict.counts['silent']).to.be.at.least(1)
    await fleet.discard()
  })

  it('lets others take over what a frozen consumer held, and refuses what it tries when it wakes', async () => {
    await using proxy = await startProxy(services().amqp)
    await using fleet = await start({ amqp: [proxy.url] })
    await more(fleet, 50)
    for (const role of ['consumer', 'inbox-consumer']) await inject(`zombie-${role}`, fleet, proxy)
    await more(fleet, 100)
    await fleet.enough(WITHIN_MS)
    await fleet.drained(WITHIN_MS)
    const verdict = await judged(fleet)
    expect(verdict.evidence).to.deep.equal([])
    expect(verdict).to.include(FAULTLESS)
    expect(verdict.takenOver).to.be.at.least(2)
    expect(verdict.refused).to.be.at.least(2)
    await fleet.discard()
  })

  it('is caught writing as a zombie when its store does not ask who holds the lease', async () => {
    await using proxy = await startProxy(services().amqp)
    await using fleet = await start({ ...CHEATED, sabotage: 'no-owner-check', amqp: [proxy.url] })
    await more(fleet, 50)
    // A sleeper may wake in a handler that heeds its signal: that one does not say that it is done.
    const zombies = () => reconcile(new LedgerReader(fleet.folder).entries()).zombies
    for (let times = 0; times < SLEEPS && zombies() === 0; times++) await inject('zombie-consumer', fleet, proxy)
    await fleet.enough(WITHIN_MS)
    await fleet.drained(WITHIN_MS)
    const verdict = await judged(fleet)
    expect(verdict.zombies).to.be.at.least(1)
    expect(verdict.evidence.join()).to.include('recorded its end over')
    await fleet.discard()
  })

  it('tells of processes that end badly when all is done and they are closed', async () => {
    await using fleet = await start({ ...CHEATED, sabotage: 'no-good-end' })
    await more(fleet, 20)
    await fleet.enough(WITHIN_MS)
    await fleet.drained(WITHIN_MS)
    expect(await judged(fleet)).to.include(FAULTLESS)
    const crashes = fleet.crashes()
    expect(crashes).to.have.lengthOf(2)
    for (const crash of crashes) expect(crash).to.match(/^consumer \d+ ended by itself \(1\): [\s\S]*it ended badly/)
    await fleet.discard()
  })

  it('is caught losing messages when its consumers ack before the effect', async () => {
    await using fleet = await start({ ...CHEATED, sabotage: 'acks-first' })
    await more(fleet, 50)
    await fleet.kill9(fleet.living('consumer')[0]!)
    await fleet.enough(WITHIN_MS)
    const missing = await fleet.drained(20_000).catch((error: Error) => error.message)
    expect(missing).to.match(
      /the end of all messages did not happen within 20000 ms; last seen: [1-9]\d* direct .* wait/,
    )
    const verdict = await judged(fleet)
    expect(verdict.lost).to.be.at.least(1)
    expect(verdict).to.include({ ...FAULTLESS, lost: verdict.lost })
    await fleet.discard()
  })

  it('is caught doing things twice when its consumers keep no record', async () => {
    await using proxy = await startProxy(services().amqp)
    await using fleet = await start({ ...CHEATED, sabotage: 'no-record', amqp: [proxy.url] })
    await more(fleet, 50)
    proxy.cut()
    await more(fleet, 50)
    await fleet.enough(WITHIN_MS)
    await fleet.drained(WITHIN_MS)
    const verdict = await judged(fleet)
    expect(verdict.doubled).to.be.at.least(1)
    expect(verdict).to.include({ ...FAULTLESS, doubled: verdict.doubled })
    expect(verdict.evidence.join()).to.include('was alive')
    await fleet.discard()
  })
})

function services(): { readonly amqp: string; readonly redis: string; readonly postgres: string } {
  const { AMQP_URL: amqp, REDIS_URL: redis, DATABASE_URL: postgres } = process.env
  if (amqp && redis && postgres) return { amqp, redis, postgres }
  throw new Error('services are not there: run with `node test/support/first-run.mjs --services ...`')
}

async function start(settings: Partial<FleetSettings> = {}): Promise<WorkingFleet> {
  const { amqp, redis, postgres } = services()
  return startFleet({ amqp: [amqp], redis: { kind: 'single', url: redis }, postgres, ...CALM, ...settings })
}

/** As the lab's row of that name does, with one proxy in front of the broker. */
async function inject(id: string, fleet: WorkingFleet, proxy: TcpProxy): Promise<void> {
  const world = { fleet, brokerProxies: [proxy] as const } as unknown as World
  await allFaults
    .find((fault) => fault.id === id)!
    .deal(randomFrom(7))
    .inject(world)
}

/** Waits until so many more are handled. */
async function more(fleet: WorkingFleet, messages: number): Promise<void> {
  const before = fleet.progress().handled
  const check = () => fleet.progress().handled >= before + messages
  await eventually(check, { withinMs: WITHIN_MS, what: `${messages} more handled messages` })
}

async function judged(fleet: WorkingFleet): Promise<Reconciled> {
  await fleet.close()
  return reconcile(new LedgerReader(fleet.folder).entries())
}
