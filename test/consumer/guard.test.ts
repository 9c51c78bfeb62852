// The consumer's side of idempotency, against a store on command: when it asks, when it tells that leases are lost, when it waits.

import { expect } from 'chai'
import type { RunEnding } from '../../lib/consumer/handler.ts'
import { LeaseLost, StoreUnavailable } from '../../lib/errors.ts'
import { StoreGuard } from '../../lib/idempotency/guard.ts'
import type { IdempotencyStore } from '../../lib/idempotency/idempotency.ts'
import { MemoryIdempotencyStore } from '../../lib/idempotency/memory.ts'
import { Events } from '../../lib/observability/events.ts'
import { run } from './fakes.ts'
import { VirtualTime } from './virtual-time.ts'

const LEASE_MS = 3_000
const HOUR_MS = 3_600_000
const scope = { name: 'work', retentionMs: HOUR_MS, leaseMs: LEASE_MS, maxStarts: 3 }
const COMPLETED: RunEnding = { state: 'completed' }

/** A store that notes what it is asked, and is down on command. */
class Store {
  readonly asked: string[] = []
  readonly memory = new MemoryIdempotencyStore()
  down = false
  lapsed = false
  /** How long renewals take. */
  renewalMs = 0
  /** What happens between the store's decision of a claim and the arrival of its answer; once. */
  meanwhile: (() => Promise<unknown>) | undefined

  get asStore(): IdempotencyStore {
    const ask = <T>(what: string, answer: () => Promise<T>): Promise<T> => {
      this.asked.push(this.down ? `${what} (down)` : what)
      return this.down ? Promise.reject(new StoreUnavailable('down')) : answer()
    }
    const { memory } = this
    return {
      claim: (scope, owner, claims) =>
        ask(`claim ${claims.length}`, async () => {
          const results = await memory.claim(scope, owner, claims)
          const { meanwhile } = this
          this.meanwhile = undefined
          await meanwhile?.()
          return results
        }),
      settle: (scope, owner, ends) => ask(`settle ${ends.length}`, () => memory.settle(scope, owner, ends)),
      renew: async (scope, owner, options) => {
        const held = await ask(options?.leave ? 'leave' : 'renew', () => memory.renew(scope, owner, options))
        if (this.renewalMs > 0) await new Promise((resolve) => setTimeout(resolve, this.renewalMs))
        return this.lapsed ? 'lapsed' : held
      },
      look: (scope, ids) => memory.look(scope, ids),
      check: async () => [],
      close: async () => {},
    }
  }
}

/** As a store in plain JavaScript may be: its methods throw, and return no promise that rejects. */
function throwing(store: IdempotencyStore): IdempotencyStore {
  const fail = () => {
    throw new Error('it throws')
  }
  return { ...store, claim: fail, settle: fail, renew: fail }
}

