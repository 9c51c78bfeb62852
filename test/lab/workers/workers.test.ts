// The instruments of the workers: a clock that is off, and a store that notes what it sees.

import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect } from 'chai'
import { type IdempotencyStore, MemoryIdempotencyStore, type Scope } from '../../../lib/index.ts'
import { LedgerReader } from '../ledger/reader.ts'
import { LedgerWriter } from '../ledger/writer.ts'
import { NotingStore } from './noting-store.ts'

const OFF_MS = -30 * 60_000
const ASK = 'console.log(JSON.stringify([Date.now(), new Date().getTime(), Date.parse(Date()), new Date(5).getTime()]))'

describe("the lab's wrong clock", () => {
  it('moves every way to ask for the time, and no time that is given', async () => {
    const env = { ...process.env, SUREHOP_LAB_CLOCK_MS: `${OFF_MS}` }
    const clock = fileURLToPath(new URL('./clock.ts', import.meta.url))
    const args = ['--import', 'tsx', '--import', clock, '--input-type=module', '-e', ASK]
    const { stdout } = await promisify(execFile)(process.execPath, args, { env })
    const [now, made, said, given] = JSON.parse(stdout) as [number, number, number, number]
    for (const asked of [now, made, said]) expect(asked).to.be.closeTo(Date.now() + OFF_MS, 60_000)
    expect(given).to.equal(5)
  }).timeout(60_000)
})

describe("the lab's noting store", () => {
  const scope: Scope = { name: 'q', retentionMs: 60_000, leaseMs: 20, maxStarts: 3 }
  const claim = { id: 'a', digest: undefined, generation: 0, attempt: 1, sequence: 1 }
  let folder: string
  let ledger: LedgerWriter

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'surehop-noting-'))
    ledger = new LedgerWriter(folder, 1)
  })

  afterEach(() => {
    ledger.close()
    rmSync(folder, { recursive: true, force: true })
  })

  const noted = () => {
    ledger.flush()
    return [...new LedgerReader(folder).entries()]
  }

  it('notes an end when the store has recorded it, with the time of the first request, and no end that was refused', async () => {
    const inner = new MemoryIdempotencyStore()
    let fails = true
    const settle: typeof inner.settle = (...args) =>
      fails ? Promise.reject(new Error('no answer')) : inner.settle(...args)
    const store = new NotingStore({ ...methodsOf(inner), settle }, ledger)
    const [claimed] = await store.claim(scope, 'me', [claim])
    const fencingToken = claimed?.status === 'acquired' ? claimed.fencingToken : 0
    const end = { id: 'a', fencingToken, digest: undefined, ending: { state: 'completed' as const } }
    const before = Number(process.hrtime.bigint())
    await store.settle(scope, 'me', [end]).catch(() => {})
    const after = Number(process.hrtime.bigint())
    expect(noted()).to.deep.equal([])
    fails = false
    await store.settle(scope, 'me', [end])
    await store.settle(scope, 'me', [{ ...end, fencingToken: fencingToken - 1 }])
    const [ended, ...more] = noted()
    expect(more.map(({ is }) => is)).to.deep.equal(['denied'])
    expect(ended).to.include({ is: 'ended', id: 'a', token: fencingToken, as: 'completed' })
    expect(ended).to.have.property('since').within(before, after)
  })

  it('notes an end that the store refused, and a message that another holds', async () => {
    const inner = new MemoryIdempotencyStore()
    const store = new NotingStore(inner, ledger)
    await inner.renew({ ...scope, leaseMs: 60_000 }, 'another')
    const [held] = await inner.claim({ ...scope, leaseMs: 60_000 }, 'another', [claim])
    const [refused] = await store.claim(scope, 'me', [claim])
    expect([held?.status, refused?.status]).to.deep.equal(['acquired', 'leased'])
    const fencingToken = held?.status === 'acquired' ? held.fencingToken : 0
    const late = { id: 'a', fencingToken: fencingToken - 1, digest: undefined, ending: { state: 'completed' as const } }
    await store.settle(scope, 'me', [late])
    const [putOff, denied, ...more] = noted()
    expect(more).to.deep.equal([])
    expect(putOff).to.include({ is: 'put-off', id: 'a' })
    expect(denied).to.include({ is: 'denied', id: 'a', token: fencingToken - 1, as: 'completed' })
  })

  it('notes a silence longer than the lease while it lasts and when it is over, and no shorter one', async () => {
    const inner = new MemoryIdempotencyStore()
    let fails = false
    const renew: typeof inner.renew = (...args) => (fails ? Promise.reject(new Error('no')) : inner.renew(...args))
    const store = new NotingStore({ ...methodsOf(inner), renew }, ledger)
    await store.renew({ ...scope, leaseMs: 60_000 }, 'me')
    await store.renew({ ...scope, leaseMs: 60_000 }, 'me')
    expect(noted()).to.deep.equal([])
    fails = true
    await pause(2 * scope.leaseMs)
    await store.renew(scope, 'me').catch(() => {})
    fails = false
    await store.renew(scope, 'me')
    expect(noted().map(({ is }) => is)).to.deep.equal(['silent', 'silent'])
  })
})

/** Its methods, to replace some of them: private fields are not inherited. */
function methodsOf(store: MemoryIdempotencyStore): IdempotencyStore {
  const { claim, settle, renew, look, check, close } = store
  const own = { claim, settle, renew, look, check, close }
  return Object.fromEntries(Object.entries(own).map(([name, method]) => [name, method.bind(store)])) as never
}
