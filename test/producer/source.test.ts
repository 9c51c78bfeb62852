// A source of messages, and the signals that end it.

import { getEventListeners } from 'node:events'
import { expect } from 'chai'
import { untilAborted } from '../../lib/producer/source.ts'

/** Gives ones without end; counts how often it was asked, and told to clean up. */
class Ones implements AsyncIterableIterator<number> {
  asked = 0
  returned = 0

  async next() {
    this.asked++
    return { done: false, value: 1 } as const
  }

  async return() {
    this.returned++
    return { done: true, value: undefined } as const
  }

  [Symbol.asyncIterator](): this {
    return this
  }
}

describe('a source of messages', () => {
  it('is asked for nothing, and told to clean up, where its signal has fired before', async () => {
    const source = new Ones()
    for await (const _ of untilAborted(source, AbortSignal.abort())) expect.fail('it was asked')
    expect([source.asked, source.returned]).to.deep.equal([0, 1])
  })

  it('is told to clean up once, whether it is left or its signal fires', async () => {
    const [left, ended, stop] = [new Ones(), new Ones(), new AbortController()]
    for await (const _ of untilAborted(left, stop.signal)) break
    for await (const _ of untilAborted(ended, stop.signal)) stop.abort()
    expect([left.returned, ended.returned]).to.deep.equal([1, 1])
  })

  it('ends with whichever signal fires first, and leaves no listener on either', async () => {
    for (const first of [0, 1]) {
      const stops = [new AbortController(), new AbortController()]
      const signals = stops.map(({ signal }) => signal)
      const source = new Ones()
      source.next = () => new Promise(() => setImmediate(() => stops[first]!.abort()))
      for await (const _ of untilAborted(source, ...signals)) expect.fail('it gave something')
      expect(source.returned).to.equal(1)
      expect(signals.flatMap((signal) => getEventListeners(signal, 'abort'))).to.deep.equal([])
    }
  })
})
