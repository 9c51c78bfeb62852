// An edit whose line is lost in the middle says what it left.

import { expect } from 'chai'
import { ChannelLost, connect } from '../../lib/index.ts'
import { startProxy } from '../support/tcp-proxy.ts'
import { AMQP_URL, all, Bench } from './support.ts'

const RIGHT = 'the-edited-one'
/** Class and method of `basic.ack`. */
const ACK = Buffer.from([0, 60, 0, 80])

describe('dead letters: an edit that is cut off', function () {
  this.timeout(120_000)
  let bench: Bench
  beforeEach(async () => {
    bench = await Bench.open('editing')
    await bench.bury(2, () => ({ id: 'm-0', body: 'wrong' }))
  })
  afterEach(() => bench.close())

  /** Edits over a line that is cut just before the first bytes that pass `at` reach the broker; what was sent before is told to it. */
  async function cutAt(at: (bytes: Buffer, before: string) => boolean) {
    await using proxy = await startProxy(AMQP_URL)
    await using surehop = await connect({ amqp: proxy.url, service: 'tests' })
    let before = ''
    let cut = false
    proxy.on('data', (way, bytes) => {
      if (way !== 'to-server' || cut) return
      cut = at(bytes, before)
      if (cut) proxy.cut()
      before += bytes.toString('latin1')
    })
    const edited = await surehop
      .deadLetters(bench.queue)
      .edit('m-0', { body: RIGHT })
      .catch((error: unknown) => error)
    expect(cut, 'the line was cut').to.equal(true)
    return edited
  }

  const generations = async () => (await all(bench.letters().list())).map(({ generation }) => generation)

  it('leaves the original alone where it is lost before the edited letter is sent', async () => {
    const error = await cutAt((bytes) => bytes.includes('surehop-discarded-at'))
    expect(error).to.be.instanceOf(ChannelLost)
    expect(await generations()).to.deep.equal([0, 0])
  })

  for (const [what, at] of [
    ['the edited letter', (bytes: Buffer) => bytes.includes(RIGHT)],
    ['the acks', (bytes: Buffer, before: string) => before.includes(RIGHT) && bytes.includes(ACK)],
  ] as const)
    it(`says that the original is left where it is lost with ${what}`, async () => {
      const edited = await cutAt(at)
      expect(edited).to.include({ id: 'm-0', generation: 1, replaced: 0, remaining: 2 })
      const left = await generations()
      expect(left.slice(0, 2)).to.deep.equal([0, 0])
      expect(left.slice(2)).to.include(1)
    })
})
