// The charges of the demo: an order is charged once, also over a crash, and what was answered to a check stays true.

import { appendFileSync, readFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import { Charges } from '../../examples/order-inventory/charges.ts'

const CHARGE = { orderId: 'A-1', cents: 4_990, transactionId: 't1' }

describe('the charges of the demo', () => {
  let folder: string
  let path: string
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'charges-'))
    path = join(folder, 'charges.ndjson')
  })
  afterEach(() => rm(folder, { recursive: true }))

  const lines = () => readFileSync(path, 'utf8').split('\n').slice(0, -1)

  it('charge an order once, whatever the transaction', () => {
    const charges = new Charges(path)
    charges.add(CHARGE)
    expect(() => charges.add({ ...CHARGE, transactionId: 't2' })).to.throw('order A-1 is charged already')
    expect(lines()).to.have.length(1)
    expect([charges.settled('t1'), charges.settled('t2')]).to.deep.equal(['commit', 'rollback'])
  })

  it('are known after a crash; a torn line is cut off', () => {
    new Charges(path).add(CHARGE)
    const whole = readFileSync(path, 'utf8')
    appendFileSync(path, '{"orderId":"A-2","cen')
    const charges = new Charges(path)
    expect(charges.of('A-1')).to.deep.equal(CHARGE)
    expect(charges.of('A-2')).to.equal(undefined)
    expect(charges.settled('t1')).to.equal('commit')
    expect(readFileSync(path, 'utf8')).to.equal(whole)
    charges.add({ ...CHARGE, orderId: 'A-2', transactionId: 't2' })
    expect(lines()).to.have.length(2)
  })

  it('never charge in a transaction that a check was told is to be rolled back', () => {
    const charges = new Charges(path)
    expect(charges.settled('t1')).to.equal('rollback')
    expect(() => charges.add(CHARGE)).to.throw('transaction t1 was rolled back')
    charges.add({ ...CHARGE, transactionId: 't2' })
    expect(charges.settled('t1')).to.equal('rollback')
  })
})
