// The demo's journal: an effect is done once per message, also over a crash, and never by a run that was taken over.

import { appendFileSync, readFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import { type Effect, type Entry, Journal } from '../../examples/order-inventory/journal.ts'

const RESERVED: Effect = { orderId: 'A-1', effect: 'reserved' }

describe("the demo's journal", () => {
  let folder: string
  let path: string
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'journal-'))
    path = join(folder, 'journal.ndjson')
  })
  afterEach(() => rm(folder, { recursive: true }))

  it('does the effect of a message once', () => {
    const learnt: Entry[] = []
    const journal = new Journal(path, (entry) => learnt.push(entry))
    expect(journal.once('m1', 1, () => RESERVED).repeated).to.equal(false)
    expect(journal.once('m1', 2, () => expect.fail('decided twice'))).to.deep.include({ repeated: true })
    expect(learnt).to.have.length(1)
  })

  it('knows its effects after a crash, and cuts a torn line off', () => {
    new Journal(path).once('m1', 1, () => RESERVED)
    const whole = readFileSync(path, 'utf8')
    appendFileSync(path, '{"messageId":"m2","tok')
    const learnt: Entry[] = []
    const journal = new Journal(path, (entry) => learnt.push(entry))
    expect(learnt.map(({ messageId }) => messageId)).to.deep.equal(['m1'])
    expect(readFileSync(path, 'utf8')).to.equal(whole)
    expect(journal.once('m2', 2, () => RESERVED).repeated).to.equal(false)
    expect(readFileSync(path, 'utf8').split('\n')).to.have.length(3)
  })

  it('refuses a run with an older fencing token', () => {
    const journal = new Journal(path)
    journal.once('m1', 7, () => RESERVED)
    expect(() => journal.once('m1', 6, () => RESERVED)).to.throw('taken over')
  })
})
