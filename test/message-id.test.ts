import { expect } from 'chai'
import { validate, version } from 'uuid'
import { newMessageId } from '../lib/message.ts'

const COUNT = 50_000

describe('new message ids', () => {
  const began = Date.now()
  const ids = Array.from({ length: COUNT }, newMessageId)

  it('are all different', () => {
    expect(new Set(ids).size).to.equal(COUNT)
  })

  it('sort as they were made, also within a millisecond', () => {
    expect([...ids].sort()).to.deep.equal(ids)
  })

  it('are UUIDs of version 7 that carry the time', () => {
    for (const id of ids) expect(validate(id) && version(id)).to.equal(7)
    const ms = Number.parseInt(ids[0]!.replace('-', '').slice(0, 12), 16)
    expect(ms).to.be.within(began, Date.now())
  })

  it('share no random part', () => {
    expect(new Set(ids.map((id) => id.slice(-11))).size).to.equal(COUNT)
  })
})
