import { expect } from 'chai'
import type { HalfMessage } from '../../lib/transactional-message/envelope.ts'
import { PreparedHere } from '../../lib/transactional-message/prepared-here.ts'

function half(transactionId: string, bytes: number): HalfMessage {
  const properties = { headers: {} }
  const content = Buffer.alloc(bytes)
  const encoded = { messageId: 'm', transactionId, exchange: '', routingKey: 'q', content, properties }
  return {
    halfId: transactionId,
    transactionId,
    preparedAt: 0,
    service: 's',
    messages: [{ encoded, key: undefined, delayMs: undefined }],
  }
}

describe('what a sender keeps of its own', () => {
  it('is at most 64 MiB, the latest', () => {
    const prepared = new PreparedHere()
    for (let i = 0; i < 10; i++) prepared.add(half(`${i}`, 10 * 1024 * 1024))
    expect(prepared.count).to.equal(6)
    expect(prepared.of('3')).to.deep.equal([])
    expect(prepared.of('4')).to.have.length(1)
  })

  it('is at most 64 MiB with all that messages take, however small their bodies are', () => {
    const prepared = new PreparedHere()
    const [small] = half('t', 1).messages
    const headers = { large: 'x'.repeat(50_000) }
    const wide = { ...small!, encoded: { ...small!.encoded, properties: { ...small!.encoded.properties, headers } } }
    for (let i = 0; i < 2_000; i++) prepared.add({ ...half(`${i}`, 1), messages: Array(100).fill(small) })
    expect(prepared.count).to.be.within(500, 700)
    for (let i = 0; i < 2_000; i++) prepared.add({ ...half(`wide-${i}`, 1), messages: [wide] })
    expect(prepared.count).to.be.within(1_200, 1_350)
  })

  it('is at most 10,000, and one however large', () => {
    const prepared = new PreparedHere()
    for (let i = 0; i < 10_050; i++) prepared.add(half(`${i}`, 1))
    expect(prepared.count).to.equal(10_000)
    prepared.add(half('huge', 70 * 1024 * 1024))
    expect(prepared.count).to.equal(1)
    expect(prepared.of('huge')).to.have.length(1)
  })

  it('ends with the transaction, all of one id at once', () => {
    const prepared = new PreparedHere()
    prepared.add(half('t', 1))
    prepared.add(half('t', 1))
    expect(prepared.of('t')).to.have.length(2)
    prepared.drop('t')
    prepared.drop('t')
    expect(prepared.count).to.equal(0)
  })
})