describe('guard', () => {
  let time: VirtualTime
  let store: Store
  let guard: StoreGuard
  let lost: Error[]

  beforeEach(async () => {
    time = new VirtualTime(1)
    time.install()
    store = new Store()
    lost = []
    guard = new StoreGuard({ store: store.asStore, scope, events: new Events('test'), running: () => 0 })
    guard.onLeasesLost((reason) => lost.push(reason))
    await guard.start()
  })

  afterEach(async () => {
    store.down = false
    const closed = guard.close().then(() => true)
    let done = false
    void closed.then(() => {
      done = true
    })
    await time.pass(() => done, time.now + HOUR_MS)
    time.uninstall()
  })

  const pass = (ms: number) => time.pass(() => false, time.now + ms)

  /** The answer, however long the grace. */
  const later = async <T>(answer: Promise<T>): Promise<T> => {
    let come = false
    void answer.then(() => {
      come = true
    })
    await time.pass(() => come, time.now + HOUR_MS)
    return answer
  }

  it('asks for all that came together at once, and records it so', async () => {
    const runs = Array.from({ length: 20 }, (_, n) => run({ id: `m${n}`, fencingToken: undefined }))
    await pass(1)
    store.asked.length = 0
    const admissions = await Promise.all(runs.map((one) => guard.admit(one)))
    expect(new Set(admissions.map((admission) => admission?.admit))).to.deep.equal(new Set(['run']))
    expect(await Promise.all(runs.map((one) => guard.end(one, COMPLETED)))).to.deep.equal(runs.map(() => 'recorded'))
    expect(store.asked).to.deep.equal(['claim 20', 'settle 20'])
  })

  it('renews three times per lease, however many messages it holds', async () => {
    await Promise.all(Array.from({ length: 5 }, (_, n) => guard.admit(run({ id: `m${n}`, fencingToken: undefined }))))
    store.asked.length = 0
    await pass(LEASE_MS + 10)
    expect(store.asked).to.deep.equal(['renew', 'renew', 'renew'])
    expect(lost).to.deep.equal([])
  })

  it('tells once that its leases are lost when it was frozen for longer than a lease, and works on', async () => {
    time.now += LEASE_MS * 2
    store.lapsed = true
    await pass(10)
    store.lapsed = false
    await pass(LEASE_MS * 2)
    expect(lost).to.have.length(1)
    expect(lost[0]).to.be.instanceOf(LeaseLost)
    expect((await guard.admit(run({ fencingToken: undefined })))?.admit).to.equal('run')
  })

  // The grant lay in the socket of a frozen process; on waking it is the first thing that is read.
  it('starts nothing on a grant that is older than a lease, when another has the message by then', async () => {
    const { memory } = store
    const theirs = { id: 'm', digest: undefined, generation: 0, attempt: 1, sequence: 0 }
    store.meanwhile = async () => {
      time.now += LEASE_MS * 2
      expect((await memory.claim(scope, 'another', [theirs]))[0]!.status).to.equal('acquired')
      await memory.renew({ ...scope, leaseMs: HOUR_MS }, 'another')
    }
    expect((await later(guard.admit(run({ id: 'm', fencingToken: undefined }))))?.admit).to.equal('later')
    expect(lost).to.have.length(1)
  })

  it('keeps a grant that is older than a lease when nobody took it over, and counts one start', async () => {
    store.meanwhile = async () => {
      time.now += LEASE_MS * 2
    }
    const ours = run({ id: 'm', fencingToken: undefined })
    expect((await later(guard.admit(ours)))?.admit).to.equal('run')
    expect(store.asked.filter((what) => what === 'claim 1')).to.have.length(2)
    expect(await guard.end(ours, COMPLETED)).to.equal('recorded')
  })

  // The renewal, not yet executed, lies before the claim: it would revive us, and the claim could take over from others.
  it('asks for a grant that came too late once more only when claims may be sent: not beside a renewal that hangs', async () => {
    store.meanwhile = async () => {
      time.now += LEASE_MS * 2
      store.renewalMs = LEASE_MS * 2
    }
    const admitted = guard.admit(run({ id: 'm', fencingToken: undefined }))
    void time.sleep(LEASE_MS * 3.9)
    await pass(LEASE_MS * 3.9)
    expect(store.asked.slice(store.asked.indexOf('claim 1'))).to.deep.equal(['claim 1', 'renew'])
    store.renewalMs = 0
    expect((await later(admitted))?.admit).to.equal('run')
  })

  it('ends, where a grant came too late, as soon as it is halted', async () => {
    store.meanwhile = async () => {
      time.now += LEASE_MS * 2
      store.down = true
    }
    const admitted = guard.admit(run({ id: 'm', fencingToken: undefined }))
    await pass(LEASE_MS * 3)
    guard.halt()
    expect((await later(admitted))?.admit).to.equal('run')
  })

  it('starts nothing on a grant that comes after it has told that its leases are lost: that could not be told again', async () => {
    let answer = () => {}
    store.renewalMs = LEASE_MS * 4
    store.meanwhile = () =>
      new Promise<void>((resolve) => {
        answer = resolve
      })
    let admitted = false
    const admission = guard.admit(run({ id: 'm', fencingToken: undefined })).then((it) => {
      admitted = true
      return it
    })
    void time.sleep(LEASE_MS * 0.9)
    await pass(LEASE_MS * 0.9)
    expect(store.asked.slice(-2)).to.deep.equal(['claim 1', 'renew'])
    await pass(LEASE_MS * 0.15)
    expect(lost).to.have.length(1)
    expect(admitted).to.equal(false)
    answer()
    await pass(LEASE_MS)
    expect(admitted).to.equal(false)
    store.renewalMs = 0
    expect((await later(admission))?.admit).to.equal('run')
  })

  it('tells each time the store says that it came too late', async () => {
    store.lapsed = true
    await pass(LEASE_MS + 10)
    expect(lost).to.have.length(3)
  })

  it('tells that its leases are lost once per outage that outlasts them, and not in a shorter one', async () => {
    store.down = true
    await pass(LEASE_MS / 2)
    store.down = false
    await pass(LEASE_MS)
    expect(lost).to.deep.equal([])
    store.down = true
    await pass(LEASE_MS * 4)
    expect(lost).to.have.length(1)
    expect(guard.problem).to.match(/nothing is run: down/)
    store.down = false
    await pass(LEASE_MS)
    expect([lost.length, guard.problem]).to.deep.equal([1, undefined])
  })

  // A claim keeps its owner alive only where its ids are kept; of all other leases nothing but the renewals is known.
  it('tells that its leases are lost a lease after its last renewal, however lately it has claimed', async () => {
    void time.sleep(LEASE_MS * 0.65)
    await pass(LEASE_MS * 0.65)
    expect((await guard.admit(run({ fencingToken: undefined })))?.admit).to.equal('run')
    store.down = true
    await pass(LEASE_MS * 0.9)
    expect(lost).to.have.length(1)
  })

  it('tells that its leases are lost while the renewal that should have kept them hangs', async () => {
    store.renewalMs = LEASE_MS * 2
    void time.sleep(LEASE_MS * 1.1)
    await pass(LEASE_MS * 1.1)
    expect(lost).to.have.length(1)
  })

  it('claims nothing after a long outage before all had the time to renew and record, and records at once', async () => {
    const held = run({ id: 'held', fencingToken: undefined })
    await guard.admit(held)
    store.down = true
    const ended = guard.end(held, COMPLETED)
    await pass(LEASE_MS * 3)
    const admitted = guard.admit(run({ id: 'next', fencingToken: undefined }))
    store.asked.length = 0
    store.down = false
    await pass(LEASE_MS - 500)
    expect(store.asked).to.include.members(['renew', 'settle 1'])
    expect(store.asked).to.not.include('claim 1')
    expect(await ended).to.equal('recorded')
    await pass(LEASE_MS)
    expect((await admitted)?.admit).to.equal('run')
  })

  it('claims nothing after a silence that nobody took for an outage, before all had the time to renew', async () => {
    store.renewalMs = LEASE_MS * 0.6
    await pass(LEASE_MS)
    store.asked.length = 0
    store.renewalMs = 0
    const admitted = guard.admit(run({ id: 'next', fencingToken: undefined }))
    await pass(LEASE_MS - 500)
    expect(store.asked).to.not.include('claim 1')
    await pass(LEASE_MS)
    expect((await admitted)?.admit).to.equal('run')
  })

  it('goes on claiming where the store is slow all the time', async () => {
    store.renewalMs = LEASE_MS * 0.3
    await time.pass(() => store.asked.length > 4, time.now + HOUR_MS)
    const admitted = guard.admit(run({ id: 'next', fencingToken: undefined }))
    void time.sleep(LEASE_MS)
    await pass(LEASE_MS)
    expect(store.asked).to.include('claim 1')
    expect((await admitted)?.admit).to.equal('run')
  })

  it('goes on claiming where the store is slow every other time', async () => {
    const renewals = () => store.asked.filter((what) => what === 'renew').length
    for (let n = 0; n < 2; n++) {
      store.renewalMs = LEASE_MS * 0.3
      const before = renewals()
      await time.pass(() => renewals() > before, time.now + HOUR_MS)
      store.renewalMs = 0
      await time.pass(() => renewals() > before + 1, time.now + HOUR_MS)
    }
    let come = false
    void guard.admit(run({ id: 'next', fencingToken: undefined })).then(() => {
      come = true
    })
    for (let n = 0; n < 10 && !come; n++) {
      store.renewalMs = n % 2 === 0 ? LEASE_MS * 0.3 : 0
      const before = renewals()
      await time.pass(() => come || renewals() > before, time.now + HOUR_MS)
    }
    expect(come).to.equal(true)
  })

  // Where the store freezes, the claim would lie behind the renewal, which revives its owner.
  it('claims nothing while a renewal is unanswered, the first included: its owner is known when it claims', async () => {
    const store = new Store()
    const fresh = new StoreGuard({ store: store.asStore, scope, events: new Events('test'), running: () => 0 })
    store.renewalMs = 400
    await fresh.start()
    const first = fresh.admit(run({ id: 'first', fencingToken: undefined }))
    void time.sleep(300)
    await pass(300)
    expect(store.asked).to.deep.equal(['renew'])
    expect((await later(first))?.admit).to.equal('run')
    store.asked.length = 0
    await time.pass(() => store.asked.includes('renew'), time.now + LEASE_MS)
    const second = fresh.admit(run({ id: 'second', fencingToken: undefined }))
    void time.sleep(300)
    await pass(300)
    expect(store.asked).to.not.include('claim 1')
    expect((await later(second))?.admit).to.equal('run')
    await later(fresh.close())
  })

  it('lets go of whoever waits for admission when it is halted, and still records', async () => {
    const held = run({ id: 'held', fencingToken: undefined })
    await guard.admit(held)
    store.down = true
    const waiting = guard.admit(run({ id: 'waits', fencingToken: undefined }))
    await pass(50)
    guard.halt()
    expect(await waiting).to.equal(undefined)
    expect(await guard.admit(run({ id: 'late' }))).to.equal(undefined)
    store.down = false
    const ended = guard.end(held, COMPLETED)
    await pass(3_000)
    expect(await ended).to.equal('recorded')
  })

  it('takes a store that throws instead of rejecting for one that is away, and closes', async () => {
    const broken = new StoreGuard({
      store: throwing(store.asStore),
      scope,
      events: new Events('test'),
      running: () => 0,
    })
    await broken.start()
    await pass(1_000)
    const asked = [broken.admit(run({ id: 'a' })), broken.end(run({ id: 'b', fencingToken: 1 }), COMPLETED)]
    await pass(1_000)
    expect(broken.problem).to.contain('it throws')
    const closing = broken.close()
    await pass(3_000)
    await closing
    expect(await Promise.all(asked)).to.deep.equal([undefined, undefined])
  })

  it('leaves when it closes, and lets go of what could not be recorded', async () => {
    const held = run({ id: 'held', fencingToken: undefined })
    await guard.admit(held)
    store.down = true
    const ended = guard.end(held, COMPLETED)
    await pass(50)
    const closing = guard.close()
    await pass(3_000)
    await closing
    expect(await ended).to.equal(undefined)
    expect(store.asked.at(-1)).to.equal('leave (down)')
  })
})
